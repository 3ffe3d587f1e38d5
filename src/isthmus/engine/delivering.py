"""Where outputs go besides the blob store: which file to which address, and putting it there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.task import Output, TaskSpec
from isthmus.sites.port import CollectedFile
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load

_SINGLE = re.compile(r"\[([*?\[])\]")
Deliver = Callable[[BlobStore, str, str], Awaitable[None]]  # (blobs, sha256, url)


async def destinations(
    database: Database, task_id: str, files: Sequence[CollectedFile]
) -> list[tuple[CollectedFile, str]]:
    """Each file with the address it is to be put at; files without an address are left out."""
    if not files:
        return []
    spec = load(TaskSpec, await database.read(spec_of, task_id))
    wanted = [output for output in spec.outputs if output.url]
    return [(file, url) for file in files for output in wanted if (url := address(output, file.path)) is not None]


def address(output: Output, path: str) -> str | None:
    """Where the file at `path` goes by this output; None when the output does not speak of it.

    A single file goes to the address itself; of a directory, or of several files by wildcard, each goes below it.
    """
    rest = below(output, path)
    return None if rest is None else f"{output.url.rstrip('/')}/{rest}" if rest else output.url


def below(output: Output, path: str) -> str | None:
    """The name of the file at `path` below where an output goes: empty when the output is that one file, None when it does not
    speak of it; else its path without the directory or, by wildcard, without `path_prefix` (GA4GH TES 1.1). A wildcard that
    stands for one character only, such as `[*]`, is that character.
    """
    literal = _SINGLE.sub(r"\1", output.path)
    wild = any(mark in _SINGLE.sub("", output.path) for mark in "*?[")
    if not wild:
        if not output.directory:
            return "" if path == literal else None
        base = literal.rstrip("/") + "/"
        return path[len(base) :] if path.startswith(base) else None
    pattern, parts = output.path.rstrip("/").split("/"), path.split("/")
    held = parts[: len(pattern)] if output.directory else parts
    if len(held) != len(pattern) or len(parts) < len(pattern) + output.directory:
        return None
    if not all(fnmatchcase(part, like) for part, like in zip(held, pattern, strict=True)):
        return None
    prefix = output.path_prefix.rstrip("/") + "/" if output.path_prefix else ""
    shorter = path.removeprefix(prefix)
    return shorter if prefix and shorter != path else "/".join(parts[len(pattern) - 1 :])


def spec_of(connection: sa.Connection, task_id: str) -> Any:
    """The text of a task's specification."""
    return connection.execute(sa.select(tables.tasks.c.spec).where(tables.tasks.c.id == task_id)).scalar_one()
