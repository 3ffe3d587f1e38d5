"""The example of an adapter in docs/examples is complete: it passes the conformance suite, and does what it promises."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.port import LogStream, Site
from tests.conformance import Centre, SiteConformance
from tests.conformance.bench import finish, job_at, ref_of
from tests.conformance.suite import blobs, site

__all__ = ["blobs", "site"]
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "adapter"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("isthmus_nice", EXAMPLE / "isthmus_nice.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["isthmus_nice"] = module
    spec.loader.exec_module(module)
    return module


NICE = _load()


@contextlib.contextmanager
def _hidden(root: Path) -> Iterator[None]:
    away = root.with_name(f"{root.name}-away")
    root.rename(away)
    try:
        yield
    finally:
        away.rename(root)


class TestNiceSite(SiteConformance):
    """The example, as the caller's own account."""

    @pytest.fixture
    def centre(self, tmp_path: Path) -> Centre:
        """This host."""
        root = tmp_path / "root"
        config = {"root": str(root), "grace_seconds": 2, "niceness": 7}
        return Centre(
            make_site=lambda store: NICE.NiceSite("here", config, store),
            pool="local",
            scratch=tmp_path,
            outage=lambda: _hidden(root),
            walltime_seconds=1,
            memory_is_limited=True,
        )

    async def test_jobs_give_way(self, site: Site, centre: Centre) -> None:
        """A job runs at the niceness of the setting."""
        job = job_at(centre, "nice")
        await finish(site, centre, job)
        assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 100) == b"7\n"


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    """Settings are checked when the site is joined."""
    with pytest.raises(Invalid, match="niceness"):
        NICE.NiceSite("here", {"niceness": 40}, DirectoryBlobStore(tmp_path))
    with pytest.raises(Invalid, match="nicenes"):
        NICE.NiceSite("here", {"nicenes": 4}, DirectoryBlobStore(tmp_path))


def test_the_entry_point_names_the_class() -> None:
    """The distribution of the example offers its class under the group that Isthmus looks in."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["isthmus.sites"]["nice"].partition(":")
    assert getattr(sys.modules[module], name).CONFIG_HELP["niceness"]
