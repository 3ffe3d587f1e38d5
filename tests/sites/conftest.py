"""What the tests of sites share: a store, a directory that every account may enter, and a plain site over both."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.sites.plain import LocalSite
from tests.conformance.bench import Centre, remove_groups


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    """The control plane's blob store."""
    return DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
def scratch(lab_directory: Path) -> Iterator[Path]:
    """A directory that all accounts can write."""
    path = lab_directory / f"scratch-{os.urandom(6).hex()}"
    path.mkdir()
    path.chmod(0o777)
    yield path
    remove_groups(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def local_site(scratch: Path, blobs: DirectoryBlobStore) -> AsyncIterator[Callable[..., LocalSite]]:
    """Makes local sites with their root in `scratch`; closes them in the end."""
    made: list[LocalSite] = []

    def make(**config: Any) -> LocalSite:
        made.append(LocalSite("here", {"root": str(scratch / "root"), "grace_seconds": 1, **config}, blobs))
        return made[-1]

    yield make
    for site in made:
        await site.close()


@pytest.fixture
def centre(scratch: Path) -> Centre:
    """A plain centre for the helpers of the conformance suite."""
    return Centre(make_site=lambda store: LocalSite("here", {}, store), pool="local", scratch=scratch)
