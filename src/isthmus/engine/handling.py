"""What handling a task takes at each site, learned from those that ended: from the decision to the site's queue, and from the end of
the run until its outputs are here and checked. Not of tasks that read data sets: their transfers have estimates of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.placement import Estimate, Snapshot
from isthmus.store import tables
from isthmus.store.database import Database

NEWEST = 600  # attempts that are looked at, of all sites
ENOUGH, MOST = 10, 100  # of one site
PAST_SECONDS = 3 * 86400.0


class Handling:
    """`refresh` reads what ended; `into` tells a snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, Estimate] = {}

    async def refresh(self, now: float) -> None:
        """Learn anew from the newest attempts."""
        seconds: dict[str, list[float]] = {}
        for row in await self._database.read(_newest, now - PAST_SECONDS):
            of = seconds.setdefault(row.site, [])
            if len(of) < MOST:
                of.append(_taken(row))
        self._known = {site: _estimate(sorted(of)) for site, of in seconds.items() if len(of) >= ENOUGH}

    def into(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is known of each site."""
        if not self._known:
            return snapshot
        return replace(
            snapshot, pools=tuple(replace(view, handling=self._known.get(view.site)) for view in snapshot.pools)
        )


def _taken(row: Any) -> float:
    before = max(0.0, float(row.submitted_at - row.created_at))
    after = max(0.0, float(row.task_ended_at - row.started_at - row.elapsed_seconds))
    return before + after


def _estimate(ordered: list[float]) -> Estimate:
    last = len(ordered) - 1
    p10, p50, p90 = (ordered[round(share * last)] for share in (0.1, 0.5, 0.9))
    return Estimate(seconds=p50, source="learned", p10=p10, p90=p90)


def _newest(connection: sa.Connection, since: float) -> list[Any]:
    a, u, t = tables.attempts.c, tables.usage_records.c, tables.tasks.c
    reading = sa.select(tables.task_data.c.task_id).where(tables.task_data.c.task_id == a.task_id)
    query = (
        sa.select(
            a.site, a.created_at, a.submitted_at, a.started_at, u.elapsed_seconds, t.ended_at.label("task_ended_at")
        )
        .select_from(
            tables.usage_records.join(tables.attempts, u.attempt == a.key).join(tables.tasks, t.id == a.task_id)
        )
        .where(u.created_at > since, a.state == AttemptState.SUCCEEDED.value, ~reading.exists())
        .where(a.submitted_at.is_not(None), a.started_at.is_not(None), t.ended_at.is_not(None), t.attempt == a.key)
        .order_by(u.created_at.desc(), u.attempt.desc())
        .limit(NEWEST)
    )
    return list(connection.execute(query))
