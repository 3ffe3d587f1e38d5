"""A store of blobs in a directory: `ab/cd/SHA256` under it, each made whole under another name and then renamed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from isthmus.data.port import CHUNK_BYTES
from isthmus.domain.errors import Corrupt, Invalid, NotFound, Unavailable
from isthmus.domain.ids import is_sha256


class DirectoryBlobStore:
    """Blobs as files of mode 0600 below `path`. Unavailable when the file system fails (full, gone, read-only)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts = path / "incoming"
        try:
            self._parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unavailable(f"The blob store {path} cannot be made: {error.strerror}.") from None

    def path_of(self, sha256: str) -> Path:
        """Where a blob lies, whether or not it is there."""
        if not is_sha256(sha256):
            raise Invalid("sha256", f"{sha256[:80]!r} is not a SHA-256.", remedy="Give 64 hexadecimal digits.")
        return self._path / sha256[:2] / sha256[2:4] / sha256

    async def missing(self, hashes: Collection[str]) -> set[str]:
        """Those of the given hashes that are not here."""
        paths = {sha256: self.path_of(sha256) for sha256 in hashes}
        return await asyncio.to_thread(lambda: {sha256 for sha256, path in paths.items() if not path.is_file()})

    async def size(self, sha256: str) -> int:
        """Size in bytes; NotFound when it is not here."""
        try:
            return self.path_of(sha256).stat().st_size
        except FileNotFoundError:
            raise _absent(sha256) from None
        except OSError as error:
            raise _failing(error) from None

    async def read(self, sha256: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content from `offset` on; NotFound when it is not here."""
        try:
            source = self.path_of(sha256).open("rb")
        except FileNotFoundError:
            raise _absent(sha256) from None
        except OSError as error:
            raise _failing(error) from None
        with source:
            source.seek(offset)
            while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
                yield chunk

    async def put_file(self, path: Path, sha256: str) -> None:
        """Store a local file; what an earlier try copied is used if it still is the file's beginning."""
        if await asyncio.to_thread(self.path_of(sha256).is_file):
            return
        with _failures():
            await asyncio.to_thread(self._copy, path, sha256)

    async def put_bytes(self, content: bytes) -> str:
        """Store a small content; returns its hash."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.path_of(sha256).is_file():
            with _failures():
                await asyncio.to_thread(self._write, content, sha256)
        return sha256

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> None:
        """Store streamed content; Corrupt, and nothing kept, when it does not hash to `sha256`."""
        self.path_of(sha256)
        with _failures(), self._temporary(sha256) as (target, part):
            digest = hashlib.sha256()
            async for chunk in chunks:
                digest.update(chunk)
                await asyncio.to_thread(target.write, chunk)
            if digest.hexdigest() != sha256:
                raise Corrupt(f"Content hashes to {digest.hexdigest()}, not to {sha256}.")
            await asyncio.to_thread(self._settle, target, part, sha256)

    async def verify(self) -> list[str]:
        """Hashes of blobs whose content no longer matches; reads everything."""
        return await asyncio.to_thread(lambda: [path.name for path in self._blobs() if _hash_of(path) != path.name])

    def set_aside(self, sha256: str) -> None:
        """Take a damaged blob out of use; it stays in `spoiled` for a person to look at. Blocking."""
        directory = self._path / "spoiled"
        with _failures(), contextlib.suppress(FileNotFoundError):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.path_of(sha256).replace(directory / sha256)

    async def sweep(self, older_than_seconds: float, now: float) -> int:
        """Remove parts of broken puts that nobody touched for so long; returns how many."""
        removed = 0
        for part in self._parts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now - part.stat().st_mtime > older_than_seconds:
                    part.unlink()
                    removed += 1
        return removed

    def _blobs(self) -> Iterator[Path]:
        return (path for path in sorted(self._path.glob("??/??/*")) if is_sha256(path.name))

    def _copy(self, path: Path, sha256: str) -> None:
        part = self._parts / f"{sha256}.part"
        with part.open("a+b") as target:
            fcntl.flock(target, fcntl.LOCK_EX)
            if not part.exists() or part.stat().st_ino != os.fstat(target.fileno()).st_ino:
                if self.path_of(sha256).is_file():
                    return  # another put it there while this one waited for the lock
                raise Unavailable(f"Another try to store {sha256} was dropped just now.", remedy="Try again.")
            os.fchmod(target.fileno(), 0o600)
            with path.open("rb") as source:
                digest = hashlib.sha256()
                target.seek(0)
                same = 0
                while chunk := target.read(CHUNK_BYTES):
                    if source.read(len(chunk)) != chunk:
                        break
                    digest.update(chunk)
                    same += len(chunk)
                source.seek(same)
                target.truncate(same)
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    digest.update(chunk)
            if digest.hexdigest() != sha256:
                part.unlink()
                raise Corrupt(f"{path.name} hashes to {digest.hexdigest()}, not to {sha256}.")
            self._settle(target, part, sha256)

    def _write(self, content: bytes, sha256: str) -> None:
        with self._temporary(sha256) as (target, part):
            target.write(content)
            self._settle(target, part, sha256)

    @contextlib.contextmanager
    def _temporary(self, sha256: str) -> Iterator[tuple[BinaryIO, Path]]:
        handle, name = tempfile.mkstemp(prefix=f"{sha256}.", dir=self._parts)
        try:
            with os.fdopen(handle, "wb") as target:
                yield target, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _settle(self, target: BinaryIO, part: Path, sha256: str) -> None:
        """Make a whole part durable, then visible: data, rename, then the directory that holds the name."""
        target.flush()
        os.fsync(target.fileno())
        place = self.path_of(sha256)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.rename(place)
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failing(error) from None


def _absent(sha256: str) -> NotFound:
    return NotFound(f"No stored content has the hash {sha256}.")


def _failing(error: OSError) -> Unavailable:
    return Unavailable(f"The blob store does not work: {error.strerror or error}.")


def _hash_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
