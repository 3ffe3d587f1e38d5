"""Which tries of tasks left outputs here that are to stay, so that those of dead tries can be swept.

    tries/NAME      the keys of the tries that one collection was for, then a BLAKE3 on each line

A content is noted before it is visible under its hash. What a note names counts as wanted until the service has said that all its tries are
over, and what versions came of them.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from isthmus.domain.dataset import is_blake3

Note = Callable[[Iterable[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """One note: for which tries, and which contents."""

    path: Path
    keys: frozenset[str]
    contents: frozenset[str]

    def again(self) -> Noted:
        """As it is now."""
        return _read(self.path)


class Tries:
    """The notes of one site. Who decides what is wanted, and who removes what is not, holds `lock` meanwhile."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True, mode=0o700)
        self._directory = directory
        self.lock = threading.Lock()

    def note(self, keys: Collection[str]) -> Note:
        """What writes down that these tries left contents; on the disk when it returns. OSError when that fails."""
        path = self._directory / secrets.token_hex(8)
        header = f"{' '.join(sorted(keys))}\n"

        def write(contents: Iterable[str]) -> None:
            text = "".join(f"{blake3}\n" for blake3 in contents)
            if not text:
                return
            with self.lock, path.open("a", encoding="ascii") as file:  # swept meanwhile: it begins anew
                file.write(text if file.tell() else header + text)
                file.flush()
                os.fsync(file.fileno())

        return write

    def read(self, limit: int | None = None) -> list[Noted]:
        """The notes, the oldest first."""
        paths = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime)
        return [_read(path) for path in paths[:limit]]

    def wanted(self, *, without: Collection[Path] = ()) -> set[str]:
        """All contents that notes name."""
        found: set[str] = set()
        for path in self._directory.iterdir():
            if path not in without:
                found |= _read(path).contents
        return found


def _read(path: Path) -> Noted:
    header, *lines = path.read_text(encoding="ascii").split("\n")
    contents = frozenset(line for line in lines if is_blake3(line))  # the last may be torn: its content is not here
    return Noted(path=path, keys=frozenset(header.split()), contents=contents)
