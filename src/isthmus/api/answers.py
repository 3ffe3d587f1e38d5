"""The answers of the REST face as types: what docs/rest-api.md says, exactly, for the OpenAPI document and its readers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from isthmus.domain.capability import PoolCapability
from isthmus.domain.dataset import TransferState
from isthmus.domain.lifecycle import AttemptState, TaskState
from isthmus.domain.network import NetNode, Source
from isthmus.domain.placement import Receipt
from isthmus.domain.site import Pool, SiteState
from isthmus.domain.task import TaskSpec
from isthmus.network.control.desired import Match
from isthmus.trust.access import Role, Scope

Item = TypeVar("Item")
Id = Annotated[str, Field(pattern="^[0-7][0-9a-hjkmnp-tv-z]{25}$")]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")]
HomeName = Annotated[str, Field(pattern="^([a-z0-9][a-z0-9._-]{0,62})?$")]  # of a site; empty: none
Money = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$")]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldProblem(_Answer):
    """One field that is wrong."""

    field: str
    cause: str
    remedy: str


class Problem(_Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    errors: list[FieldProblem] = []


class Page(_Answer, Generic[Item]):
    """A part of a list; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None


class TaskRow(_Answer):
    """A task in a list."""

    id: Id
    project: str
    user: str
    name: str
    state: TaskState
    priority: int
    array_id: str
    array_index: int | None
    gang: str
    part: int | None
    attempts: int
    max_attempts: int
    attempt: str
    site: str
    pool: str
    native_id: str
    queue_position: int | None
    exit_code: int | None
    reason: str
    message: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested: bool
    tags: dict[str, str]
    waiting_for: list[Id]


class Task(TaskRow):
    """One task, with what was asked."""

    spec: TaskSpec


class TaskArray(_Answer):
    """The tasks made of one array, or the parts of one group that starts together."""

    array_id: Id
    ids: list[Id]


class Submitted(_Answer):
    """Ids for each specification of a batch."""

    ids: list[list[Id]]


class Plans(_Answer):
    """What would be decided for each specification of a batch."""

    plans: list[Receipt]


class Changed(_Answer):
    """How many tasks an intent met."""

    changed: int


class Attempt(_Answer):
    """One try of a task."""

    key: Id
    number: int
    site: str
    pool: str
    account: str
    state: AttemptState
    native_id: str
    exit_code: int | None
    reason: str
    message: str
    created_at: datetime
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    predicted_seconds: float | None
    nodes: int
    cpus: int


class AttemptAtSite(Attempt):
    """One try of a task, as the site's operator sees it."""

    task_id: Id
    project: str
    user: str


class Output(_Answer):
    """A file that a task left."""

    path: str
    sha256: Hash
    size_bytes: int
    executable: bool
    url: str


class Usage(_Answer):
    """What one attempt used; the last four are of the attempt itself, and null where it is not there any more."""

    attempt: Id
    task_id: Id
    project: str
    user: str
    site: str
    pool: str
    account: str
    source: str
    native_id: str
    native_state: str
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_seconds: int
    nodes: int
    cpus: int
    accelerators: int
    cpu_seconds: float
    allocated_cpu_seconds: int
    max_rss_bytes: int
    read_bytes: int
    written_bytes: int
    charge: Money
    energy_kwh: Money | None
    carbon_grams: Money | None
    created_at: datetime
    submitted_at: datetime | None
    observed_start_at: datetime | None
    requested_seconds: int | None
    state: str | None
    moved_bytes: int  # of datasets that transfers brought for the task


class Event(_Answer):
    """Something that happened."""

    seq: int
    at: datetime
    kind: str
    project: str
    task_id: str
    attempt: str
    site: str
    body: dict[str, Any]


class AuditLine(_Answer):
    """What somebody changed."""

    seq: int
    at: datetime
    user: str
    action: str
    subject: str
    body: dict[str, Any]


class TaskCounts(_Answer):
    """Tasks by state, none where there is none; `more` names the states of which there are more than was counted."""

    states: dict[TaskState, int]
    more: list[TaskState]


class HoldingReason(_Answer):
    """A reason that holds waiting tasks: how many, at which pools, and what would help most of them."""

    why: str
    tasks: int
    pools: list[str]
    remedy: str


class Holding(_Answer):
    """What holds waiting tasks; `looked_at` of the `waiting` have a decision that was read."""

    waiting: int
    looked_at: int
    reasons: list[HoldingReason]


class Missing(_Answer):
    """Content that must be uploaded."""

    missing: list[Hash]


class Packed(_Answer):
    """The hashes of the contents of a pack, in its order."""

    sha256: list[Hash]


class Upload(_Answer):
    """How far an upload is."""

    offset: int
    complete: bool


class SiteAgent(_Answer):
    """The agent of a site as it last told of itself; `clock_offset_seconds` is its clock less the service's, and too small by the
    time that its word took to come. Null where no agent came yet."""

    version: str
    clock_offset_seconds: float | None
    last_seen_at: datetime | None


class DataAtSite(_Answer):
    """What a site's agent keeps of datasets: where it can be dialled (empty: nowhere), its quota (0: the disk's room), what warm copies
    take, what the disk has left, and whether there is a cold store."""

    address: str
    quota_bytes: int
    used_bytes: int
    free_bytes: int
    cold: bool
    announced_at: datetime | None


class Site(_Answer):
    """A site; config, accounts, operators and agent are null for those who do not operate it, agent where there is none, data where no
    datasets are kept."""

    name: Name
    kind: str
    mode: Literal["direct", "agent"]
    region: str
    trust: str
    state: SiteState
    reachable: bool
    error: str
    last_seen_at: datetime | None
    pools: list[Pool]
    features: list[str]
    version: str
    prices: dict[str, dict[str, str]]
    accounts: dict[str, str] | None
    config: dict[str, Any] | None
    operators: list[str] | None
    agent: SiteAgent | None
    data: DataAtSite | None


class ModelOfPool(_Answer):
    """How good the forecasts of one kind and source were at a pool, over the last 30 days. `accuracy` is the mean of min/max of
    prediction and fact for run times, the share within the larger of one minute and 20 % for waits; a `coverage` the share of
    facts from p10 to p90, below p90, below p95, null where no such bound was given."""

    kind: Literal["wait", "runtime", "finish"]
    site: Name
    pool: str
    source: Literal["measured", "learned", "converted", "declared"]
    outcomes: int
    accuracy: float
    error_seconds: float
    coverage_80: float | None
    coverage_90: float | None
    coverage_95: float | None
    since: datetime
    updated_at: datetime


class Carbon(_Answer):
    """The carbon intensity of a site's grid by the hour, and the forecast of the hours after the last; `error` is the mean relative
    error that such forecasts had on the series."""

    site: Name
    first_at: datetime
    grams_per_kwh: list[float]
    forecast: list[float]
    error: float | None
    updated_at: datetime


class HourAhead(_Answer):
    """What is expected in one hour: the 10 %, 50 % and 90 % quantiles, equal where it was declared; `source` is declared, measured (as
    it was lately) or learned."""

    p10: float
    p50: float
    p90: float
    source: str


class SeriesAhead(_Answer):
    """A figure over the hours, and by hours ahead (1, 6, 24, 48) how far such forecasts of it were off in the mean."""

    hours: list[HourAhead]
    errors: dict[str, float]


class PoolAhead(_Answer):
    """A pool in the hours ahead: the part of its processors that cannot be had (0 to 1), the price of a processor hour, grams of CO2
    equivalent for each kWh; null where nothing is known."""

    pool: str
    load: SeriesAhead | None
    price: SeriesAhead | None
    carbon: SeriesAhead | None


class SiteAhead(_Answer):
    """A site in the hours from `first_at` on."""

    site: Name
    first_at: datetime
    pools: list[PoolAhead]


class DrainPreview(_Answer):
    """What is at a site: attempts by state, by user, and the number of tasks."""

    site: Name
    attempts: dict[str, int]
    users: dict[str, int]
    tasks: int


class Load(_Answer):
    """The load that Isthmus puts on a site."""

    site: Name
    attempts: dict[str, int]
    cpus: int
    submitted_last_hour: int
    ended_last_hour: int
    last_seen_at: datetime | None
    error: str


class SiteHour(_Answer):
    """A part of a site's time: processors that Isthmus used in the mean, what started, ended, failed, and the waits of what
    started."""

    at: datetime
    cpus: float
    started: int
    ended: int
    failed: int
    wait_p50_seconds: float | None
    wait_p90_seconds: float | None


class SiteHistory(_Answer):
    """A site's work over a time in equal parts; not `complete` when there was more than is read for one answer."""

    site: Name
    since: datetime
    until: datetime
    complete: bool
    buckets: list[SiteHour]


class Benchmark(_Answer):
    """A task that measures a node of a pool: `due` until its document was taken in."""

    task_id: Id
    site: Name
    pool: str
    user: str
    state: Literal["due", "done", "failed"]
    node: str
    message: str
    created_at: datetime
    measured_at: datetime | None


class CapabilityOfPool(_Answer):
    """What the nodes of one kind in a pool come to."""

    site: Name
    pool: str
    stored_at: datetime
    capability: PoolCapability


class NetFigure(_Answer):
    """A figure with its unit in the name of its field; `error` is half of the interval in which the true value lies (95 %), as of now."""

    value: float
    error: float
    source: Source
    measured_at: datetime
    age_seconds: float
    stale: bool


class NetMeasured(_Answer):
    """Figures of one direction; null where nobody measured or said."""

    source: Name
    target: Name
    up: bool
    up_since: datetime | None
    delay_seconds: NetFigure | None
    two_way_delay_seconds: NetFigure | None
    jitter_seconds: NetFigure | None
    loss: NetFigure | None
    available_bits_per_second: NetFigure | None


class NetLinkNow(NetMeasured):
    """One direction of a link. `reserved_bits_per_second` is what is given away now, `sliced_bits_per_second` of it to slices."""

    link: Name
    capacity_bits_per_second: float | None
    price_per_gb: Money
    mtu_bytes: int
    programmable: bool
    reserved_bits_per_second: float
    sliced_bits_per_second: float


class NetBasemap(_Answer):
    """The operator's picture behind the map, by the degrees at its edges; GET /v1/network/basemap has it."""

    west: float
    south: float
    east: float
    north: float
    credit: str


class Network(_Answer):
    """The network as it is known: each link once a direction, and pairs of sites by whatever way packets take; `basemap` is null
    where the operator supplied none."""

    now: datetime
    nodes: list[NetNode]
    links: list[NetLinkNow]
    pairs: list[NetMeasured]
    basemap: NetBasemap | None


class NetDifference(_Answer):
    """What a declaration changes of one node or link: its fields with the value before and after."""

    what: Literal["node", "link"]
    name: Name
    change: Literal["added", "removed", "changed"]
    fields: dict[str, tuple[str, str]]


class NetDeclared(_Answer):
    """What differs from what was declared before; `stored` is false when it was only asked."""

    stored: bool
    differences: list[NetDifference]


class NetPath(_Answer):
    """A path between two nodes; null where a figure of a link is not known. `reserved_bits_per_second` is the most that is given away of one
    of its links while so many bytes move, `promisable_bits_per_second` what can still be promised."""

    nodes: list[Name]
    links: list[Name]
    delay_seconds: float | None
    loss: float
    capacity_bits_per_second: float | None
    free_bits_per_second: float | None
    reserved_bits_per_second: float
    promisable_bits_per_second: float | None
    price_per_gb: Money
    mtu_bytes: int
    up: bool
    taken_by_itself: bool
    programmable: bool
    seconds: float | None
    why: str


class NetPaths(_Answer):
    """The paths from one node to another, best first, for moving so many bytes."""

    source: Name
    target: Name
    size_bytes: int
    paths: list[NetPath]


class NetStep(_Answer):
    """A time in which one rate is held of a link."""

    begins_at: datetime
    ends_at: datetime
    bits_per_second: float


class NetCalendar(_Answer):
    """What is held of one direction of a link; `link` is empty for two sites between which no path is declared."""

    link: str
    source: str
    target: str
    capacity_bits_per_second: float | None
    steps: list[NetStep]


class NetHolder(_Answer):
    """A transfer that is not over, and the links that it takes; the first five are null for those who may not know."""

    id: Id | None
    project: str | None
    dataset: str | None
    task_id: Id | None
    created_by: str | None
    source: str
    target: str
    links: list[str]
    state: TransferState
    size_bytes: int
    done_bytes: int
    bytes_per_second: float
    begins_at: datetime | None
    ends_at: datetime | None


class NetReservations(_Answer):
    """What is held of each link until a time, and by which transfers; not `complete` when there are more than one answer has."""

    now: datetime
    until: datetime
    links: list[NetCalendar]
    transfers: list[NetHolder]
    complete: bool


class NetPolicy(_Answer):
    """Which way packets with these marks go from one site to another; `programmed_at` is null while its routers do not have it."""

    name: Name
    source: Name
    target: Name
    nodes: list[Name]
    match: Match
    owner: Literal["transfer", "task", "operator"]
    slice_dscp: int
    wanted: bool
    error: str
    programmed_at: datetime | None
    moved_at: datetime | None
    created_at: datetime


class NetSlice(_Answer):
    """A rate that some links have for a project's transfers, or for packets with a DSCP; `programmed_at` is null while some router does not
    have it."""

    name: Name
    project: str
    dscp: int
    bits_per_second: float
    links: list[Name]
    wanted: bool
    error: str
    programmed_at: datetime | None
    created_by: str
    created_at: datetime


class Enrolment(_Answer):
    """A one-time token for an agent."""

    token: str
    site: Name
    expires_at: datetime


class User(_Answer):
    """A user."""

    name: Name
    is_admin: bool
    disabled: bool
    created_at: datetime


class Project(_Answer):
    """A project, and what the caller is in it (empty: nothing, an administrator looks)."""

    name: Name
    role: str
    home: HomeName
    created_at: datetime


class ProjectStanding(_Answer):
    """A project's share beside those of the other active projects, and its use of it (see fair share in docs/placement.md).

    `part` of all processors is its own (0 to 1), and it has used `of_share` times that; both null while nobody used anything.
    """

    name: Name
    created_at: datetime
    home: HomeName
    share: float
    part: float | None
    of_share: float | None
    active_projects: int
    used_cpu_seconds: float
    promised_cpu_seconds: float
    half_life_seconds: float
    waiting: int


class Member(_Answer):
    """A user in a project."""

    user: Name
    role: Role


class Secret(_Answer):
    """The name of a secret; its value is never answered."""

    name: str
    created_by: str
    created_at: datetime


class Token(_Answer):
    """A token, without its secret."""

    id: Id
    user: str
    scopes: list[Scope]
    description: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewToken(Token):
    """A token with its secret, answered once."""

    token: str


class SignInWay(_Answer):
    """One way to sign in: `token`, or `oidc` with its name and where the browser goes."""

    kind: str
    name: str
    url: str


class SignInWays(_Answer):
    """How people sign in here."""

    ways: list[SignInWay]


class Me(_Answer):
    """The caller."""

    user: str
    is_admin: bool
    scopes: list[Scope]
    projects: dict[str, str]
    sites: list[str]


class TwinRun(_Answer):
    """A run of a scenario by the twin; `figures` and `homes` (a row of texts for each) once it is done."""

    id: Id
    name: str
    created_at: datetime
    state: Literal["running", "done", "failed"]
    message: str
    figures: dict[str, float]
    homes: list[dict[str, str]]


class Version(_Answer):
    """The version of the service."""

    version: str


class Health(_Answer):
    """That the service answers and its store does."""

    status: Literal["ok"]
