"""Takes inputs at file:// addresses into the blob store when a task is submitted, from directories that the operator
allows: what the task reads is what was there then, wherever it runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.api.tes.models import TesFileType, TesInput
from isthmus.api.tes.translation import Taken, is_local
from isthmus.data.delivery import allowed_path
from isthmus.data.port import BlobStore
from isthmus.domain.errors import Corrupt, Invalid, Refused
from isthmus.domain.manifest import MAX_FILES, Manifest, ManifestFile


@dataclass(slots=True, kw_only=True)
class TakenIn:
    """All local inputs of a document: by index; the contents with their sizes in bytes; the manifests' own contents."""

    inputs: dict[int, Taken] = field(default_factory=dict)
    contents: dict[str, int] = field(default_factory=dict)
    manifests: dict[str, frozenset[str]] = field(default_factory=dict)


async def take_in(blobs: BlobStore, inputs: Sequence[TesInput], directories: Sequence[Path]) -> TakenIn:
    """Read every local input into the store; Invalid names the one that is not there or not allowed."""
    taken = TakenIn()
    for index, item in enumerate(inputs):
        if not is_local(item) or item.url is None:
            continue
        name = f"inputs.{index}.url"
        try:
            path = Path(os.path.realpath(allowed_path(item.url, directories)))
            allowed_path(str(path), directories)
            if item.type is TesFileType.DIRECTORY:
                taken.inputs[index] = await _directory(blobs, path, directories, taken)
            else:
                file = await _file(blobs, path, taken)
                taken.inputs[index] = Taken(sha256=file.sha256, executable=file.executable)
        except Invalid as error:
            raise Invalid(name, error.cause, remedy=error.remedy) from None
        except Refused as error:
            raise Invalid(name, error.cause, remedy=error.remedy) from None
        except OSError as error:
            raise Invalid(name, f"{item.url[:200]!r} cannot be read: {error.strerror}.") from None
    return taken


async def _file(blobs: BlobStore, path: Path, taken: TakenIn, shown: str = "file") -> ManifestFile:
    for last in (False, True):
        sha256, size, mode = await asyncio.to_thread(_hash, path)
        try:
            await blobs.put_file(path, sha256)
            break
        except Corrupt:  # it was written to between the two looks
            if last:
                raise Refused(f"{path.name} is being written to.", remedy="Submit once it is whole.") from None
    taken.contents[sha256] = size
    return ManifestFile(path=shown, sha256=sha256, size_bytes=size, executable=bool(mode & 0o100))


async def _directory(blobs: BlobStore, top: Path, directories: Sequence[Path], taken: TakenIn) -> Taken:
    if not top.is_dir():
        raise Refused("It is not a directory.", remedy="Use type FILE.")
    paths = await asyncio.to_thread(_walk, top)
    files = []
    for path in paths:
        real = Path(os.path.realpath(path))
        allowed_path(str(real), directories)
        files.append(await _file(blobs, real, taken, path.relative_to(top).as_posix()))
    manifest = Manifest(files=tuple(files))
    body = manifest.dump()
    sha256 = await blobs.put_bytes(body)
    taken.contents[sha256] = len(body)
    taken.manifests[sha256] = manifest.hashes
    return Taken(sha256=sha256)


def _walk(top: Path) -> list[Path]:
    found: list[Path] = []
    for folder, _, names in os.walk(top):
        found += [path for name in names if (path := Path(folder, name)).is_file()]
        if len(found) > MAX_FILES:
            raise Refused(f"It holds more than {MAX_FILES} files.", remedy="Name a smaller directory.")
    return sorted(found)


def _hash(path: Path) -> tuple[str, int, int]:
    with path.open("rb") as source:
        if not path.is_file():
            raise Refused("It is not a file.", remedy="Use type DIRECTORY for a directory.")
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        status = os.fstat(source.fileno())
    return digest, status.st_size, status.st_mode


def grants(project: str, contents: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """The contents as what a project may read (engine.transitions.grant)."""
    return {(project, sha256): size for sha256, size in contents.items()}
