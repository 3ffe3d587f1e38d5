"""A directory as content: the paths below it with the hash of each file; stored as a JSON blob of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from isthmus.domain.errors import Invalid
from isthmus.domain.ids import is_sha256

MAX_MANIFEST_BYTES = 64 * 1024**2


def _inside(field: str, path: str) -> None:
    pure = PurePosixPath(path)
    if not path or len(path) > 4096 or pure.is_absolute() or ".." in pure.parts or "\0" in path or "\n" in path:
        raise Invalid(field, f"{path[:200]!r} is not a path inside the directory.", remedy="Give relative paths.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file of the directory."""

    path: str
    sha256: str
    size_bytes: int
    executable: bool = False

    def __post_init__(self) -> None:
        _inside("path", self.path)
        if not is_sha256(self.sha256):
            raise Invalid("sha256", f"{self.sha256[:80]!r} is not a SHA-256.", remedy="Give 64 hexadecimal digits.")
        if self.size_bytes < 0:
            raise Invalid("size_bytes", f"is {self.size_bytes}.", remedy="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A directory: its files, and those directories that are empty or must exist anyway."""

    files: tuple[ManifestFile, ...] = ()
    directories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, path in enumerate(self.directories):
            _inside(f"directories.{index}", path)
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise Invalid("files", "names a path twice.", remedy="Give each file a path of its own.")

    @property
    def hashes(self) -> frozenset[str]:
        """The SHA-256 of every file."""
        return frozenset(file.sha256 for file in self.files)
