"""What a kind of site gives to the conformance suite, and what the suite's tests share."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.port import BlobStore
from isthmus.domain.errors import Unavailable
from isthmus.domain.ids import make_id
from isthmus.domain.task import Demand, Executor
from isthmus.sites.port import (
    Job,
    JobFile,
    JobOutput,
    JobRef,
    LogStream,
    Observation,
    Sighting,
    Site,
    Staged,
    Submitted,
)


@dataclass(frozen=True, kw_only=True)
class Centre:
    """One real centre under test.

    `make_site` builds a new adapter (as after a restart) over a blob store. `scratch` is a directory that the job's
    account can write and this process can read, at the same path on both sides. `outage` breaks what the site needs
    (its daemon, its connection) while it is entered. `full` is a demand that takes the whole pool, so that a second job
    must queue; None for a pool without a queue. `commands` starts to record the adapter's scheduler commands in a list.
    `walltime_seconds` is the shortest walltime that the site enforces; None leaves that test out.
    """

    make_site: Callable[[BlobStore], Site]
    pool: str
    scratch: Path
    account: str = ""
    demand: Demand = field(default_factory=lambda: Demand(memory_bytes=64 * 1024**2, walltime_seconds=600))
    full: Demand | None = None
    outage: Callable[[], AbstractContextManager[None]] | None = None
    commands: Callable[[Site], list[str]] | None = None
    walltime_seconds: int | None = None
    memory_is_limited: bool = False
    deadline_seconds: float = 60.0


def remove_groups(scratch: Path) -> None:
    """Remove the control groups of the attempts below a directory, which tests do not clean."""
    for controller in ("memory", "cpu", "cpuacct", "."):
        for attempt in scratch.glob("**/attempts/*"):
            group = Path("/sys/fs/cgroup") / controller / "isthmus" / attempt.name
            with contextlib.suppress(OSError):  # most have none, and one that a process still is in stays
                group.rmdir()


def new_key() -> str:
    """A fresh attempt's key."""
    return make_id(time.time_ns() // 1_000_000, os.urandom(10))


def job_at(
    centre: Centre,
    script: str = "true",
    *,
    command: Sequence[str] = (),
    demand: Demand | None = None,
    env: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    files: Sequence[JobFile] = (),
    outputs: Sequence[JobOutput] = (),
    steps: Sequence[Executor] = (),
    key: str = "",
) -> Job:
    """A job for the centre: a shell script, or a command, or whole steps."""
    return Job(
        key=key or new_key(),
        fence=7,
        task_id=new_key(),
        name="conformance",
        pool=centre.pool,
        demand=demand or centre.demand,
        steps=tuple(steps) or (Executor(command=tuple(command) or ("/bin/sh", "-c", script)),),
        account=centre.account,
        env=env or {},
        secrets=secrets or {},
        files=tuple(files),
        outputs=tuple(outputs),
    )


def ref_of(job: Job, native_id: str = "") -> JobRef:
    """The reference to a job."""
    return JobRef(key=job.key, account=job.account, pool=job.pool, native_id=native_id, fence=job.fence)


async def start(site: Site, *jobs: Job) -> list[JobRef]:
    """Stage and submit; all must be taken."""
    staged = await site.stage(jobs)
    assert {key: type(outcome) for key, outcome in staged.items()} == {job.key: Staged for job in jobs}, staged
    submitted = await site.submit(jobs)
    refs = []
    for job in jobs:
        outcome = submitted[job.key]
        assert isinstance(outcome, Submitted), outcome
        refs.append(ref_of(job, outcome.native_id))
    return refs


async def wait_for(
    site: Site, centre: Centre, refs: Sequence[JobRef], wanted: Collection[Sighting] = (Sighting.ENDED,)
) -> dict[str, Observation]:
    """Observe until all jobs are seen as wanted."""
    until = time.monotonic() + centre.deadline_seconds
    while True:
        seen = dict(await site.observe(refs))
        assert seen.keys() == {ref.key for ref in refs}
        if all(observation.sighting in wanted for observation in seen.values()):
            return seen
        assert time.monotonic() < until, seen
        await asyncio.sleep(0.1)


async def said_by(site: Site, centre: Centre, ref: JobRef) -> bytes:
    """Wait until the job's command has written something; returns the first of it."""
    until = time.monotonic() + centre.deadline_seconds
    while not (said := await site.logs(ref, LogStream.STDOUT, 0, 1000)):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    return said


async def finish(site: Site, centre: Centre, job: Job) -> Observation:
    """Run one job to its end."""
    refs = await start(site, job)
    return (await wait_for(site, centre, refs))[job.key]


def sha256_of(content: bytes) -> str:
    """The hash of a content."""
    return hashlib.sha256(content).hexdigest()


class BreakingBlobs(DirectoryBlobStore):
    """A blob store whose first long read breaks off after `breaks_after` bytes; `offsets` are those it was read from."""

    def __init__(self, path: Path, breaks_after: int) -> None:
        super().__init__(path)
        self.left = breaks_after
        self.offsets: list[int] = []

    async def read(self, sha256: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content, until it breaks for the first time."""
        self.offsets.append(offset)
        async for chunk in super().read(sha256, offset):
            if 0 < self.left <= len(chunk):
                self.left = 0
                raise Unavailable("The stream broke.")
            self.left -= len(chunk) if self.left > 0 else 0
            yield chunk
