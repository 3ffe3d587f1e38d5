"""The contract between the engine and a kind of site.

One class per kind stands behind `Site` and passes the conformance suite in `tests/conformance` against the real daemon.
Rules of the contract:

1. Everything is in bulk, keyed by the attempt's key (26 characters), and idempotent: calling again with the same key
   changes nothing that already happened.
2. The key travels natively (job name and comment), so that `find` sees a job whose submission's answer was lost.
3. `submit` answers for each job Submitted, Rejected (the site said no: it will never run), Full (the site did not take
   it, and would later: a limit on the jobs in its queue) or Uncertain (a time-out, a broken pipe, garbage: it may or may
   not run). Only a clear no is Rejected, only a clear "not now" is Full.
4. `observe` never guesses: ABSENT means that the queue AND the accounting AND the claim at the site were all asked in
   this call, all answered, and none knows the job. Anything less is UNSEEN. A whole site that does not answer raises
   Unavailable.
5. `observe` costs at most two scheduler commands per call, however many jobs.
6. A job's wrapper claims the key atomically (see `wrapper`) before it starts the user's command; a losing copy exits
   without running it. The fence in the claim is the fence of the result.
7. Nothing secret is in an argument list, a job's record at the site, a log or an exception. Secret values reach the
   site only inside files of mode 0600 that the wrapper removes before the user's command starts.
8. An adapter bounds its own load: at most `max_commands` commands at once, each with a time-out.
9. An adapter decides nothing: no retries of jobs, no choice of pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from isthmus.data.port import BlobStore
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import SiteDescription
from isthmus.domain.task import Demand, Executor
from isthmus.domain.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file to be present before the job starts; exactly one of blob, url, path_at_site, kept."""

    path: str
    blob: str = ""
    size_bytes: int = -1
    url: str = ""  # fetched at the site; may be a presigned URL, so treat it as secret
    headers: dict[str, str] = field(default_factory=dict)
    path_at_site: str = ""
    kept: str = ""  # BLAKE3 of content of a dataset that the site's agent keeps; an adapter never sees it
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutput:
    """A file the job leaves: `path` may hold wildcards; `directory` takes everything below it. `stays`: it is kept at the site, where
    it may lie in `regions` only (empty: anywhere)."""

    path: str
    directory: bool = False
    required: bool = True
    stays: bool = False
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All a site needs to run one attempt. `account` is the local account (empty: the adapter's own)."""

    key: str
    fence: int
    task_id: str
    name: str
    pool: str
    demand: Demand
    steps: tuple[Executor, ...]
    account: str = ""
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    files: tuple[JobFile, ...] = ()
    outputs: tuple[JobOutput, ...] = ()
    volumes: tuple[str, ...] = ()
    signal: str = (
        ""  # a preemptible job is warned by it, and has so many seconds to save its state; empty = it is not one
    )
    grace_seconds: int = 0
    hold_seconds: int = (
        0  # it starts together with others: the wrapper waits to be let go, so long at most; 0 = at once
    )
    native: dict[str, str] = field(default_factory=dict)  # operator-checked extras, e.g. {"qos": "long"}

    @property
    def limit_seconds(self) -> int:
        """The longest that it may be there: its walltime, and what it may be held before."""
        return self.demand.walltime_seconds + self.hold_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """Enough to ask about a job: its key, where it was sent, and what the site called it (empty when not known)."""

    key: str
    account: str = ""
    pool: str = ""
    native_id: str = ""
    submitted_at: float = 0.0
    fence: int = 0
    grace_seconds: int = 0  # for `cancel`: the job makes room, and may first save its state


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Every file of the job is at the site and was checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The site has the job; `native_id` is its own name for it."""

    native_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The site said no and will never run it."""

    reason: EndReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """The site did not take the job because the account, or the site, has as many jobs there as it may have."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertain:
    """Nobody knows whether it was done."""

    message: str


StageOutcome = Staged | Rejected | Uncertain
SubmitOutcome = Submitted | Rejected | Full | Uncertain


class Sighting(StrEnum):
    """What a site says about a job."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    ABSENT = "absent"  # queue, accounting and claim all answered: no such job
    UNSEEN = "unseen"  # not seen, but not everything was asked or answered


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step that ran: its own exit code (also where `ignore_error` let the next one start), when, and which bytes of
    the job's streams are its own. Times are seconds since 1970 by the site's clock."""

    exit_code: int
    started_at: float
    ended_at: float
    stdout_from: int = 0
    stdout_to: int = 0
    stderr_from: int = 0
    stderr_to: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at one job. For ENDED: `reason` and, when the command exited, `exit_code`, and the steps that ran;
    `claim_fence` is the fence that the wrapper claimed with, None when no claim was seen. `native_ids` are all jobs at
    the site with this key, lowest first. Times are seconds since 1970 by the site's clock."""

    sighting: Sighting
    native_ids: tuple[str, ...] = ()
    reason: EndReason | None = None
    exit_code: int | None = None
    message: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    claim_fence: int | None = None
    nodes: tuple[str, ...] = ()
    queue_position: int | None = None
    steps: tuple[StepResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedFile:
    """An output that now is in the blob store under its hash; or, with `kept` (BLAKE3), among what the site keeps."""

    path: str
    sha256: str
    size_bytes: int
    executable: bool = False
    kept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """All outputs of one job: the files, the required outputs that matched nothing, and both streams, which are kept as
    blobs so that logs outlive the job's directory (only the last `MAX_LOG_BYTES` of a longer one)."""

    files: tuple[CollectedFile, ...] = ()
    missing: tuple[str, ...] = ()
    stdout: CollectedFile | None = None
    stderr: CollectedFile | None = None


CollectOutcome = Collected | Rejected | Uncertain
MAX_LOG_BYTES = 64 * 1024**2


class LogStream(StrEnum):
    """Which of a job's streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Site(Protocol):
    """One compute centre, through its own scheduler. All methods may raise Unavailable: then nothing is known."""

    async def describe(self) -> SiteDescription:
        """Pools with their load now, features, version."""
        ...

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Make each job's directory at the site, with wrapper, environment and input files, checked by hash."""
        ...

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Hand staged jobs to the scheduler. Called once per job unless `find` said twice that it is not there."""
        ...

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """All native ids, lowest first, known to queue or accounting under each key (empty: authoritatively none)."""
        ...

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """One look at every job given; an answer for each key."""
        ...

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """Ask that the jobs end (all native jobs of each key); whether they did is seen by `observe`.

        A job whose reference has `grace_seconds` makes room: one that has not started ends; one that runs gets its own
        signal and so much time, and then ends as PREEMPTED.
        """
        ...

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """Tell the wrappers of these jobs, which have `hold_seconds` and run, to start the user's command; safe to repeat.

        Whichever is first decides: this, or the end of the hold, after which the job ends as PEERS_LATE and never starts it.
        """
        ...

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """End single native jobs: the surplus copies of a key."""
        ...

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a stream from `offset`; empty when there is no more yet."""
        ...

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """Hash the outputs of ended jobs at the site and put what is missing into the blob store, resuming an earlier
        try; many small jobs cost few commands. Rejected when an output can never be taken (too large, leaves the
        directory), Uncertain when it should be tried again."""
        ...

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """Final usage for those jobs whose accounting is complete; others are left out (ask again later)."""
        ...

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Remove the jobs' directories at the site; safe to repeat."""
        ...

    async def close(self) -> None:
        """Let go of connections; jobs are not touched."""
        ...


class SiteFactory(Protocol):
    """What an entry point of the group `isthmus.sites` names: a class called like this.

    `config` is the operator's, already JSON; `Invalid` names the field that is wrong. `CONFIG_HELP` on the class maps
    each key of it to one sentence.
    """

    def __call__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> Site: ...
