"""The adapter of the null site. What it accepted it keeps in a journal file, so that it survives a restart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.port import (
    Collected,
    Job,
    JobRef,
    LogStream,
    Observation,
    Sighting,
    Staged,
    Submitted,
)


class NullSite:
    """Accepts every job and says that it ended well after `seconds`."""

    CONFIG_HELP: ClassVar[dict[str, str]] = {
        "journal": "File that keeps what was accepted; without it a restart forgets.",
        "seconds": "How long every job takes (0).",
        "cpus": "Processors of its one pool (1000000).",
    }

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        del blobs
        for key in config:
            if key not in self.CONFIG_HELP:
                raise Invalid(f"config.{key}", "is not a setting.", remedy=f"There are {', '.join(self.CONFIG_HELP)}.")
        self._name = name
        self._seconds = float(config.get("seconds", 0))
        self._cpus = int(config.get("cpus", 1_000_000))
        self._path = Path(config["journal"]) if "journal" in config else None
        self._accepted: dict[str, tuple[float, int]] = {}  # key -> (when, fence)
        self._held: dict[str, float] = {}  # until when; a restart forgets it, and the job begins
        self._cancelled: dict[str, float] = {}
        if self._path is not None and self._path.exists():
            for line in self._path.read_text().splitlines():
                key, _, rest = line.partition(" ")
                when, _, fence = rest.partition(" ")
                self._accepted.setdefault(key, (float(when), int(fence)))

    async def describe(self) -> SiteDescription:
        """One pool, with room for everything."""
        pool = Pool(
            name="null",
            nodes=1,
            cpus_per_node=self._cpus,
            memory_bytes_per_node=1 << 60,
            disk_bytes_per_node=1 << 60,
            immediate=True,
        )
        return SiteDescription(kind="null", version="1", pools=(pool,), notes=("runs nothing",))

    async def stage(self, jobs: Sequence[Job]) -> dict[str, Staged]:
        """Nothing needs to be there."""
        return {job.key: Staged() for job in jobs}

    async def submit(self, jobs: Sequence[Job]) -> dict[str, Submitted]:
        """Remember the jobs, in the journal first."""
        now = time.time()
        fresh = {job.key: (now, job.fence) for job in jobs if job.key not in self._accepted}
        if self._path is not None and fresh:
            with self._path.open("a") as journal:
                journal.writelines(f"{key} {when} {fence}\n" for key, (when, fence) in fresh.items())
        self._accepted.update(fresh)
        self._held |= {job.key: now + job.hold_seconds for job in jobs if job.hold_seconds and job.key in fresh}
        return {job.key: Submitted(native_id=job.key) for job in jobs}

    async def find(self, refs: Sequence[JobRef]) -> dict[str, tuple[str, ...]]:
        """The key itself, for jobs that were accepted."""
        return {ref.key: (ref.key,) if ref.key in self._accepted else () for ref in refs}

    async def observe(self, refs: Sequence[JobRef]) -> dict[str, Observation]:
        """RUNNING until the time is over, then ENDED with exit code 0."""
        now = time.time()
        return {ref.key: self._look(ref.key, now) for ref in refs}

    def _look(self, key: str, now: float) -> Observation:
        if key not in self._accepted:
            return Observation(sighting=Sighting.ABSENT)
        when, fence = self._accepted[key]
        held = self._held.get(key)
        end = min(when + self._seconds if held is None else held, self._cancelled.get(key, float("inf")))
        cancelled = key in self._cancelled and self._cancelled[key] <= end
        reason = EndReason.EXIT_ZERO if held is None else EndReason.PEERS_LATE
        if now < end:
            return Observation(sighting=Sighting.RUNNING, native_ids=(key,), started_at=when, claim_fence=fence)
        return Observation(
            sighting=Sighting.ENDED,
            native_ids=(key,),
            reason=EndReason.CANCELLED_AT_SITE if cancelled else reason,
            exit_code=0 if reason is EndReason.EXIT_ZERO and not cancelled else None,
            started_at=when,
            ended_at=end,
            claim_fence=fence,
        )

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """End the jobs now."""
        now = time.time()
        for ref in refs:
            if ref.key in self._accepted:
                self._cancelled.setdefault(ref.key, now)

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """What was held begins now."""
        now = time.time()
        for ref in refs:
            if now < self._held.get(ref.key, 0.0):
                del self._held[ref.key]
                self._accepted[ref.key] = (now, self._accepted[ref.key][1])

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """There are never surplus copies."""

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """Nothing ran, nothing was said."""
        return b""

    async def collect(self, jobs: Sequence[Job]) -> dict[str, Collected]:
        """No outputs."""
        return {job.key: Collected() for job in jobs}

    async def usage(self, refs: Sequence[JobRef]) -> dict[str, Usage]:
        """The set time on one processor."""
        found: dict[str, Usage] = {}
        for ref in refs:
            if ref.key in self._accepted:
                when, _ = self._accepted[ref.key]
                found[ref.key] = Usage(
                    source="null",
                    started_at=when,
                    ended_at=when + self._seconds,
                    elapsed_seconds=int(self._seconds),
                    cpus=1,
                    cpu_seconds=0.0,
                    allocated_cpu_seconds=int(self._seconds),
                    max_rss_bytes=0,
                    native_id=ref.key,
                    native_state="COMPLETED",
                )
        return found

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Forget the jobs; only the journal still knows that they were accepted."""
        for ref in refs:
            self._accepted.pop(ref.key, None)
            self._cancelled.pop(ref.key, None)

    async def close(self) -> None:
        """Nothing to let go of."""
