"""The fork scheduler passes the suite: as the caller, as another account, and over ssh."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.lab.accounts import Account
from isthmus.lab.sshd import SshServer
from isthmus.sites.plain import LocalSite, SshSite
from isthmus.sites.port import Site
from tests.conformance import Centre, SiteConformance
from tests.conformance.bench import remove_groups
from tests.conformance.suite import blobs, site

__all__ = ["blobs", "site"]


def _commands(adapter: Site) -> list[str]:
    """Record the commands of a plain site: all of them, since it has no scheduler to tell apart."""
    transport: Any = adapter._transport  # type: ignore[attr-defined]
    seen: list[str] = []
    plain = transport.run

    async def run(command: Any, **options: Any) -> Any:
        seen.append(str(command))
        return await plain(command, **options)

    transport.run = run
    return seen


@contextlib.contextmanager
def _hidden(root: Path) -> Iterator[None]:
    """The site's file system is gone for a while: what was at `root` is not there."""
    away = root.with_name(f"{root.name}-away")
    root.rename(away)
    try:
        yield
    finally:
        if root.exists():
            shutil.rmtree(root)
        away.rename(root)


@pytest.fixture
def scratch(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that all accounts can write."""
    path = lab_directory / f"scratch-{os.urandom(6).hex()}"
    path.mkdir(mode=0o755)
    path.chmod(0o777)
    yield path
    remove_groups(path)
    shutil.rmtree(path, ignore_errors=True)


class TestLocalSite(SiteConformance):
    """This host, as the caller's own account."""

    @pytest.fixture
    def centre(self, scratch: Path) -> Centre:
        """Jobs run as this process does."""
        root = scratch / "root"
        config = {"root": str(root), "grace_seconds": 2}
        return Centre(
            make_site=lambda store: LocalSite("here", config, store),
            pool="local",
            scratch=scratch,
            outage=lambda: _hidden(root),
            commands=_commands,
            walltime_seconds=1,
            memory_is_limited=True,
        )


class TestLocalSiteWatched(SiteConformance):
    """This host without control groups: the wrapper itself watches memory."""

    @pytest.fixture
    def centre(self, scratch: Path) -> Centre:
        """No control groups."""
        root = scratch / "root"
        config = {"root": str(root), "grace_seconds": 2, "limits": "watch"}
        return Centre(
            make_site=lambda store: LocalSite("here", config, store),
            pool="local",
            scratch=scratch,
            outage=lambda: _hidden(root),
            commands=_commands,
            walltime_seconds=1,
            memory_is_limited=True,
        )


class TestLocalSiteOtherAccount(SiteConformance):
    """This host, jobs as an ordinary account that root becomes."""

    @pytest.fixture
    def centre(self, scratch: Path, lab_account: Account) -> Centre:
        """Jobs run as `lab_account`."""
        root = scratch / "root"
        config = {"root": str(root), "grace_seconds": 2, "switch_account": "runuser"}
        return Centre(
            make_site=lambda store: LocalSite("here", config, store),
            pool="local",
            scratch=scratch,
            account=lab_account.name,
            outage=lambda: _hidden(root),
            commands=_commands,
            walltime_seconds=1,
            memory_is_limited=True,
        )


@pytest.mark.real
class TestSshSite(SiteConformance):
    """One host over a real sshd, as an ordinary account."""

    @pytest.fixture
    def centre(self, scratch: Path, ssh_server: SshServer) -> Centre:
        """Jobs run as the account that logs in."""

        @contextlib.contextmanager
        def outage() -> Iterator[None]:
            ssh_server.kill()
            try:
                yield
            finally:
                ssh_server.start()

        config = {
            "root": str(scratch / "root"),
            "grace_seconds": 2,
            "host": ssh_server.host,
            "port": ssh_server.port,
            "user": ssh_server.username,
            "key_file": str(ssh_server.client_key),
            "known_hosts": str(ssh_server.known_hosts),
        }
        return Centre(
            make_site=lambda store: SshSite("there", config, store),
            pool="local",
            scratch=scratch,
            outage=outage,
            commands=_commands,
            walltime_seconds=1,
            memory_is_limited=True,
        )
