"""What tasks take, learned from those that ended: the engine's memory of run times, filled from the usage records.

Nothing of it is kept in the store: after a start it is learned again from the newest records, so that it can never
disagree with them. Without the library that learns, tasks run as long as they declare.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import sqlalchemy as sa

from isthmus.domain.errors import Refused
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.placement import Estimate, RunTimesByPool
from isthmus.domain.task import TaskSpec
from isthmus.engine.speeds import Speeds, read_capabilities
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load

if TYPE_CHECKING:
    from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel

log = logging.getLogger(__name__)
FIRST, PAGE = 3000, 1000  # records learned from at first, and later at one time; a millisecond each
ENOUGH = 20  # records before anything is learned: a service that runs nothing yet does not load the library
EVERY_SECONDS = 30.0
_HANDFUL = 20
_ALIKE = 20  # of records that look the same to the model, at one time: more of them teach nothing
_MAX_KNOWN = 10_000  # estimates remembered between two trainings
_RAN = [reason.value for reason in (EndReason.EXIT_ZERO, EndReason.EXIT_NONZERO, EndReason.WALLTIME)]
_DIGITS = re.compile(r"\d+")


def command_of(spec: TaskSpec) -> str:
    """What makes tasks alike: the programs and their words, with every number replaced, the image, and no more than that."""
    words = [" ".join((step.image, *step.command)) for step in spec.steps]
    return _DIGITS.sub("#", "\n".join(words))[:4000]


class Known(TypedDict):
    """What is known of a task's run time."""

    run: Estimate | None
    run_at: RunTimesByPool | None


class RunTimes:
    """Forecasts run times; `refresh` learns from what ended since the last time. `estimate` may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._model: RunTimeModel | None = None
        self._after: tuple[float, str] = (0.0, "")
        self._speeds = Speeds()
        self._known: dict[tuple[str, str, int, int, int], Known] = {}
        self._lock = threading.Lock()  # over the model while it takes in records
        self._absent = False

    async def refresh(self) -> int:
        """Read the newest usage records made since the last call, at most `PAGE`, and learn from them; answers how many."""
        if self._absent:
            return 0
        if self._speeds.measured(await self._database.read(read_capabilities)) and self._model is not None:
            await asyncio.to_thread(self._learn, [])
        limit = FIRST if self._model is None else PAGE
        rows = list(reversed(await self._database.read(_newest, *self._after, limit)))
        if not rows or (self._model is None and len(rows) < ENOUGH):
            return 0
        try:
            await asyncio.to_thread(self._learn, rows)
        except (ImportError, OSError) as error:  # OSError: the library itself misses one of the system's
            log.warning("run times are not learned: %s", error)
            self._absent = True
            return 0
        except Exception:
            self._after = (rows[-1].created_at, rows[-1].attempt)  # what broke the learning is not read a second time
            raise
        self._after = (rows[-1].created_at, rows[-1].attempt)
        return len(rows)

    def estimate(self, user: str, spec: TaskSpec, now: float) -> Estimate | None:
        """What the task is likely to take, in seconds; None when nothing like it has ended yet."""
        return self.known(user, spec, now)["run"]

    def known(self, user: str, spec: TaskSpec, now: float) -> Known:
        """What the task is likely to take anywhere, and at the pools where that differs."""
        demand = spec.demand
        devices = demand.accelerators.count * demand.nodes
        wish = (user, command_of(spec), demand.cpus_per_node * demand.nodes, devices, demand.walltime_seconds)
        with self._lock:
            if self._model is None:
                return {"run": None, "run_at": None}
            if wish not in self._known:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                run = _estimate(self._model, *wish[:3], demand.walltime_seconds, now)
                run_at = None if run is None else self._speeds.convert(wish[1:4], run)
                self._known[wish] = {"run": run, "run_at": run_at}
            return self._known[wish]

    def _learn(self, rows: Sequence[Any]) -> None:
        """The model takes records in by handfuls; a copy is trained, and takes its place."""
        from isthmus.forecasting.runtime import RunTimeModel

        model = self._model or RunTimeModel()
        ended = _instructive(rows)
        for start in range(0, len(ended), _HANDFUL):
            with self._lock:
                for row, command in ended[start : start + _HANDFUL]:
                    model.observe(_record(row, command, model))
                    what = (command, max(1, row.cpus), row.accelerators)
                    self._speeds.observe(what, (row.site, row.pool), row.elapsed_seconds)
        if model.due:
            model = RunTimeModel.from_state(model.state())
            model.train()
        self._speeds.fit()
        with self._lock:
            self._model = model
            self._known = {}


def _estimate(
    model: RunTimeModel, user: str, command: str, processors: int, walltime_seconds: int, now: float
) -> Estimate | None:
    from isthmus.forecasting.forecast import Source
    from isthmus.forecasting.runtime import RunRequest

    request = RunRequest(
        user=user, processors=processors, requested_seconds=walltime_seconds, submitted_at=now, command=command
    )
    forecast = model.predict(request)
    if forecast.source is Source.DECLARED:
        return None
    return forecast.estimate()


def _instructive(rows: Sequence[Any]) -> list[tuple[Any, str]]:
    """Rows of attempts that ran, with their commands, in the order given: of those that are alike only the newest."""
    commands: dict[str, str | None] = {}  # by specification: elements of an array share theirs
    taken: Counter[tuple[str, str, int, int]] = Counter()
    found: list[tuple[Any, str]] = []
    for row in reversed(rows):
        if row.reason not in _RAN or row.ended_at is None:
            continue
        if row.spec not in commands:
            try:
                commands[row.spec] = command_of(load(TaskSpec, row.spec))
            except (ValueError, Refused):  # a row that cannot be read teaches nothing, and must not stop the others
                commands[row.spec] = None
        command = commands[row.spec]
        if command is None:
            continue
        alike = (row.user, command, row.cpus, row.walltime_seconds)
        taken[alike] += 1
        if taken[alike] <= _ALIKE:
            found.append((row, command))
    return found[::-1]


def _record(row: Any, command: str, model: RunTimeModel) -> RunRecord:
    from isthmus.forecasting.runtime import RunRecord, RunRequest

    request: RunRequest = RunRequest(
        user=row.user,
        processors=max(1, row.cpus),
        requested_seconds=row.walltime_seconds,
        submitted_at=row.submitted_at,
        command=command,
    )
    forecast = model.predict(request)
    return RunRecord(request=request, run_seconds=row.elapsed_seconds, ended_at=row.ended_at, forecast=forecast)


def _columns() -> sa.Select[Any]:
    u, a, t = tables.usage_records, tables.attempts, tables.tasks
    return (
        sa.select(
            u.c.attempt,
            u.c.user,
            u.c.created_at,
            (u.c.elapsed_seconds - a.c.held_seconds).label("elapsed_seconds"),  # what it ran, not what it was held
            u.c.ended_at,
            u.c.site,
            u.c.pool,
            a.c.cpus,
            a.c.accelerators,
            a.c.walltime_seconds,
            a.c.reason,
            sa.func.coalesce(a.c.submitted_at, a.c.created_at).label("submitted_at"),
            t.c.spec,
        )
        .join_from(u, a, a.c.key == u.c.attempt)
        .join(t, t.c.id == a.c.task_id)
    )


def _newest(connection: sa.Connection, at: float, attempt: str, limit: int) -> list[Any]:
    u = tables.usage_records.c
    later = sa.or_(u.created_at > at, sa.and_(u.created_at == at, u.attempt > attempt))
    query = _columns().where(later).order_by(u.created_at.desc(), u.attempt.desc()).limit(limit)
    return list(connection.execute(query))
