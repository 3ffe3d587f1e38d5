"""A directory as content: the list of its files with hashes, itself named by the hash of its canonical JSON.

The blob that `TaskSpec.workdir_manifest` and a directory `Input.blob` name holds exactly these bytes:
`{"files":[{"executable":true,"path":"bin/run","sha256":"...","size_bytes":12}, ...]}`, sorted by path, keys sorted, no spaces,
UTF-8, `executable` only where true; `directories` names those that are empty, only if there are any. Equal directories therefore have equal manifests, whoever makes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from isthmus.domain.errors import Corrupt, Invalid
from isthmus.domain.ids import is_sha256

MAX_FILES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file of a directory; `path` is relative, with `/`, and stays inside."""

    path: str
    sha256: str
    size_bytes: int
    executable: bool = False

    def __post_init__(self) -> None:
        pure = PurePosixPath(self.path)
        if not self.path or pure.is_absolute() or ".." in pure.parts or "\0" in self.path or "\n" in self.path:
            raise Invalid("path", f"{self.path!r} does not stay in the directory.", remedy="Give a relative path.")
        if not is_sha256(self.sha256):
            raise Invalid("sha256", f"{self.sha256[:80]!r} is not a SHA-256.", remedy="Give 64 hexadecimal digits.")
        if self.size_bytes < 0:
            raise Invalid("size_bytes", f"is {self.size_bytes}.", remedy="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All files of a directory, each path once."""

    files: tuple[ManifestFile, ...] = ()
    directories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.files) > MAX_FILES:
            raise Invalid(
                "files",
                f"{len(self.files)} files are too many.",
                remedy=f"At most {MAX_FILES} are carried; pack them, or leave some out with .isthmusignore.",
            )
        for path in self.directories:
            ManifestFile(path=path, sha256="0" * 64, size_bytes=0)  # the same rule for both kinds of path
        if len({file.path for file in self.files}) != len(self.files):
            raise Invalid("files", "a path is named twice.", remedy="Name each path once.")

    @property
    def hashes(self) -> frozenset[str]:
        """The SHA-256 of every file."""
        return frozenset(file.sha256 for file in self.files)

    def dump(self) -> bytes:
        """The canonical bytes; their SHA-256 names the manifest."""
        rows = [
            {"path": file.path, "sha256": file.sha256, "size_bytes": file.size_bytes}
            | ({"executable": True} if file.executable else {})
            for file in sorted(self.files, key=lambda file: file.path)
        ]
        body: dict[str, object] = {"files": rows}
        if self.directories:
            body["directories"] = sorted(self.directories)
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def load(cls, content: bytes) -> Manifest:
        """Read a manifest; Corrupt when the content is not one."""
        try:
            body = json.loads(content)
            rows = body["files"]
            return cls(
                directories=tuple(str(path) for path in body.get("directories", ())),
                files=tuple(
                    ManifestFile(
                        path=str(row["path"]),
                        sha256=str(row["sha256"]),
                        size_bytes=int(row["size_bytes"]),
                        executable=bool(row.get("executable", False)),
                    )
                    for row in rows
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(
                f"This is not a manifest of a directory: {error}.", remedy="Send the directory again."
            ) from error
