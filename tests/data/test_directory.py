"""The directory of blobs keeps what it promises."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Corrupt, Invalid, NotFound, Unavailable


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    """An empty store."""
    return DirectoryBlobStore(tmp_path / "store")


def sha256_of(content: bytes) -> str:
    """The hash of a content."""
    return hashlib.sha256(content).hexdigest()


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    """A stream."""
    for content in contents:
        yield content


async def read(store: DirectoryBlobStore, sha256: str, offset: int = 0) -> bytes:
    """The whole of a blob from an offset."""
    return b"".join([chunk async for chunk in store.read(sha256, offset)])


async def test_what_is_put_can_be_read_from_any_offset(store: DirectoryBlobStore) -> None:
    """Content comes back, whole or from within, with its size."""
    content = os.urandom(3_000_000)
    sha256 = await store.put_bytes(content)
    assert sha256 == sha256_of(content)
    assert await read(store, sha256) == content
    assert await read(store, sha256, 2_999_990) == content[-10:]
    assert await store.size(sha256) == 3_000_000
    assert stat.S_IMODE(store.path_of(sha256).stat().st_mode) == 0o600


async def test_missing_and_unknown(store: DirectoryBlobStore) -> None:
    """What is not there is told, and a hash that is none is Invalid."""
    have, other = await store.put_bytes(b"x"), sha256_of(b"y")
    assert await store.missing([have, other]) == {other}
    with pytest.raises(NotFound):
        await store.size(other)
    with pytest.raises(NotFound):
        await read(store, other)
    with pytest.raises(Invalid):
        await store.size("../../etc/passwd")


async def test_a_stream_that_hashes_otherwise_leaves_nothing(store: DirectoryBlobStore, tmp_path: Path) -> None:
    """Corrupt content is refused, and so is a stream that breaks; no part of either stays."""
    sha256 = sha256_of(b"right")
    with pytest.raises(Corrupt):
        await store.put_stream(pieces(b"wro", b"ng"), sha256)

    async def breaking() -> AsyncIterator[bytes]:
        yield b"ri"
        raise Unavailable("It broke.")

    with pytest.raises(Unavailable):
        await store.put_stream(breaking(), sha256)
    assert await store.missing([sha256]) == {sha256}
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    await store.put_stream(pieces(b"ri", b"ght"), sha256)
    assert await read(store, sha256) == b"right"


@pytest.mark.parametrize("kept", [b"", b"the beginn", b"the wrong beginning", b"the beginning and the end and more"])
async def test_a_file_resumes_or_starts_anew(store: DirectoryBlobStore, tmp_path: Path, kept: bytes) -> None:
    """What an earlier try left is used as far as it agrees with the file."""
    content = b"the beginning and the end"
    source = tmp_path / "source"
    source.write_bytes(content)
    sha256 = sha256_of(content)
    (tmp_path / "store/incoming" / f"{sha256}.part").write_bytes(kept)
    await store.put_file(source, sha256)
    assert await read(store, sha256) == content


async def test_a_file_with_another_hash_is_corrupt(store: DirectoryBlobStore, tmp_path: Path) -> None:
    """A file that changed since it was hashed is not stored."""
    source = tmp_path / "source"
    source.write_bytes(b"changed")
    with pytest.raises(Corrupt):
        await store.put_file(source, sha256_of(b"before"))
    with pytest.raises(Unavailable):
        await store.put_file(tmp_path / "nowhere", sha256_of(b"before"))


async def test_verify_finds_a_flipped_bit(store: DirectoryBlobStore) -> None:
    """A blob whose content changed on disk is named."""
    good, bad = await store.put_bytes(b"good"), await store.put_bytes(b"bad")
    assert await store.verify() == []
    store.path_of(bad).write_bytes(b"bae")
    assert await store.verify() == [bad]
    assert await read(store, good) == b"good"


async def test_sweep_removes_old_parts_only(store: DirectoryBlobStore, tmp_path: Path) -> None:
    """Broken puts are cleared after a while."""
    part = tmp_path / "store/incoming/x.part"
    part.touch()
    now = part.stat().st_mtime
    assert await store.sweep(60, now + 30) == 0
    assert await store.sweep(60, now + 90) == 1
    assert not part.exists()
