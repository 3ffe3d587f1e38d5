"""A small honest batch system: queue, accounting, attempt directories with claims and results. Survives every crash.

It keeps two kinds of record: what it tells (queue, accounting, traces) and what really happened (`runs`), which only
the oracle reads. Its wrapper follows the contract: whoever claims first runs, any other copy exits without running.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.port import (
    Collected,
    CollectedFile,
    CollectOutcome,
    Job,
    JobRef,
    Observation,
    Rejected,
    Sighting,
    Staged,
    StepResult,
    SubmitOutcome,
    Submitted,
    Uncertain,
)

GIB = 1024**3


@dataclass(slots=True)
class Run:
    """The user's command, as it really ran. `completed` only when it came to its own end."""

    key: str
    task_id: str
    fence: int
    native_id: str
    cpus: int
    pool: str
    started_at: float  # true time
    ended_at: float | None = None
    completed: bool = False
    exit_code: int | None = None


@dataclass(slots=True, eq=False)
class Native:
    """One job of the batch system."""

    native_id: str
    job: Job
    submitted_at: float
    state: str = "PENDING"
    started_at: float | None = None
    ended_at: float | None = None
    visible_at: float = float("inf")  # when accounting shows its end
    forgotten_at: float = float("inf")  # when the queue drops it
    exit_code: int | None = None
    run: Run | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def live(self) -> bool:
        return self.state in ("PENDING", "RUNNING")


@dataclass(slots=True)
class Directory:
    """An attempt's directory at the site."""

    job: Job
    claim: Native | None = None
    claim_fence: int | None = None
    result: tuple[EndReason, int | None, float, float] | None = None
    cancelled: bool = False
    preempted: bool = False
    let_go: bool = False
    out: bytes | None = None


@dataclass(slots=True)
class Centre:
    """One site. `true_now` is the world's time; the site's own clock is `drift` seconds off."""

    name: str
    rng: random.Random
    true_now: Callable[[], float]
    pools: tuple[Pool, ...]
    singleton: bool = True
    drift: float = 0.0
    accounting_delay: float = 1.0
    queue_memory: float = 300.0
    id_limit: int = 1_000_000
    drained: bool = False
    accounting_down: bool = False
    reject_rate: float = 0.0  # accepted, then ended by the site before it started
    blind_rate: float = 0.0  # share of answers that are left out or empty-handed
    blobs: dict[str, bytes] = field(default_factory=dict)
    directories: dict[str, Directory] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)  # keys that were cleaned away
    natives: list[Native] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    overfull: list[str] = field(default_factory=list)
    claimed: dict[str, float] = field(default_factory=dict)  # true time at which a key was claimed
    _next_id: int = 0

    # --- the scheduler ------------------------------------------------------------------------------------------------

    def _used(self, pool: str) -> int:
        return sum(n.job.demand.cpus for n in self.natives if n.state == "RUNNING" and n.job.pool == pool)

    def schedule(self) -> None:
        """Start what may start; pools that are `immediate` start everything at once, room or not."""
        if self.drained:
            return
        for pool in self.pools:
            for native in [n for n in self.natives if n.state == "PENDING" and n.job.pool == pool.name]:
                if self.singleton and any(n.state == "RUNNING" and n.job.key == native.job.key for n in self.natives):
                    continue
                if not pool.immediate and self._used(pool.name) + native.job.demand.cpus > pool.cpus:
                    continue
                self._start(native, pool)

    def _start(self, native: Native, pool: Pool) -> None:
        now = self.true_now()
        native.state, native.started_at = "RUNNING", now
        place = self.directories.get(native.job.key)
        if place is None or place.claim is not None:  # the wrapper's claim fails: it exits 0 and ran nothing
            self._end(native, "COMPLETED", 0)
            return
        place.claim, place.claim_fence = native, place.job.fence
        self.claimed.setdefault(native.job.key, now)
        if place.cancelled:
            place.result = (EndReason.CANCELLED_BY_USER, None, now + self.drift, now + self.drift)
            self._end(native, "COMPLETED", 0)
            return
        if place.preempted:
            place.result = (EndReason.PREEMPTED, None, now + self.drift, now + self.drift)
            self._end(native, "COMPLETED", 0)
            return
        if native.job.hold_seconds and not place.let_go:
            seconds = native.job.hold_seconds
            native.timer = asyncio.get_running_loop().call_later(seconds, self._hold_is_over, native, place)
            return
        self._run(native, place, pool)

    def _hold_is_over(self, native: Native, place: Directory) -> None:
        """The others did not come: the wrapper ends without having started the command."""
        assert native.started_at is not None
        place.result = (EndReason.PEERS_LATE, None, native.started_at + self.drift, self.true_now() + self.drift)
        self._end(native, "COMPLETED", 0)

    def let_go(self, refs: Sequence[JobRef]) -> None:
        for ref in refs:
            place = self.directories.get(ref.key)
            if place is None or place.let_go:
                continue
            native = place.claim
            if native is None or native.state != "RUNNING" or native.run is not None:
                place.let_go = (
                    native is None
                )  # one whose hold was over before, or that was ended, is not started any more
                continue
            place.let_go = True
            if native.timer is not None:
                native.timer.cancel()
            self._run(native, place, next(pool for pool in self.pools if pool.name == native.job.pool))

    def _run(self, native: Native, place: Directory, pool: Pool) -> None:
        """The user's command begins."""
        now = self.true_now()
        job = native.job
        native.run = Run(job.key, job.task_id, place.job.fence, native.native_id, job.demand.cpus, job.pool, now)
        self.runs.append(native.run)
        used = sum(r.cpus for r in self.runs if r.ended_at is None and r.pool == pool.name)
        if used > pool.cpus:
            self.overfull.append(f"{self.name}/{pool.name}: {used} of {pool.cpus} processors at {now - 1.8e9:.1f}")
        seconds = float(job.env.get("SECONDS", "5"))
        native.timer = asyncio.get_running_loop().call_later(seconds, self._complete, native)

    def _complete(self, native: Native) -> None:
        """The user's command ends by itself, and the wrapper writes its result."""
        now = self.true_now()
        assert native.run is not None
        assert native.started_at is not None
        code = int(native.job.env.get("EXIT", "0"))
        native.run.completed, native.run.exit_code = True, code
        place = self.directories.get(native.job.key)
        if place is not None:
            reason = EndReason.EXIT_ZERO if code == 0 else EndReason.EXIT_NONZERO
            place.result = (reason, code, native.started_at + self.drift, now + self.drift)
            place.out = f"{native.job.task_id}\n".encode()
        self._end(native, "COMPLETED" if code == 0 else "FAILED", code)

    def _end(self, native: Native, state: str, code: int | None) -> None:
        now = self.true_now()
        if native.timer is not None:
            native.timer.cancel()
            native.timer = None
        if native.run is not None and native.run.ended_at is None:
            native.run.ended_at = now
        native.state, native.ended_at, native.exit_code = state, now, code
        native.visible_at = now + self.accounting_delay
        native.forgotten_at = now + self.queue_memory
        asyncio.get_running_loop().call_soon(self.schedule)

    # --- what the nemesis does ------------------------------------------------------------------------------------------

    def lose_node(self) -> None:
        """Everything that runs dies with its node; no wrapper writes anything."""
        for native in [n for n in self.natives if n.state == "RUNNING"]:
            if self.rng.random() < 0.7:
                self._end(native, "NODE_FAIL", None)

    def requeue(self) -> None:
        """The site starts running jobs again under the same number."""
        for native in [n for n in self.natives if n.state == "RUNNING"]:
            if self.rng.random() < 0.7:
                if native.timer is not None:
                    native.timer.cancel()
                if native.run is not None:
                    native.run.ended_at = self.true_now()
                native.state, native.timer = "PENDING", None
        self.schedule()

    def kill_some(self) -> None:
        """An administrator cancels jobs, waiting or running."""
        for native in [n for n in self.natives if n.live]:
            if self.rng.random() < 0.3:
                self._end(native, "CANCELLED", None)

    def restart(self) -> None:
        """The scheduler dies and comes back; it forgets jobs younger than its last save, unless they run."""
        now = self.true_now()
        self.natives = [n for n in self.natives if not (n.state == "PENDING" and now - n.submitted_at < 5.0)]

    # --- the port's methods, as the site carries them out -----------------------------------------------------------------

    def describe(self) -> SiteDescription:
        waiting = [n for n in self.natives if n.state == "PENDING"]
        return SiteDescription(
            kind="world",
            version="1",
            pools=tuple(
                Pool(
                    name=p.name,
                    nodes=p.nodes,
                    cpus_per_node=p.cpus_per_node,
                    memory_bytes_per_node=p.memory_bytes_per_node,
                    immediate=p.immediate,
                    up=True,
                    free_cpus=None if p.immediate else max(0, p.cpus - self._used(p.name)),
                    queued_jobs=sum(n.job.pool == p.name for n in waiting),
                )
                for p in self.pools
            ),
        )

    def stage(self, jobs: Sequence[Job]) -> dict[str, Staged]:
        for job in jobs:
            if job.key not in self.gone:
                self.directories.setdefault(job.key, Directory(job))
        return {job.key: Staged() for job in jobs}

    def submit(self, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
        """Accepts copies of a key as a real batch system does; answers may be lost or unclear by seed."""
        answers: dict[str, SubmitOutcome] = {}
        for job in jobs:
            if job.key not in self.directories:
                answers[job.key] = Rejected(reason=EndReason.REJECTED_BY_SITE, message="not staged")
                continue
            self._next_id = self._next_id % self.id_limit + 1
            while any(n.live and n.native_id == str(self._next_id) for n in self.natives):
                self._next_id = self._next_id % self.id_limit + 1
            native = Native(str(self._next_id), job, self.true_now())
            self.natives.append(native)
            if self.rng.random() < self.reject_rate:
                self._end(native, "CANCELLED", None)
            answers[job.key] = Submitted(native_id=native.native_id)
            if self.rng.random() < self.blind_rate:
                answers[job.key] = Uncertain(message="Socket timed out on send/recv operation")
        asyncio.get_running_loop().call_soon(self.schedule)
        return answers

    def _copies(self, key: str) -> list[Native]:
        return [n for n in self.natives if n.job.key == key]

    def find(self, refs: Sequence[JobRef]) -> dict[str, tuple[str, ...]]:
        return {ref.key: tuple(n.native_id for n in self._copies(ref.key)) for ref in refs}

    def observe(self, refs: Sequence[JobRef]) -> dict[str, Observation]:
        seen: dict[str, Observation] = {}
        for ref in refs:
            roll = self.rng.random()
            if roll < self.blind_rate / 2:
                continue
            seen[ref.key] = (
                Observation(sighting=Sighting.UNSEEN, message="garbage") if roll < self.blind_rate else self._look(ref)
            )
        return seen

    def _look(self, ref: JobRef) -> Observation:
        now = self.true_now()
        copies = self._copies(ref.key)
        place = self.directories.get(ref.key)
        ids = tuple(sorted((n.native_id for n in copies if n.live), key=int))
        fence = place.claim_fence if place else None
        if place is not None and place.claim is not None and place.claim.state == "RUNNING":
            assert place.claim.started_at is not None
            started = place.claim.started_at + self.drift
            return Observation(sighting=Sighting.RUNNING, native_ids=ids, started_at=started, claim_fence=fence)
        known = tuple(sorted((n.native_id for n in copies), key=int))
        if place is not None and place.result is not None:
            reason, code, started, ended = place.result
            return Observation(
                sighting=Sighting.ENDED,
                native_ids=known,
                reason=reason,
                exit_code=code,
                started_at=started,
                ended_at=ended,
                claim_fence=fence,
                steps=_steps(place.claim, code, ended, self.drift),
            )
        if ids:
            return Observation(sighting=Sighting.QUEUED, native_ids=ids, claim_fence=fence)
        ended_copies = [n for n in copies if now < n.forgotten_at or (now >= n.visible_at and not self.accounting_down)]
        told = [n for n in ended_copies if place is None or place.claim is None or n is place.claim]
        if told:
            native = told[-1]
            reason = {"NODE_FAIL": EndReason.NODE_FAILED, "CANCELLED": EndReason.CANCELLED_AT_SITE}.get(
                native.state, EndReason.NODE_FAILED
            )
            return Observation(sighting=Sighting.ENDED, native_ids=known, reason=reason, claim_fence=fence)
        if self.accounting_down or (place is not None and place.claim is not None):
            return Observation(sighting=Sighting.UNSEEN, message="accounting does not answer")
        if place is None and (ref.native_id or ref.submitted_at):
            return Observation(sighting=Sighting.UNSEEN, message="its directory is gone")
        return Observation(sighting=Sighting.ABSENT)

    def _make_room(self, ref: JobRef) -> None:
        """A running job saves its state within its grace; one that waits just ends."""
        place = self.directories.get(ref.key)
        if place is not None and not place.preempted:
            place.preempted = True
            if place.claim is not None and place.claim.state == "RUNNING":
                seconds = self.rng.uniform(0.1, ref.grace_seconds)
                asyncio.get_running_loop().call_later(seconds, self._save, place, place.claim)
        for native in self._copies(ref.key):
            if native.state == "PENDING":
                self._end(native, "CANCELLED", None)

    def _save(self, place: Directory, native: Native) -> None:
        if native.state == "RUNNING":
            assert native.started_at is not None
            place.result = (EndReason.PREEMPTED, 1, native.started_at + self.drift, self.true_now() + self.drift)
            place.out = b"saved"
            self._end(native, "FAILED", 1)

    def cancel(self, refs: Sequence[JobRef]) -> None:
        for ref in refs:
            if ref.grace_seconds:
                self._make_room(ref)
                continue
            place = self.directories.get(ref.key)
            if place is not None:
                place.cancelled = True
            for native in self._copies(ref.key):
                if native.state == "RUNNING" and place is not None and place.claim is native:
                    now = self.true_now()
                    place.result = (EndReason.CANCELLED_BY_USER, None, now + self.drift, now + self.drift)
                if native.live:
                    self._end(native, "CANCELLED", None)

    def cancel_native(self, native_ids: Sequence[str]) -> None:
        for native in self.natives:
            if native.live and native.native_id in native_ids:
                self._end(native, "CANCELLED", None)

    def collect(self, jobs: Sequence[Job]) -> dict[str, CollectOutcome]:
        answers: dict[str, CollectOutcome] = {}
        for job in jobs:
            place = self.directories.get(job.key)
            if place is None:
                answers[job.key] = Uncertain(message="The directory is not there.")
                continue
            files = []
            missing = []
            for output in job.outputs:
                if place.out is None:
                    missing.append(output.path)
                    continue
                sha256 = hashlib.sha256(place.out).hexdigest()
                self.blobs[sha256] = place.out
                files.append(CollectedFile(path=output.path, sha256=sha256, size_bytes=len(place.out)))
            answers[job.key] = Collected(files=tuple(files), missing=tuple(missing))
        return answers

    def record_of(self, key: str) -> Native | None:
        """The one native job that counts for a key: the one that ran, else the first."""
        copies = [n for n in self._copies(key) if n.ended_at is not None and not n.live]
        ran = [n for n in copies if n.run is not None]
        return (ran or copies or [None])[0]

    def usage(self, refs: Sequence[JobRef]) -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        now = self.true_now()
        for ref in refs:
            native = self.record_of(ref.key)
            if native is None or self.accounting_down or now < native.visible_at:
                continue
            if any(n.live for n in self._copies(ref.key)):
                continue
            found[ref.key] = usage_of(native, self.drift)
        return found

    def clean(self, refs: Sequence[JobRef]) -> None:
        for ref in refs:
            self.gone.add(ref.key)
            self.directories.pop(ref.key, None)


def _steps(native: Native | None, code: int | None, ended: float, drift: float) -> tuple[StepResult, ...]:
    """Of a job that was held, when its command began."""
    if native is None or native.run is None or not native.job.hold_seconds:
        return ()
    return (StepResult(exit_code=code or 0, started_at=native.run.started_at + drift, ended_at=ended),)


def usage_of(native: Native, drift: float) -> Usage:
    """The accounting's figures of one native job."""
    run = native.run
    started = run.started_at if run else None
    ended = run.ended_at if run else native.ended_at
    elapsed = round((ended or 0.0) - started) if started is not None else 0
    return Usage(
        source="world",
        started_at=None if started is None else started + drift,
        ended_at=None if ended is None else ended + drift,
        elapsed_seconds=elapsed,
        cpus=native.job.demand.cpus,
        cpu_seconds=float(elapsed),
        allocated_cpu_seconds=elapsed * native.job.demand.cpus,
        max_rss_bytes=0,
        native_id=native.native_id,
        native_state=native.state,
    )
