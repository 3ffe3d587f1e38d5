"""Contents that stay where their owner keeps them: a link in the keep instead of a copy, and how the file was when it was hashed.

    contents/ab/HASH    a symbolic link to the file
    places/ab/HASH      its size and time of change, a line, then its path

A file that is gone or was changed since counts as not here. Removing the content removes the link and never the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.data.transfer.keep import Keep


def refer(keep: Keep, blake3: str, path: str, seen: os.stat_result) -> None:
    """Have a content by a file that was hashed as `seen`; a copy of it that is here stays instead."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISLNK(os.lstat(keep.place("contents", blake3)).st_mode):
            return
    keep.note("places", blake3, f"{seen.st_size} {seen.st_mtime_ns}\n{path}".encode("utf-8", "surrogateescape"))
    fresh = f"{keep.incoming}/link-{secrets.token_hex(8)}"
    os.symlink(path, fresh)  # noqa: PTH211
    keep.admit(fresh, blake3, is_read_only=True)


def is_same(keep: Keep, blake3: str) -> bool:
    """Whether the file that a content lies in is there, and as it was when it was hashed."""
    try:
        with open(keep.place("places", blake3), "rb") as file:  # noqa: PTH123
            head, _, path = file.read().partition(b"\n")
        size, changed = head.split()
        now = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(now.st_mode) and (now.st_size, now.st_mtime_ns) == (int(size), int(changed))
