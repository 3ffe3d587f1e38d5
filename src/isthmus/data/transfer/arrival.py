"""Contents on their way into a keep: which pieces are verified survives a crash, and nothing unverified is ever visible.

A large content has three files in `incoming`: HASH.part, HASH.pieces (the list) and HASH.have, one byte for each piece, 1 once it is
verified and written. Others may serve verified pieces from there meanwhile. Whoever goes on after a crash reads the pieces that are marked
and hashes them again, so that a mark is never believed. Small contents lie in `incoming/ORDER` under their hashes until a batch of them is
flushed and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blake3 import blake3

from isthmus.data.transfer import pieces
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content
from isthmus.domain.errors import Conflict, Corrupt

_FLUSH_BYTES: Final = 64 * 1024**2
_BATCH_FILES: Final = 8192
_BATCH_SECONDS: Final = 4.0


class Arrival:
    """One large content on its way. Thread-safe; `advance`, `check` and `publish` are for one thread. Conflict when another pull fetches it."""

    def __init__(self, keep: Keep, content: Content) -> None:
        self.content = content
        self.count = pieces.piece_count(content.size_bytes)
        self.verified = bytearray(self.count)
        self.left = self.count
        self._keep = keep
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[bytes, str]] = {}
        self._hash = blake3()
        self._hashed = 0
        self._unflushed = 0
        base = keep.incoming / content.blake3
        self._files = [base.with_suffix(suffix) for suffix in (".part", ".have", ".pieces")]
        self._part = os.open(self._files[0], os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._part)
            raise Conflict(f"Another pull fetches {content.blake3}.") from None
        try:
            os.ftruncate(self._part, content.size_bytes)
            self._have = os.open(self._files[1], os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._have, self.count)
            self.listed = self._read_list()
            self.resumed_bytes = self._resume()
        except BaseException:
            os.close(self._part)
            raise

    def write(self, number: int, offset: int, data: memoryview) -> None:
        """Bytes of a piece, `offset` from its begin: nothing that is verified already is overwritten."""
        if not self.verified[number]:
            pieces.write_exactly(self._part, data, pieces.span(self.content.size_bytes, number)[0] + offset)

    def received(self, number: int, digest: bytes, site: str) -> bool:
        """A piece is written and hashes to this; whether it counts now. Before the list is here it waits. Corrupt when it is wrong."""
        with self._lock:
            if self.verified[number]:
                return False
            if self.listed is None:
                self._waiting[number] = (digest, site)
                return True
            self._accept(number, digest)
            return True

    def receive_list(self, listed: bytes) -> dict[int, str]:
        """The list of the pieces; returns those that came before it and are wrong, with the sites that sent them. Corrupt when it is none."""
        if len(listed) != self.count * pieces.DIGEST_BYTES:
            raise Corrupt(f"The list of pieces of {self.content.blake3} has another length.")
        with self._lock:
            if self.listed is not None:
                return {}
            self._files[2].write_bytes(listed)
            self.listed = listed
            wrong = {}
            for number, (digest, site) in self._waiting.items():
                try:
                    self._accept(number, digest)
                except Corrupt:
                    wrong[number] = site
            self._waiting.clear()
            return wrong

    def advance(self) -> None:
        """Go on with the hash over the whole content as far as it is verified, and let the disk keep up; OSError when it fails."""
        size, first = self.content.size_bytes, self._hashed
        buffer = memoryview(bytearray(pieces.piece_bytes(size)))
        while self._hashed < self.count and self.verified[self._hashed]:
            begin, length = pieces.span(size, self._hashed)
            pieces.read_exactly(self._part, buffer[:length], begin)
            self._hash.update(buffer[:length])
            self._hashed += 1
            self._unflushed += length
        if self._unflushed >= _FLUSH_BYTES and self._hashed > first:
            os.fdatasync(self._part)
            self._unflushed = 0

    def check(self) -> None:
        """All pieces are here: compare the whole. Corrupt when it is not what its name says: nothing of it is kept then."""
        self.advance()
        if self.left or self._hash.hexdigest() != self.content.blake3:
            self.discard()
            raise Corrupt(f"What came for {self.content.blake3} is not that, though its pieces fit their list.")

    def publish(self) -> None:
        """What was checked, and then flushed to the disk, becomes visible; OSError when the disk fails."""
        name = self.content.blake3
        self._keep.admit(os.fspath(self._files[2]), name, kind="pieces")
        self._keep.admit(os.fspath(self._files[0]), name)
        self._files[1].unlink(missing_ok=True)
        self.close()

    def discard(self) -> None:
        """Forget all of it."""
        for file in self._files:
            file.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave it as it is, for a later pull."""
        for descriptor in (self._part, self._have):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._part = self._have = -1

    def _accept(self, number: int, digest: bytes) -> None:
        assert self.listed is not None
        at = number * pieces.DIGEST_BYTES
        if digest != self.listed[at : at + pieces.DIGEST_BYTES]:
            raise Corrupt(f"Piece {number} of {self.content.blake3} is not what the list says.")
        self.verified[number] = 1
        self.left -= 1
        os.pwrite(self._have, b"\1", number)

    def _read_list(self) -> bytes | None:
        try:
            listed = self._files[2].read_bytes()
        except FileNotFoundError:
            return None
        return listed if len(listed) == self.count * pieces.DIGEST_BYTES else None

    def _resume(self) -> int:
        """Hash what is marked; bytes that are right."""
        marks = os.pread(self._have, self.count, 0)
        size, resumed = self.content.size_bytes, 0
        buffer = memoryview(bytearray(pieces.piece_bytes(size)))
        for number in range(self.count):
            if not marks[number]:
                continue
            begin, length = pieces.span(size, number)
            pieces.read_exactly(self._part, buffer[:length], begin)
            at = number * pieces.DIGEST_BYTES
            if self.listed and blake3(buffer[:length]).digest() == self.listed[at : at + pieces.DIGEST_BYTES]:
                self.verified[number] = 1
                self.left -= 1
                resumed += length
            else:
                os.pwrite(self._have, b"\0", number)
        return resumed


class SmallArrivals:
    """Small contents of one order: written one by one from any thread, made visible in batches by one thread."""

    def __init__(self, keep: Keep, order: str) -> None:
        self._keep = keep
        self._directory = keep.incoming / order
        self._directory.mkdir(exist_ok=True)
        self._base = os.fspath(self._directory)
        self._place = os.open(self._base, os.O_RDONLY)
        self._lock = threading.Lock()
        self._written: list[str] = []
        self._since: float | None = None
        self._is_read_only: bool | None = None

    def resume(self, wanted: dict[str, int]) -> dict[str, int]:
        """What lies here from before, right and wanted, with sizes; all else is removed."""
        found = {}
        for entry in os.scandir(self._base):
            data = Path(entry.path).read_bytes() if entry.name in wanted else b""
            if entry.name in wanted and blake3(data).hexdigest() == entry.name:
                found[entry.name] = len(data)
                self.note([entry.name])
            else:
                os.unlink(entry.path)  # noqa: PTH108
        return found

    def write(self, name: str, data: memoryview) -> None:
        """Write a content that hashes to its name; `note` it next. OSError when the disk fails."""
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444, dir_fd=self._place)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._is_read_only is None:  # not where the umask takes it from others
                self._is_read_only = os.fstat(descriptor).st_mode & 0o777 == 0o444
        finally:
            os.close(descriptor)

    def publish(self, *, now: float, is_last: bool = False, before: Callable[[list[str]], None]) -> int:
        """Make a batch visible when it is large or old enough; how many became so. `before` is called with their names when they are
        on the disk and not yet visible. `now` is of the monotonic clock. OSError when the disk fails."""
        with self._lock:
            due = is_last or len(self._written) >= _BATCH_FILES or (self._since or now) + _BATCH_SECONDS < now
            if not due or not self._written:
                return 0
            batch, self._written, self._since = self._written, [], None
        self._keep.flush()
        before(batch)
        self._keep.admit_all(self._base, batch, is_read_only=bool(self._is_read_only))
        return len(batch)

    def close(self) -> None:
        """Leave what is not published for a later pull; remove the directory when it is empty."""
        if self._place >= 0:
            os.close(self._place)
            self._place = -1
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def note(self, names: list[str]) -> None:
        """These are written, to be published with the next batch."""
        with self._lock:
            self._written += names
            if self._since is None:
                self._since = time.monotonic()


def forget(keep: Keep, order: str) -> None:
    """Remove what a pull left that will not be gone on with; its large contents stay, others may want them."""
    shutil.rmtree(keep.incoming / order, ignore_errors=True)
