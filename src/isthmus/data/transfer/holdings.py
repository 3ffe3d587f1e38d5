"""What the server reads from: whole contents of a keep, and the verified pieces of those that are still arriving."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from isthmus.data.transfer import pieces
from isthmus.data.transfer.keep import Keep
from isthmus.domain.errors import Corrupt, Forbidden


class NotYet(Exception):
    """It may come: a pull at this site is fetching it."""


class Holdings:
    """Reads for one reader, who is in `region`; keeps the file of the last range open. For one thread."""

    def __init__(self, keep: Keep, region: str) -> None:
        self._keep = keep
        self._region = region
        self._open: tuple[str, int, int] | None = None
        self._contents = -1
        self._spare = bytearray(1)

    def limits(self, blake3: str) -> tuple[str, ...]:
        """The regions that a content is limited to, beside its replica here; Forbidden when the reader is in none of them."""
        if not os.path.exists(self._keep.place("regions", blake3)):  # noqa: PTH110
            return ()
        regions = self._keep.regions_of(blake3)
        if regions and self._region not in regions:
            raise Forbidden(
                f"The content {blake3} may lie in {', '.join(regions)} only; the reader is in {self._region or 'no region'}.",
                remedy="Run what needs it where it may lie.",
                code="region_limit",
            )
        return regions

    def limits_of(self, hashes: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The limits of those that have one; Forbidden as above."""
        prefixes = self._keep.limited_prefixes()
        if not prefixes:
            return {}
        found = {blake3: self.limits(blake3) for blake3 in hashes if blake3[:2] in prefixes}
        return {blake3: regions for blake3, regions in found.items() if regions}

    def list_of(self, blake3: str) -> bytes:
        """The list of a content's pieces. NotYet, NotFound, Corrupt."""
        with contextlib.suppress(FileNotFoundError):
            return (self._keep.incoming / f"{blake3}.pieces").read_bytes()
        if not self._keep.has(blake3):
            raise NotYet
        return self._keep.pieces_of(blake3)

    def read_range(self, blake3: str, size: int, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset. NotYet, NotFound; Corrupt when what is here has another length."""
        descriptor, have = self._opened(blake3, size)
        if have >= 0:
            length = pieces.piece_bytes(size)
            first, last = offset // length, (offset + len(buffer) - 1) // length
            marks = os.pread(have, last - first + 1, first)
            if len(marks) <= last - first or not all(marks):
                self.close()  # it may be whole the next time
                raise NotYet
        try:
            pieces.read_exactly(descriptor, buffer, offset)
        except OSError as error:
            raise Corrupt(f"The content {blake3} cannot be read here: {error}.") from None

    def read_small(self, blake3: str, buffer: memoryview) -> None:
        """Fill the buffer with a whole content. NotYet; Corrupt when it has another length."""
        if self._contents < 0:
            self._contents = os.open(self._keep.contents, os.O_RDONLY)
        try:
            descriptor = os.open(f"{blake3[:2]}/{blake3}", os.O_RDONLY, dir_fd=self._contents)
        except FileNotFoundError:
            raise NotYet from None
        try:
            # One byte more than there should be.
            if os.readv(descriptor, (buffer, self._spare)) != len(buffer):
                raise _other_length(blake3)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close what is open."""
        if self._contents >= 0:
            os.close(self._contents)
            self._contents = -1
        if self._open:
            for descriptor in self._open[1:]:
                if descriptor >= 0:
                    os.close(descriptor)
            self._open = None

    def _opened(self, blake3: str, size: int) -> tuple[int, int]:
        if self._open and self._open[0] == blake3:
            return self._open[1:]
        self.close()
        have = -1
        try:
            descriptor = os.open(self._keep.place("contents", blake3), os.O_RDONLY)
        except FileNotFoundError:
            try:
                descriptor = os.open(self._keep.incoming / f"{blake3}.part", os.O_RDONLY)
            except FileNotFoundError:
                raise NotYet from None
            try:
                have = os.open(self._keep.incoming / f"{blake3}.have", os.O_RDONLY)
            except FileNotFoundError:
                os.close(descriptor)
                raise NotYet from None
        self._open = (blake3, descriptor, have)
        if os.fstat(descriptor).st_size != size:
            self.close()
            raise NotYet if have >= 0 else _other_length(blake3)
        return descriptor, have


def _other_length(blake3: str) -> Corrupt:
    return Corrupt(f"The content {blake3} has another length here than its name has.")
