"""How a content is cut into pieces, each verified by itself, and the list of the pieces' hashes.

A piece is a power of two of bytes, from 256 KiB up to 16 MiB, so that a content has about 4096 at most until they are as large as that.
A small content needs no list: it travels whole and its own hash verifies it. The list of a large one is no proof by itself (it comes from
the sender); it tells at once which piece of which sender is wrong, and the hash over the whole content, checked at the end, decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from blake3 import blake3

LEAST_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 16 * 1024**2
SMALL_BYTES: Final = 1024**2
_COUNT: Final = 4096
DIGEST_BYTES: Final = 32


def is_small(size_bytes: int) -> bool:
    """Whether a content of that size travels whole."""
    return size_bytes <= SMALL_BYTES


def piece_bytes(size_bytes: int) -> int:
    """How long the pieces of a content of that size are (the last may be shorter)."""
    length = LEAST_BYTES
    while length < MOST_BYTES and size_bytes > length * _COUNT:
        length *= 2
    return length


def piece_count(size_bytes: int) -> int:
    """How many pieces it has; an empty content has none."""
    return -(-size_bytes // piece_bytes(size_bytes))


def span(size_bytes: int, number: int) -> tuple[int, int]:
    """Where a piece begins, and how long it is."""
    length = piece_bytes(size_bytes)
    begin = number * length
    return begin, min(length, size_bytes - begin)


def hash_pieces(descriptor: int, size_bytes: int, told: Callable[[int], None] = lambda _: None) -> tuple[str, bytes]:
    """The BLAKE3 of an open file and the list of its pieces' hashes, in one pass; OSError when it is shorter. `told`: bytes, as they are
    read."""
    whole, found = blake3(), bytearray()
    buffer = memoryview(bytearray(min(max(size_bytes, 1), piece_bytes(size_bytes))))
    for number in range(piece_count(size_bytes)):
        begin, length = span(size_bytes, number)
        read_exactly(descriptor, buffer[:length], begin)
        whole.update(buffer[:length])
        found += blake3(buffer[:length]).digest()
        told(length)
    return whole.hexdigest(), bytes(found)


def read_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill the buffer from a file at an offset; OSError when the file ends before."""
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], offset + done)
        if got == 0:
            raise OSError(f"the file ends at {offset + done}")
        done += got


def write_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Write all of the buffer into a file at an offset; OSError when it cannot be."""
    done = 0
    while done < len(buffer):
        done += os.pwrite(descriptor, buffer[done:], offset + done)
