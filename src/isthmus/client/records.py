"""What the service answers, as typed records; fields that a newer service adds are ignored, missing ones have a default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from html import escape
from typing import Any, Generic, TypeVar, cast

from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import TASK_ENDED, TaskState
from isthmus.domain.placement import Receipt

T = TypeVar("T")


_READERS: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "Decimal": Decimal,
    "datetime | None": datetime.fromisoformat,
}


def read(kind: type[T], document: Any) -> T:
    """A record from an answer; a null stands for the field's default. Unavailable when the answer is no such record.

    Written out by hand: validation would cost every short command more time than the call itself.
    """
    try:
        values = {
            item.name: _READERS.get(str(item.type), _same)(document[item.name])
            for item in fields(cast("Any", kind))
            if document.get(item.name) is not None
        }
        return kind(**values)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise _unreadable(kind.__name__, error) from error


def _same(value: Any) -> Any:
    return value


def _unreadable(name: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"The answer is not a {name} ({type(error).__name__}).",
        remedy="Check that ISTHMUS_URL is Isthmus itself, and that this client is not older than the service.",
        code="not_isthmus",
    )


@cache
def _receipts() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Receipt)


def read_receipt(document: Any) -> Receipt:
    """A receipt from an answer, whether its time is a number or ISO 8601."""
    try:
        decided = document.get("decided_at", 0.0)
        seconds = datetime.fromisoformat(decided).timestamp() if isinstance(decided, str) else decided
        given = {name: value for name, value in document.items() if value is not None}
        receipt: Receipt = _receipts().validate_python({**given, "decided_at": seconds})
    except (ValueError, AttributeError) as error:
        raise _unreadable("receipt", error) from error
    return receipt


def html_table(title: str, rows: list[tuple[str, str]]) -> str:
    """A small table for notebooks; every text is escaped."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table><caption><b>{escape(title)}</b></caption>{body}</table>"


class _Shown:
    """A repr without empty fields, and a table in notebooks."""

    __slots__ = ()

    def _rows(self) -> list[tuple[str, str]]:
        rows = []
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.repr and value not in (None, "", {}, [], (), False):
                rows.append((item.name, value.isoformat() if isinstance(value, datetime) else str(value)))
        return rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._rows())})"

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._rows())


@dataclass(frozen=True, kw_only=True, repr=False)
class Task(_Shown):
    """A task as the service sees it now."""

    id: str
    name: str = ""
    state: str = ""
    project: str = ""
    user: str = ""
    site: str = ""
    pool: str = ""
    priority: int = 0
    array_id: str = ""
    array_index: int | None = None
    gang: str = ""
    part: int | None = None
    attempts: int = 0
    max_attempts: int = 0
    attempt: str = ""
    native_id: str = ""
    queue_position: int | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_requested: bool = False
    waiting_for: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in TASK_ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well: its outputs are there and were checked."""
        return self.state == TaskState.SUCCEEDED


@dataclass(frozen=True, kw_only=True, repr=False)
class Attempt(_Shown):
    """One try of a task at one pool."""

    key: str
    number: int = 0
    site: str = ""
    pool: str = ""
    account: str = ""
    state: str = ""
    native_id: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    created_at: datetime | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    predicted_seconds: float | None = None
    nodes: int = 0
    cpus: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Output(_Shown):
    """A file that a task left."""

    path: str
    sha256: str
    size_bytes: int = 0
    executable: bool = False
    url: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Site(_Shown):
    """A compute centre as the service sees it; `config` and `accounts` only for its operators; `data` is empty where no datasets are
    kept."""

    name: str
    kind: str = ""
    mode: str = ""
    region: str = ""
    trust: str = ""
    state: str = ""
    reachable: bool = False
    error: str = ""
    last_seen_at: datetime | None = None
    version: str = ""
    features: list[str] = field(default_factory=list)
    pools: list[dict[str, Any]] = field(default_factory=list, repr=False)
    prices: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    agent: dict[str, Any] = field(default_factory=dict, repr=False)
    data: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, repr=False)
class Benchmark(_Shown):
    """A task that measures a node: `due` until its document was taken in, then `done` or `failed`."""

    task_id: str
    site: str = ""
    pool: str = ""
    user: str = ""
    state: str = ""
    node: str = ""
    message: str = ""
    created_at: datetime | None = None
    measured_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class UsageRecord(_Shown):
    """What one attempt used, by the site's own accounting, and what it costs."""

    attempt: str
    task_id: str = ""
    project: str = ""
    user: str = ""
    site: str = ""
    pool: str = ""
    account: str = ""
    source: str = ""
    native_id: str = ""
    native_state: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    elapsed_seconds: int = 0
    nodes: int = 0
    cpus: int = 0
    accelerators: int = 0
    cpu_seconds: float = 0.0
    allocated_cpu_seconds: int = 0
    max_rss_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    charge: Decimal = Decimal(0)
    energy_kwh: Decimal | None = None
    carbon_grams: Decimal | None = None
    created_at: datetime | None = None
    submitted_at: datetime | None = None
    observed_start_at: datetime | None = None
    requested_seconds: int | None = None
    state: str | None = None
    moved_bytes: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class HoldingReason(_Shown):
    """A reason that holds waiting tasks: how many, at which pools, and what would help most of them."""

    why: str
    tasks: int = 0
    pools: list[str] = field(default_factory=list)
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Event(_Shown):
    """Something that happened; `seq` grows and names the place to go on from."""

    seq: str = ""
    kind: str = ""
    at: datetime | None = None
    project: str = ""
    task_id: str = ""
    attempt: str = ""
    site: str = ""
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a stream; `complete` when no more will ever come after it."""

    data: bytes
    next_offset: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor of the next ones."""

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Submitted(_Shown):
    """What a submission made: one id, or for an array its id and those of all its tasks."""

    ids: list[str]
    array_id: str = ""
    task: Task | None = None
