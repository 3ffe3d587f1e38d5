"""Uploads that survive a broken connection: bytes go straight to a file, which becomes a blob once its hash is right."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.api.problems import TooLarge
from isthmus.data.port import CHUNK_BYTES, BlobStore
from isthmus.domain.errors import Conflict, Corrupt, Refused, Unavailable


class WrongOffset(Conflict):
    """The upload goes on at `offset`, not where the caller said."""

    code = "wrong_offset"

    def __init__(self, offset: int) -> None:
        super().__init__(f"The upload is at {offset}.", remedy="Send from the offset that Upload-Offset names.")
        self.offset = offset


@dataclass(slots=True)
class _Open:
    """An upload that somebody writes to; a later writer takes it over by a higher turn."""

    turn: int = 0
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploads:
    """Half-finished uploads of every project, as files `DIRECTORY/PROJECT/SHA256`."""

    def __init__(self, directory: Path, blobs: BlobStore, *, max_bytes: int) -> None:
        self._directory = directory
        self._blobs = blobs
        self.max_bytes = max_bytes
        self._open: dict[tuple[str, str], _Open] = {}

    def offset(self, project: str, sha256: str) -> int:
        """How many bytes of an upload are there."""
        try:
            return self._path(project, sha256).stat().st_size
        except FileNotFoundError:
            return 0

    async def append(
        self, project: str, sha256: str, *, offset: int, length: int, chunks: AsyncIterator[bytes]
    ) -> tuple[int, bool]:
        """Append from `offset`; answers the new offset and whether the whole, of `length` bytes, is now a blob.

        What arrived before a connection broke is kept. A second writer takes over: the first is told Conflict at its next
        chunk, so that a half-open connection never blocks the one that replaces it.
        """
        if length > self.max_bytes:
            raise TooLarge(f"An upload may have {self.max_bytes} bytes.", remedy="Split the content, or give its URL.")
        path = self._path(project, sha256)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = (project, sha256)
        state = self._open.setdefault(key, _Open())
        state.turn += 1
        state.users += 1
        turn = state.turn
        try:
            async with state.lock:
                here = self.offset(project, sha256)
            if offset != here:
                raise WrongOffset(here)
            buffer = bytearray()
            try:
                async for chunk in chunks:
                    buffer += chunk
                    if here + len(buffer) > length:
                        raise TooLarge(
                            f"The body goes beyond the {length} bytes that were announced.",
                            remedy="Give the whole size as Upload-Length.",
                        )
                    if len(buffer) >= CHUNK_BYTES:
                        here = await self._write(state, turn, path, here, bytes(buffer))
                        buffer.clear()
            finally:
                if buffer and here + len(buffer) <= length:
                    here = await self._write(state, turn, path, here, bytes(buffer))
            if here < length:
                return here, False
            async with state.lock:
                self._check_turn(state, turn)
                await self._finish(path, sha256)
            return here, True
        finally:
            state.users -= 1
            if state.users == 0:
                self._open.pop(key, None)

    async def _write(self, state: _Open, turn: int, path: Path, offset: int, content: bytes) -> int:
        async with state.lock:
            self._check_turn(state, turn)
            try:
                await asyncio.to_thread(_append, path, offset, content)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Unavailable("The disk for uploads is full.", remedy="Free space, then resume.") from error
                raise Unavailable("The disk for uploads fails.", remedy="Ask the operator, then resume.") from error
        return offset + len(content)

    @staticmethod
    def _check_turn(state: _Open, turn: int) -> None:
        if state.turn != turn:
            raise Conflict("The upload was taken over by a later call.", remedy="Ask where it is, then resume.")

    async def _finish(self, path: Path, sha256: str) -> None:
        if not path.exists():  # of no bytes
            path.touch()
        try:
            await self._blobs.put_file(path, sha256)
        except Corrupt:
            path.unlink(missing_ok=True)
            raise Refused(
                "The content does not hash to its name; the upload was thrown away.",
                remedy="Send it again from offset 0.",
                code="corrupt_upload",
            ) from None
        path.unlink(missing_ok=True)

    def purge(self, older_than_seconds: float) -> None:
        """Remove uploads that nobody went on with."""
        limit = time.time() - older_than_seconds
        for path in self._directory.glob("*/*"):
            if (path.parent.name, path.name) not in self._open and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)

    def _path(self, project: str, sha256: str) -> Path:
        return self._directory / project / sha256


def _append(path: Path, offset: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(content)
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset += written
            view = view[written:]
    finally:
        os.close(descriptor)
