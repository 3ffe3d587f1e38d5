"""A small site that keeps the port's promises in a directory: each submission is a line on disk, so that a test counts
what was really submitted, whoever was killed. A job runs from its submission until `finish` is called."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.data.port import BlobStore
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.port import (
    Collected,
    CollectedFile,
    CollectOutcome,
    Job,
    JobRef,
    LogStream,
    Observation,
    Rejected,
    Sighting,
    Staged,
    StageOutcome,
    SubmitOutcome,
    Submitted,
)


class FileSite:
    """The directory holds `staged/KEY/`, `submitted` (lines `KEY NUMBER`), `ended/KEY`, `cancelled/KEY`, `calls`."""

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self.root = root
        self._blobs = blobs
        for name in ("staged", "ended", "cancelled"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.gate: asyncio.Event | None = None  # when set, methods wait for it before they do anything

    async def _enter(self, method: str, keys: Sequence[str]) -> None:
        _line(self.root / "calls", f"{method} {' '.join(keys)}")
        if self.gate is not None:
            await self.gate.wait()

    async def describe(self) -> SiteDescription:
        """One pool."""
        await self._enter("describe", ())
        return SiteDescription(kind="file", version="1", pools=(Pool(name="all"),), features=frozenset({"logs"}))

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Fetch the jobs' blobs."""
        await self._enter("stage", [job.key for job in jobs])
        outcomes: dict[str, StageOutcome] = {}
        for job in jobs:
            directory = self.root / "staged" / job.key
            directory.mkdir(exist_ok=True)
            for file in job.files:
                digest = hashlib.sha256()
                with (directory / file.path).open("wb") as target:
                    async for chunk in self._blobs.read(file.blob):
                        digest.update(chunk)
                        target.write(chunk)
                if digest.hexdigest() != file.blob:
                    outcomes[job.key] = Rejected(reason=EndReason.INPUT_MISSING, message="differs")
            outcomes.setdefault(job.key, Staged())
        return outcomes

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Write a line for each job."""
        await self._enter("submit", [job.key for job in jobs])
        outcomes: dict[str, SubmitOutcome] = {}
        for job in jobs:
            number = str(len(submissions(self.root)) + 1)
            _line(self.root / "submitted", f"{job.key} {number}")
            outcomes[job.key] = Submitted(native_id=number)
        return outcomes

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """Numbers of the lines of each key."""
        await self._enter("find", [ref.key for ref in refs])
        return {ref.key: tuple(n for k, n in submissions(self.root) if k == ref.key) for ref in refs}

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """Running until `ended/KEY` or `cancelled/KEY` is there."""
        await self._enter("observe", [ref.key for ref in refs])
        return {ref.key: self._look(ref.key) for ref in refs}

    def _look(self, key: str) -> Observation:
        ids = tuple(n for k, n in submissions(self.root) if k == key)
        if not ids:
            return Observation(sighting=Sighting.ABSENT)
        if (self.root / "cancelled" / key).exists():
            return Observation(sighting=Sighting.ENDED, native_ids=ids, reason=EndReason.CANCELLED_BY_USER)
        if (self.root / "ended" / key).exists():
            return Observation(sighting=Sighting.ENDED, native_ids=ids, reason=EndReason.EXIT_ZERO, exit_code=0)
        return Observation(sighting=Sighting.RUNNING, native_ids=ids)

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """Make `cancelled/KEY`."""
        await self._enter("cancel", [ref.key for ref in refs])
        for ref in refs:
            (self.root / "cancelled" / ref.key).touch()

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """Write it down only."""
        await self._enter("let_go", [ref.key for ref in refs])

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """Write it down only."""
        await self._enter("cancel_native", native_ids)

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """A part of the job's output, which is its key and all 256 bytes."""
        await self._enter("logs", [ref.key])
        return (ref.key.encode() + bytes(range(256)))[offset : offset + limit]

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """One output for each job: its key, many times."""
        await self._enter("collect", [job.key for job in jobs])
        outcomes: dict[str, CollectOutcome] = {}
        for job in jobs:
            content = output_of(job.key)
            path = self.root / "staged" / f"{job.key}.out"
            path.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            if await self._blobs.missing([sha256]):
                await self._blobs.put_file(path, sha256)
            file = CollectedFile(path="out", sha256=sha256, size_bytes=len(content))
            outcomes[job.key] = Collected(files=(file,))
        return outcomes

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """The same for every job that ended."""
        await self._enter("usage", [ref.key for ref in refs])
        return {
            ref.key: Usage(
                source="file",
                started_at=1.5,
                ended_at=None,
                elapsed_seconds=2,
                cpus=1,
                cpu_seconds=0.25,
                allocated_cpu_seconds=2,
                max_rss_bytes=1024,
            )
            for ref in refs
            if (self.root / "ended" / ref.key).exists()
        }

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Remove what was staged."""
        await self._enter("clean", [ref.key for ref in refs])
        for ref in refs:
            directory = self.root / "staged" / ref.key
            for file in directory.glob("*"):
                file.unlink()
            if directory.exists():
                directory.rmdir()

    async def close(self) -> None:
        """Nothing to do."""


def submissions(root: Path) -> list[tuple[str, str]]:
    """Key and number of everything that was submitted, in order."""
    try:
        text = (root / "submitted").read_text()
    except FileNotFoundError:
        return []
    return [(key, number) for key, number in (line.split() for line in text.splitlines())]


def calls(root: Path) -> list[str]:
    """The methods that were called, in order, with their keys."""
    try:
        return (root / "calls").read_text().splitlines()
    except FileNotFoundError:
        return []


def finish(root: Path, key: str) -> None:
    """Let a job end well."""
    (root / "ended" / key).touch()


def output_of(key: str) -> bytes:
    """What a job leaves: more than one chunk."""
    return key.encode() * 150_000


def _line(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, text.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
