"""A directory of the user's as a manifest: which files belong to it, and the hash of each.

`.gitignore` and `.isthmusignore` of every level are honoured (the second may take back what the first leaves out);
`.git` never belongs. A link to a file or directory inside is followed; one that leads out, or nowhere, is refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.domain.errors import NotFound, Refused
from isthmus.domain.manifest import Manifest, ManifestFile

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".isthmusignore")
ALWAYS_LEFT_OUT = frozenset({".git"})
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """Content to be at the service: its hash, its size in bytes, and where it is here (a file, or the bytes)."""

    sha256: str
    size_bytes: int
    source: Path | bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """A scanned directory: its manifest, all content it needs (the manifest's own included), what was left out and why."""

    manifest_sha256: str
    manifest: Manifest
    contents: tuple[Content, ...]
    notes: tuple[str, ...] = ()


def hash_file(path: Path) -> Content:
    """The content of a local file; NotFound when it is not there, Refused when it cannot be read."""
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {str(path)!r}.", remedy="Check the path.", code="file_not_found") from error
    except OSError as error:
        raise Refused(f"{str(path)!r} cannot be read: {error.strerror}.", remedy="Check the file's mode.") from error
    return Content(digest.hexdigest(), size, path)


def hash_bytes(content: bytes) -> Content:
    """Bytes as content."""
    return Content(hashlib.sha256(content).hexdigest(), len(content), content)


def scan(root: Path) -> Directory:
    """Read a directory into a manifest; Refused names the file that cannot be carried."""
    if not root.is_dir():
        raise NotFound(f"There is no directory {str(root)!r}.", remedy="Check the path.", code="file_not_found")
    notes: list[str] = []
    files: list[ManifestFile] = []
    empty: list[str] = []
    contents: dict[str, Content] = {}
    for relative, path in _walk(root, notes):
        if relative.endswith("/"):
            empty.append(relative[:-1])
            continue
        content = hash_file(path)
        contents[content.sha256] = content
        executable = bool(path.stat().st_mode & stat.S_IXUSR)
        files.append(
            ManifestFile(path=relative, sha256=content.sha256, size_bytes=content.size_bytes, executable=executable)
        )
    manifest = Manifest(files=tuple(sorted(files, key=lambda file: file.path)), directories=tuple(empty))
    own = hash_bytes(manifest.dump())
    contents[own.sha256] = own
    return Directory(own.sha256, manifest, tuple(contents.values()), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Rules:
    prefix: str
    spec: GitIgnoreSpec


def _walk(root: Path, notes: list[str]) -> Iterator[tuple[str, Path]]:
    real_root = root.resolve()
    yield from _walk_directory(root, "", (), (real_root,), real_root, notes)


def _walk_directory(
    here: Path, prefix: str, rules: tuple[_Rules, ...], above: tuple[Path, ...], real_root: Path, notes: list[str]
) -> Iterator[tuple[str, Path]]:
    own = _rules_of(here, prefix)
    rules = (*rules, own) if own else rules
    entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    if not entries and prefix:
        yield prefix, here
    for entry in entries:
        relative = f"{prefix}{entry.name}"
        if entry.name in ALWAYS_LEFT_OUT:
            continue
        is_directory = entry.is_dir()
        if _ignored(relative + ("/" if is_directory else ""), rules):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            _check_link(path, relative, real_root)
        if is_directory:
            real = path.resolve()
            if real in above:
                raise Refused(
                    f"The link {relative!r} leads to a directory that holds it.",
                    remedy="Remove the link, or name it in .isthmusignore.",
                    code="link_loop",
                )
            yield from _walk_directory(path, relative + "/", rules, (*above, real), real_root, notes)
        elif entry.is_file():
            yield relative, path
        else:
            notes.append(f"{relative} is not a file (a socket, a pipe or a device) and was left out.")


def _check_link(path: Path, relative: str, real_root: Path) -> None:
    real = path.resolve()
    if not real.is_relative_to(real_root):
        raise Refused(
            f"The link {relative!r} leads out of the directory.",
            remedy="Copy what it points to, give it with --in, or name the link in .isthmusignore.",
            code="link_leads_out",
        )
    if not real.exists():
        raise Refused(
            f"The link {relative!r} leads nowhere.",
            remedy="Remove it, or name it in .isthmusignore.",
            code="link_broken",
        )


def _rules_of(here: Path, prefix: str) -> _Rules | None:
    lines: list[str] = []
    for name in IGNORE_FILES:
        file = here / name
        if file.is_file():
            lines += file.read_text(errors="replace").splitlines()
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    return _Rules(prefix, GitIgnoreSpec.from_lines(lines))


def _ignored(relative: str, rules: tuple[_Rules, ...]) -> bool:
    for rule in reversed(rules):
        answer = rule.spec.check_file(relative[len(rule.prefix) :]).include
        if answer is not None:
            return answer
    return False
