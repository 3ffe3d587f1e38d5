"""Collects a job's outputs: lists and hashes them at the site, brings what the store lacks, checks every hash."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Corrupt, IsthmusError, Unavailable
from isthmus.sites import scripts
from isthmus.sites.port import Collected, CollectedFile, Job, JobOutput
from isthmus.sites.staging import place_below
from isthmus.sites.transport import Transport

_SMALL_BYTES: Final = 1024 * 1024
_BUNDLE_BYTES: Final = 16 * 1024 * 1024
_TRIES: Final = 3  # of one large file within one call; what arrived is kept, also for the next call
_HASHED_BYTES_PER_SECOND: Final = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A file found at the site: `path` as the task names it, `place` where its content lies."""

    path: str
    place: str
    size_bytes: int
    executable: bool


class Collector:
    """Collects at one site."""

    def __init__(self, transport: Transport, blobs: BlobStore) -> None:
        self._transport = transport
        self._blobs = blobs
        self._spool: Path | None = None

    async def collect(self, job: Job, directory: str) -> Collected:
        """All outputs of a job whose directory is given; raises Unavailable or Corrupt, then nothing is lost."""
        if not job.outputs:
            return Collected()
        bases = {output: f"{directory}/{_literal(place_below(output.path))}" for output in job.outputs}
        entries, folders = await self._list(sorted(set(bases.values())), directory, job.account)
        found: dict[str, _Entry] = {}
        missing: list[str] = []
        for output in job.outputs:
            place = f"{directory}/{place_below(output.path)}"
            matched = [entry for entry in entries if _matches(output, place, entry.place_named)]
            for entry in matched:
                found[entry.entry.path] = entry.entry
            if not matched and not (output.directory and any(_fits(place, folder) for folder in folders)):
                missing.append(output.path)
        ordered = [found[path] for path in sorted(found)]
        hashes = await self._hash(ordered, job.account)
        wanted = await self._blobs.missing(set(hashes))
        await self._bring(list(zip(ordered, hashes, strict=True)), wanted, job.account)
        files = tuple(
            CollectedFile(path=entry.path, sha256=sha, size_bytes=entry.size_bytes, executable=entry.executable)
            for entry, sha in zip(ordered, hashes, strict=True)
        )
        return Collected(files=files, missing=tuple(missing))

    def close(self) -> None:
        """Drop what arrived of files whose transfer was not ended."""
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)
            self._spool = None

    async def _list(self, bases: list[str], directory: str, account: str) -> tuple[list[_Found], list[str]]:
        """Regular files and resolved links below the bases; and the directories."""
        raw = await self._entries(bases, account)
        folders = [place for kind, _, _, place in raw if kind == "d"]
        files = [
            _Found(place_named=place, entry=_entry(place, place, size, mode, directory))
            for kind, size, mode, place in raw
            if kind == "f"
        ]
        links = [place for kind, _, _, place in raw if kind == "l"]
        if links:
            files += await self._follow(links, directory, account)
        return files, folders

    async def _follow(self, links: list[str], directory: str, account: str) -> list[_Found]:
        """Links that lead to regular files within the task's own directories; others are left out."""
        targets: dict[str, str] = {}
        for link in links:
            # One at a time: readlink leaves out what it cannot resolve, and the rest would no longer line up.
            result = await self._transport.run(
                scripts.RESOLVE, stdin=link.encode("utf-8", "surrogateescape"), account=account
            )
            target = result.stdout.rstrip(b"\0").decode("utf-8", "surrogateescape")
            if result.exit_code == 0 and target.startswith((f"{directory}/work/", f"{directory}/root/")):
                targets[link] = target
        resolved = {
            place: (kind, size, mode)
            for kind, size, mode, place in await self._entries(sorted(set(targets.values())), account)
        }
        found = []
        for link, target in targets.items():
            kind, size, mode = resolved.get(target, ("", 0, 0))
            if kind == "f":
                found.append(_Found(place_named=link, entry=_entry(link, target, size, mode, directory)))
        return found

    async def _entries(self, bases: list[str], account: str) -> list[tuple[str, int, int, str]]:
        if not bases:
            return []
        names = "\0".join(bases).encode("utf-8", "surrogateescape")
        result = await self._transport.run(scripts.LIST, stdin=names, timeout_seconds=300, account=account)
        if result.exit_code != 0:
            raise Unavailable(f"{self._transport.place} does not list the outputs: {result.complaint}")
        entries = []
        for record in result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
            kind, size, mode, place = record.split("\t", 3)
            entries.append((kind, int(size), int(mode, 8), place))
        return entries

    async def _hash(self, entries: Sequence[_Entry], account: str) -> list[str]:
        if not entries:
            return []
        total = sum(entry.size_bytes for entry in entries)
        result = await self._transport.run(
            scripts.HASH,
            stdin=_names(entries),
            timeout_seconds=60 + len(entries) / 20 + total / _HASHED_BYTES_PER_SECOND,
            account=account,
        )
        records = result.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
        if result.exit_code != 0 or [record[66:] for record in records] != [entry.place for entry in entries]:
            raise Unavailable(f"{self._transport.place} does not hash the outputs: {result.complaint}")
        return [record[:64] for record in records]

    async def _bring(self, pairs: list[tuple[_Entry, str]], wanted: set[str], account: str) -> None:
        """Bring each wanted content once; small ones many to a command."""
        bundle: list[tuple[_Entry, str]] = []
        bundle_bytes = 0
        left = set(wanted)
        direct = self._transport.is_local and account in ("", self._transport.own_account)
        for entry, sha in pairs:
            if sha not in left:
                continue
            left.discard(sha)
            if direct:  # only with the account's own rights: the job's user may put a link in the file's place
                await self._blobs.put_file(Path(entry.place), sha)
            elif entry.size_bytes > _SMALL_BYTES:
                await self._bring_large(entry, sha, account)
            else:
                bundle.append((entry, sha))
                bundle_bytes += entry.size_bytes
                if bundle_bytes > _BUNDLE_BYTES:
                    await self._bring_bundle(bundle, account)
                    bundle, bundle_bytes = [], 0
        if bundle:
            await self._bring_bundle(bundle, account)

    async def _bring_bundle(self, bundle: list[tuple[_Entry, str]], account: str) -> None:
        result = await self._transport.run(
            scripts.READ_ALL, stdin=_names([entry for entry, _ in bundle]), timeout_seconds=300, account=account
        )
        if result.exit_code != 0 or len(result.stdout) != sum(entry.size_bytes for entry, _ in bundle):
            raise Unavailable(
                f"The outputs changed while {self._transport.place} sent them, or it failed: {result.complaint}"
            )
        start = 0
        for entry, sha in bundle:
            content = result.stdout[start : start + entry.size_bytes]
            start += entry.size_bytes
            if hashlib.sha256(content).hexdigest() != sha:
                raise Corrupt(f"Output {entry.path} is not what was hashed at the site.")
            await self._blobs.put_bytes(content)

    def _open(self, command: list[str], account: str) -> AsyncGenerator[bytes, None]:
        return self._transport.stream(command, timeout_seconds=120, account=account)

    async def _bring_large(self, entry: _Entry, sha: str, account: str) -> None:
        if self._spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="isthmus-"))
        part = self._spool / sha
        for turn in range(1, _TRIES + 1):
            have = part.stat().st_size if part.exists() else 0
            if have > entry.size_bytes:
                part.unlink()
                have = 0
            try:
                with part.open("ab") as target:
                    command = ["tail", "-c", f"+{have + 1}", "--", entry.place]
                    async with contextlib.aclosing(self._open(command, account)) as chunks:
                        async for chunk in chunks:
                            target.write(chunk)
                break
            except IsthmusError:
                if turn == _TRIES or part.stat().st_size == have:
                    raise
        try:
            await self._blobs.put_file(part, sha)
        except Corrupt:
            part.unlink(missing_ok=True)
            raise
        part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An entry and the place under which it was found (of a link: the link's own)."""

    place_named: str
    entry: _Entry


def _entry(named: str, place: str, size: int, mode: int, directory: str) -> _Entry:
    below = named[len(directory) + 1 :]
    path = below.removeprefix("work/") if below.startswith("work/") else below.removeprefix("root")
    return _Entry(path=path, place=place, size_bytes=size, executable=bool(mode & 0o100))


def _names(entries: Sequence[_Entry]) -> bytes:
    return "\0".join(entry.place for entry in entries).encode("utf-8", "surrogateescape")


def _has_wildcard(part: str) -> bool:
    return any(mark in part for mark in "*?[")


def _literal(path: str) -> str:
    """The part of an output's path before its first wildcard: where to look."""
    kept: list[str] = []
    for part in PurePosixPath(path).parts:
        if _has_wildcard(part):
            break
        kept.append(part)
    return "/".join(kept)


def _fits(pattern: str, place: str) -> bool:
    """Whether a place matches a pattern part by part; `**` stands for any number of parts."""
    return _fits_parts(pattern.split("/"), place.split("/"))


def _fits_parts(pattern: list[str], place: list[str]) -> bool:
    if not pattern:
        return not place
    if pattern[0] == "**":
        return any(_fits_parts(pattern[1:], place[start:]) for start in range(len(place) + 1))
    if not place:
        return False
    same = fnmatch.fnmatchcase(place[0], pattern[0]) if _has_wildcard(pattern[0]) else place[0] == pattern[0]
    return same and _fits_parts(pattern[1:], place[1:])


def _matches(output: JobOutput, pattern: str, place: str) -> bool:
    if not output.directory:
        return _fits(pattern, place) or place == pattern
    depth = len(pattern.split("/"))
    parts = place.split("/")
    return len(parts) > depth and _fits(pattern, "/".join(parts[:depth]))
