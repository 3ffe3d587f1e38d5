"""How good the forecasts were: each receipt's prediction beside what came of it, and from both what each model publishes.

A forecast is scored once, when its attempt has its usage record: of a run time by min/max of prediction and fact, of a wait
by whether it was within the larger of one minute and 20 %, of the end as of a run time. Published are the last 30 days, by pool and by source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.placement import Why
from isthmus.engine.leases import Lease, guard
from isthmus.store import tables
from isthmus.store.database import Database

WINDOW_SECONDS = 30 * 86400.0
PAGE = 500
OVERLAP_SECONDS = 60.0  # records of several processes come in an order of their own
CLOSE_SECONDS, CLOSE_SHARE = 60.0, 0.2
_RAN = frozenset(
    {EndReason.EXIT_ZERO, EndReason.EXIT_NONZERO}
)  # what was cut off says nothing of how long it would have run


class Scoring:
    """Scores what ended since the last call; whoever places does it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after: tuple[float, str] | None = None
        self._published = False

    async def refresh(self, now: float, lease: Lease) -> int:
        """Score what ended, `PAGE` attempts at a time, and publish the figures anew; answers how many."""
        if self._after is None:
            at = await self._database.read(_last)
            self._after = (at - OVERLAP_SECONDS, "")
        scored = 0
        while True:
            rows = await self._database.read(_ended, *self._after)
            if rows:
                await self._database.write(_store, lease, rows)
                self._after = (rows[-1].created_at, rows[-1].attempt)
                self._published = False
                scored += len(rows)
            if len(rows) < PAGE:
                break
        if not self._published:
            figures = await self._database.read(_figures, now)
            await self._database.write(_publish, now, lease, figures)
            self._published = True
        return scored


def outcomes_of(row: Any) -> list[dict[str, Any]]:
    """The scored forecasts of one ended attempt, from its receipt."""
    chosen: dict[str, Any] = next(
        (c for c in orjson.loads(row.body).get("candidates", ()) if c.get("why") == Why.CHOSEN.value), {}
    )
    found: list[dict[str, Any]] = []
    if row.submitted_at is not None and row.started_at is not None and chosen.get("wait"):
        wait = max(0.0, row.started_at - row.submitted_at)
        predicted = float(chosen["wait"]["seconds"])
        near = abs(predicted - wait) <= max(CLOSE_SECONDS, CLOSE_SHARE * wait)
        found.append(_outcome(row, "wait", chosen["wait"], wait, float(near)))
    if row.reason in _RAN and row.elapsed_seconds is not None and chosen.get("run"):
        run = max(1.0, float(row.elapsed_seconds))
        predicted = max(1.0, float(chosen["run"]["seconds"]))
        found.append(_outcome(row, "runtime", chosen["run"], run, min(run, predicted) / max(run, predicted)))
    if row.reason in _RAN and row.task_ended_at is not None and chosen.get("finish"):
        took = max(1.0, row.task_ended_at - row.decided_at)
        predicted = max(1.0, float(chosen["finish"]["seconds"]))
        found.append(_outcome(row, "finish", chosen["finish"], took, min(took, predicted) / max(took, predicted)))
    return found


def _outcome(row: Any, kind: str, estimate: Mapping[str, Any], actual: float, score: float) -> dict[str, Any]:
    p10, p90, p95 = (estimate.get(name) for name in ("p10", "p90", "p95"))
    return {
        "attempt": row.attempt,
        "kind": kind,
        "site": row.site,
        "pool": row.pool,
        "source": estimate["source"],
        "at": row.created_at,
        "predicted_seconds": float(estimate["seconds"]),
        "actual_seconds": actual,
        "score": score,
        # A wait and a run time are whole seconds; a bound is not.
        "within_80": None if p10 is None or p90 is None else int(p10 - 1 <= actual <= p90 + 1),
        "below_90": None if p90 is None else int(actual <= p90 + 1),
        "below_95": None if p95 is None else int(actual <= p95 + 1),
    }


def _last(connection: sa.Connection) -> float:
    return float(connection.scalar(sa.select(sa.func.max(tables.outcomes.c.at))) or 0.0)


def _ended(connection: sa.Connection, at: float, attempt: str) -> list[Any]:
    u, a, r, t = tables.usage_records, tables.attempts, tables.receipts, tables.tasks
    query = (
        sa.select(
            u.c.attempt,
            u.c.site,
            u.c.pool,
            u.c.created_at,
            u.c.elapsed_seconds,
            a.c.reason,
            a.c.submitted_at,
            a.c.started_at,
            r.c.decided_at,
            r.c.body,
            t.c.ended_at.label("task_ended_at"),
        )
        .select_from(
            u.join(a, a.c.key == u.c.attempt)
            .join(r, r.c.attempt == u.c.attempt)
            .outerjoin(t, sa.and_(t.c.id == u.c.task_id, t.c.attempt == u.c.attempt))
        )
        .where(r.c.task_id == u.c.task_id)
        .where(sa.or_(u.c.created_at > at, sa.and_(u.c.created_at == at, u.c.attempt > attempt)))
        .order_by(u.c.created_at, u.c.attempt)
        .limit(PAGE)
    )
    return list(connection.execute(query))


def _store(connection: sa.Connection, lease: Lease, rows: list[Any]) -> None:
    guard(connection, lease)
    o = tables.outcomes
    keys = [row.attempt for row in rows]
    there = set(connection.execute(sa.select(o.c.attempt).where(o.c.attempt.in_(keys))).scalars())
    new = [outcome for row in rows if row.attempt not in there for outcome in outcomes_of(row)]
    if new:
        connection.execute(o.insert(), new)


def _figures(connection: sa.Connection, now: float) -> list[dict[str, Any]]:
    """The figures of the window, one row for each kind of forecast, pool and source."""
    o = tables.outcomes.c
    query = (
        sa.select(
            o.kind,
            o.site,
            o.pool,
            o.source,
            sa.func.count().label("outcomes"),
            sa.func.avg(o.score).label("accuracy"),
            sa.func.avg(sa.func.abs(o.predicted_seconds - o.actual_seconds)).label("error_seconds"),
            *(
                sa.func.avg(sa.cast(column, sa.Double)).label(f"coverage_{column.name}")
                for column in (o.within_80, o.below_90, o.below_95)
            ),
            sa.func.min(o.at).label("since"),
        )
        .where(o.at >= now - WINDOW_SECONDS)
        .group_by(o.kind, o.site, o.pool, o.source)
    )
    return [
        {
            "kind": row.kind,
            "site": row.site,
            "pool": row.pool,
            "source": row.source,
            "outcomes": row.outcomes,
            "accuracy": row.accuracy,
            "error_seconds": row.error_seconds,
            "coverage_80": row.coverage_within_80,
            "coverage_90": row.coverage_below_90,
            "coverage_95": row.coverage_below_95,
            "since": row.since,
            "updated_at": now,
        }
        for row in connection.execute(query)
    ]


def _publish(connection: sa.Connection, now: float, lease: Lease, rows: list[dict[str, Any]]) -> None:
    """Put the figures in place of the old ones, and drop the outcomes that are older than the window."""
    guard(connection, lease)
    o, m = tables.outcomes, tables.models
    connection.execute(o.delete().where(o.c.at < now - WINDOW_SECONDS))
    connection.execute(m.delete())
    if rows:
        connection.execute(m.insert(), rows)
