"""The decision for one task, and the record of it: what placement takes in and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from isthmus.domain.dataset import WayTaken
from isthmus.domain.hours import Hours
from isthmus.domain.roads import Carriage, Piece, Roads
from isthmus.domain.site import Energy, Pool, SiteState
from isthmus.domain.task import Constraints, Demand, Objective
from isthmus.domain.waiting import WaitTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What live attempts already have or were promised in a pool, in processors, bytes and devices of all nodes."""

    jobs: int = 0
    cpus: int = 0
    memory_bytes: int = 0
    accelerators: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its source (`measured`, `learned`, `converted` from other pools, `declared`), and where they are known its quantiles and the mean error
    of such figures so far (0 = perfect). `seconds` is the value that is most often near."""

    seconds: float
    source: str
    p10: float | None = None
    p90: float | None = None
    error: float | None = None
    p50: float | None = None
    p95: float | None = None

    @property
    def late(self) -> float:
        """What it is at worst, nine times out of ten."""
        return self.seconds if self.p90 is None else max(self.seconds, self.p90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """How long bringing a task to a site's queue takes: by itself, and for each task and byte that is to be brought before it."""

    seconds: float
    per_job: float
    per_byte: float

    def of(self, jobs: int, size_bytes: float) -> float:
        """Seconds for the last of so many jobs."""
        return self.seconds + self.per_job * jobs + self.per_byte * size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How far ends at a site came from their prediction, in widths of the prediction's own spread (see `placement.spreading`): the
    figures below which a tenth, half and nine tenths of them stay."""

    low: float
    middle: float
    high: float
    source: str  # `learned`, or `declared` where too few have ended to tell


@dataclass(frozen=True, slots=True, eq=False)
class RunTimesByPool:
    """Run times at pools, by site and pool, where they differ from those anywhere. Tasks that are alike share one."""

    by_pool: Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Room of all nodes that a job holds, or wants, for so many seconds as are expected of it."""

    cpus: int
    memory_bytes: int = 0
    accelerators: int = 0
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeLine:
    """What is at a pool of a home site: `running` holds room now, whoever's it is; `waiting` are jobs of the site's own users, in their
    order, that are to start no later than they would without guests (see `placement.homerow`)."""

    running: tuple[Claim, ...] = ()
    waiting: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool in a snapshot: what its site said at the last look, and what this system promised since."""

    site: str
    pool: Pool
    state: SiteState = SiteState.ACTIVE
    reachable: bool = True
    region: str = ""
    trust: str = ""
    features: frozenset[str] = frozenset()
    promised: Promise = field(default_factory=Promise)
    promised_unseen: Promise = field(default_factory=Promise)  # of those, what the site's figures do not show yet
    accounts: frozenset[str] = frozenset({"*"})  # users with a local account here; "*" = everybody
    bandwidth_bytes_per_second: float = 50e6  # of moving inputs to this site; `bandwidth_source` says whence
    bandwidth_source: str = "declared"
    max_jobs: int = 10_000  # this system's own jobs at the pool, queued and running
    price_per_accelerator_hour: Decimal = Decimal(0)
    preemptible_share: Decimal = Decimal(1)  # the part of the price that preemptible tasks pay
    cpu_hours: Hours | None = None  # where the price of a processor differs by the hour, and of an accelerator
    accelerator_hours: Hours | None = None
    energy: Energy = field(default_factory=Energy)
    waits: WaitTable | None = None  # None: nothing was learned yet of waiting there
    handling: Estimate | None = None  # learned: collecting what a task left at the site
    handover: Handover | None = None  # learned: bringing it there
    to_bring: tuple[int, int] = (0, 0)  # tasks that were promised to the site and are not in its queue yet, their bytes
    spread: Spread | None = None  # of predicted ends at the site
    spread_declared: Spread | None = None  # of those whose run time nobody knew
    keeps_data: bool = False  # outputs may stay at the site
    apart: frozenset[tuple[str, str]] = frozenset()  # (user, group) of live tasks at the site that want to be apart
    home: HomeLine | None = None  # None: the site is nobody's home, or its own users do not come first


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a project stands to its share when a round begins: `part` of all that it may have (0 to 1) beside the `of` active
    projects, and how many times that it has used (1 = just its share)."""

    project: str
    part: float
    of_share: float
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOutput:
    """A dataset that a task makes and that stays at the site where it runs; `regions` that it may not leave (none = it may lie anywhere)."""

    name: str
    regions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """A task's place among tasks that start together: part `part` of `parts`, counted from 0. A part that is there first is held at
    its site for `hold_seconds` at most. `lacking` says what the group waits for before it can be placed; empty = it is whole."""

    id: str
    part: int
    parts: int
    hold_seconds: float
    lacking: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTask:
    """A task that wants a place, in the order in which it is to be served."""

    id: str
    user: str
    home: str = ""  # the site of its project's people; empty: it is a guest everywhere
    demand: Demand
    objective: Objective
    constraints: Constraints
    input_bytes: int = 0  # of uploads
    data: tuple[Piece, ...] = ()  # data sets that it reads
    keeps: tuple[KeptOutput, ...] = ()  # data sets that it makes and leaves where it runs
    input_sites: frozenset[str] = frozenset()  # sites that hold a path it needs; it can only run there
    needs_container: bool = False
    options: frozenset[str] = frozenset()  # names of scheduler options that it brings
    avoid_sites: tuple[str, ...] = ()  # where it failed before
    run: Estimate | None = None  # what similar tasks took; None = nobody knows
    run_at: RunTimesByPool | None = None
    preemptible: bool = False  # it fills what is idle, and makes room when others need it
    standing: Standing | None = None  # of its project; None where only one project has work
    gang: Gang | None = None  # it starts together with others

    @property
    def limit_seconds(self) -> float:
        """The longest that it may hold its processors."""
        return self.demand.walltime_seconds + (0.0 if self.gang is None else self.gang.hold_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScarcePrice:
    """What others would lose by one unit of a pool's resource (`cpus`, `memory_bytes`, `accelerators`) held for one bucket, or
    by one of the `bytes` that a link carries in it.

    `by_bucket` begins at the time of the round that found it, in buckets of `bucket_seconds`; the unit of a price is the
    least slowdown of a task (see `placement.pricing`).
    """

    site: str
    pool: str
    resource: str
    bucket_seconds: float
    by_bucket: tuple[float, ...]
    link: str = ""  # instead of site and pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a round of placement may know. `now` is in seconds since 1970; `prices` are those of the last round."""

    now: float
    pools: tuple[PoolView, ...]
    prices: tuple[ScarcePrice, ...] = ()
    roads: Roads = field(default_factory=Roads)
    gap: float | None = None  # how far above the bound contested rounds were at the last audit, relative
    homebound: tuple[WaitingTask, ...] = ()  # tasks that wait here and have a home line at home, in their order


class Why(StrEnum):
    """Why a pool was refused, or lost to another, by name."""

    SITE_DENIED = "site_denied"
    REGION_DENIED = "region_denied"
    POOL_DENIED = "pool_denied"
    TRUST_TOO_LOW = "trust_too_low"
    SITE_DRAINING = "site_draining"
    SITE_UNREACHABLE = "site_unreachable"
    POOL_DOWN = "pool_down"
    NO_ACCOUNT = "no_account"
    DATA_ELSEWHERE = "data_elsewhere"
    DATA_MAY_NOT_LEAVE = "data_may_not_leave"
    SITE_KEEPS_NO_DATA = "site_keeps_no_data"
    NO_REPLICA = "no_replica"
    NO_PATH = "no_path"
    PATH_FULL = "path_full"
    TOO_FEW_NODES = "too_few_nodes"
    TOO_FEW_CPUS = "too_few_cpus"
    TOO_LITTLE_MEMORY = "too_little_memory"
    TOO_LITTLE_DISK = "too_little_disk"
    TOO_FEW_ACCELERATORS = "too_few_accelerators"
    WRONG_ACCELERATOR = "wrong_accelerator"
    NO_LICENCE = "no_licence"
    WALLTIME_TOO_LONG = "walltime_too_long"
    NO_CONTAINERS = "no_containers"
    OPTION_REFUSED = "option_refused"
    KEPT_APART = "kept_apart"
    HOME_FIRST = "home_first"
    PARTS_MISSING = "parts_missing"
    NO_PAIR_OF_SITES = "no_pair_of_sites"
    STARTS_TOO_FAR_APART = "starts_too_far_apart"
    FAILED_HERE = "failed_here"
    MISSES_DEADLINE = "misses_deadline"
    OVER_BUDGET = "over_budget"
    FULL_NOW = "full_now"
    LATER_FINISH = "later_finish"
    DEARER = "dearer"
    MORE_CARBON = "more_carbon"
    WORSE_BY_WEIGHTS = "worse_by_weights"
    NEEDED_MORE = "needed_more"
    CHOSEN = "chosen"


PASSING = frozenset(
    {
        Why.SITE_DRAINING,
        Why.SITE_UNREACHABLE,
        Why.POOL_DOWN,
        Why.NO_REPLICA,
        Why.PATH_FULL,
        Why.KEPT_APART,
        Why.PARTS_MISSING,
        Why.STARTS_TOO_FAR_APART,
        Why.FULL_NOW,
        Why.HOME_FIRST,
        Why.FAILED_HERE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One pool as it looked for one task. Without `wait` it was refused before anything was estimated."""

    site: str
    pool: str
    why: Why
    wanted: str = ""  # the figure the task asks for
    offered: str = ""  # the figure the pool has
    wait: Estimate | None = None
    transfer: Estimate | None = None
    run: Estimate | None = None
    handling: Estimate | None = None  # handing over and collecting, learned at the site
    finish: Estimate | None = None  # the whole, with quantiles that hold as often as they say
    price: Decimal | None = None
    energy_kwh: Decimal | None = None
    carbon_grams: Decimal | None = None
    transfers: tuple[Carriage, ...] = ()  # what moves there first, over which links and when

    @property
    def finish_seconds(self) -> float | None:
        """Seconds from now to the end, when all was estimated."""
        if self.wait is None or self.transfer is None or self.run is None:
            return None
        handling = 0.0 if self.handling is None else self.handling.seconds
        return self.wait.seconds + self.transfer.seconds + self.run.seconds + handling

    @property
    def late_seconds(self) -> float | None:
        """Seconds from now to the end if the run is as long as one in ten."""
        if self.wait is None or self.transfer is None or self.run is None:
            return None
        handling = 0.0 if self.handling is None else self.handling.late
        return self.wait.seconds + self.transfer.late + self.run.late + handling


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A scarce resource that counted in a decision, of a pool or a link: `worth` is what others would lose by what the task
    would hold of it, where 1 is the task's own best plan."""

    site: str
    pool: str
    resource: str
    worth: float
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to do a task, for somebody who chooses: seconds from now to its end (10 %, 50 % and 90 % quantiles, of independent
    parts; a part without a known spread counts with its figure), where each figure comes from, what it costs, what moves first."""

    site: str
    pool: str
    why: Why
    finish_p10_seconds: float
    finish_p50_seconds: float
    finish_p90_seconds: float
    sources: dict[str, str]
    price: Decimal | None = None
    energy_kwh: Decimal | None = None
    carbon_grams: Decimal | None = None
    transfers: tuple[Carriage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A transfer that brought a dataset to an attempt's site, as it went: `through` is direct, relay or service, `links` the path that it was
    promised, `ways` those that it took in fact (`relay`, `multipath`: of some of them), times seconds since 1970."""

    transfer: str
    name: str
    source: str
    target: str
    through: str
    links: tuple[str, ...]
    size_bytes: int
    started_at: float
    ended_at: float
    relay: str = ""
    multipath: bool = False
    ways: tuple[WayTaken, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlan:
    """Where one part of a group goes: it can start `start_seconds` from now, and is held for `held_seconds` until all can."""

    part: int
    task_id: str
    site: str
    pool: str
    start_seconds: float
    held_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The decision for a group of tasks that start together: `chosen` with a plan for each part, or why there is none, with what
    was wanted and what there was. `pairs`: how many pairs of pools could have had it; `method`: how one was found (`cp-sat`: with the
    other groups of the round; `every pair`: the best of them, one group after another). `price` is that of all parts."""

    gang: str
    part: int
    parts: int
    hold_seconds: float
    why: Why
    wanted: str = ""
    offered: str = ""
    plans: tuple[PartPlan, ...] = ()
    pairs: int = 0
    method: str = ""
    price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The record of one decision: every candidate and why it was refused, lost or won; `remedy` for a waiting task
    is the smallest change that would let it go; `binding` are the scarce resources of the pools that it could have had;
    `plans` the best few, the first is what would be done: only in the answer to a dry run. `round_gap` of a contested round:
    how far above the bound of all possible answers such a round was at the last audit, relative."""

    task_id: str
    decided_at: float
    candidates: tuple[Candidate, ...]
    chosen_site: str = ""
    chosen_pool: str = ""
    remedy: str = ""
    binding: tuple[Binding, ...] = ()
    plans: tuple[Plan, ...] = ()
    round_gap: float | None = None
    standing: Standing | None = None
    together: Together | None = None
    after: str = ""  # why its last attempt was taken back: it moved here, or made room for others before
    actual_wait_seconds: float | None = None
    actual_transfer_seconds: float | None = (
        None  # of the transfers themselves, where datasets moved; else until it was submitted
    )
    actual_transfers: tuple[Moved, ...] = ()
    actual_held_seconds: float | None = None  # at its site, until all parts of its group could start
    actual_run_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one task goes."""

    task_id: str
    site: str
    pool: str
    predicted_seconds: float
    run_seconds: float
    price: Decimal
    transfers: tuple[Carriage, ...] = ()
