"""What handling a task takes at each site, learned from those that ended: from the decision to the site's queue, the longer the more
is to be brought there before it, and from the end of the run until its outputs are here and checked. Not of tasks that read data
sets: their transfers have estimates of their own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.placement import Estimate, Handover, Snapshot
from isthmus.placement.spreading import Seen, quantile
from isthmus.store import tables
from isthmus.store.database import Database

NEWEST = 600  # attempts that are looked at, of all sites
ENOUGH, MOST = 10, 100  # of one site
PAST_SECONDS = 3 * 86400.0
AGAIN_SECONDS = 4.0  # at most this often while tasks come
_PER_JOB, _BYTES_PER_SECOND = 0.05, 50e6  # what a site is taken to do before it showed anything else
_TRUST = 5.0  # attempts that this counts like
_FADES = 0.95  # what each newer attempt leaves of an older one's weight: about 20 count


@dataclass(frozen=True, slots=True)
class Brought:
    """One attempt on its way to its site's queue: when it was placed, when it was there, with how many bytes; and what collecting
    it took."""

    placed_at: float
    there_at: float
    size_bytes: float
    after: float


class Handling:
    """`refresh` reads what ended; `into` tells a snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[Estimate, Handover]] = {}
        self._read_at = 0.0

    async def refresh(self, now: float, gap: float = 0.0) -> None:
        """Learn anew from the newest attempts, unless that was done less than `gap` seconds ago."""
        if 0 <= now - self._read_at < gap:
            return
        self._read_at = now
        sites: dict[str, list[Brought]] = {}
        for row in await self._database.read(_newest, now - PAST_SECONDS):
            of = sites.setdefault(row.site, [])
            if len(of) < MOST:
                of.append(_brought(row))
        self._known = {site: learnt(of) for site, of in sites.items() if len(of) >= ENOUGH}

    def into(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is known of each site."""
        if not self._known:
            return snapshot
        views = []
        for view in snapshot.pools:
            after, before = self._known.get(view.site, (None, None))
            views.append(replace(view, handling=after, handover=before))
        return replace(snapshot, pools=tuple(views))


def _brought(row: Any) -> Brought:
    return Brought(
        placed_at=row.created_at,
        there_at=max(row.submitted_at, row.created_at),
        size_bytes=float(row.input_bytes),
        after=max(0.0, float(row.task_ended_at - row.started_at - row.elapsed_seconds)),
    )


def learnt(brought: Sequence[Brought]) -> tuple[Estimate, Handover]:
    """What collecting takes at a site, with what bringing may be off in its quantiles; and what bringing takes."""
    brought = sorted(brought, key=lambda one: (one.placed_at, one.there_at))
    before = _before(brought)
    handover = _fitted(brought, before)
    taken = [
        Seen(max(0.0, one.after + one.there_at - one.placed_at - handover.of(jobs, size)), weight=weight)
        for one, (jobs, size), weight in zip(brought, before, _weights(len(brought)), strict=True)
    ]
    p10, p50, p90 = (quantile(taken, share) for share in (0.1, 0.5, 0.9))
    return Estimate(seconds=p50, source="learned", p10=p10, p90=p90), handover


def _weights(count: int) -> list[float]:
    """What each of so many attempts counts, those that were placed last most."""
    return [_FADES ** (count - 1 - number) for number in range(count)]


def _before(brought: Sequence[Brought]) -> list[tuple[int, float]]:
    """For each attempt how many, itself included, were to be brought when it was placed, and how many bytes."""
    placed = [one.placed_at for one in brought]
    there = sorted(brought, key=lambda one: one.there_at)
    arrivals = [one.there_at for one in there]
    came = [0.0, *accumulate(one.size_bytes for one in brought)]
    left = [0.0, *accumulate(one.size_bytes for one in there)]
    found = []
    for number, one in enumerate(brought):
        gone = min(bisect_right(arrivals, one.placed_at), bisect_left(placed, one.placed_at))
        found.append((number + 1 - gone, max(one.size_bytes, came[number + 1] - left[gone])))
    return found


def _fitted(brought: Sequence[Brought], before: Sequence[tuple[int, float]]) -> Handover:
    """Least squares over what was to be brought, newer attempts first of all, held to what is plausible."""
    weights = _weights(len(brought))
    seconds = [one.there_at - one.placed_at for one in brought]
    rows = [(1.0, float(jobs), size / _BYTES_PER_SECOND) for jobs, size in before]
    prior = ((0.1 * _TRUST, 0.5), (_TRUST, _PER_JOB), (_TRUST, 1.0))
    matrix = [
        [sum(w * row[i] * row[j] for w, row in zip(weights, rows, strict=True)) for j in range(3)] for i in range(3)
    ]
    sums = [sum(w * row[i] * y for w, row, y in zip(weights, rows, seconds, strict=True)) for i in range(3)]
    for i, (trust, value) in enumerate(prior):
        matrix[i][i] += trust
        sums[i] += trust * value
    _, per_job, per_byte = (max(0.0, value) for value in _solved(matrix, sums))
    rest = sum(
        w * (y - per_job * row[1] - per_byte * row[2]) for w, row, y in zip(weights, rows, seconds, strict=True)
    ) / sum(weights)
    return Handover(seconds=max(0.0, rest), per_job=per_job, per_byte=per_byte / _BYTES_PER_SECOND)


def _solved(matrix: list[list[float]], sums: list[float]) -> list[float]:
    """A few linear equations whose matrix is positive definite, by elimination."""
    size = len(sums)
    rows = [[*row, value] for row, value in zip(matrix, sums, strict=True)]
    for i in range(size):
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [there - factor * here for there, here in zip(rows[j], rows[i], strict=True)]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (rows[i][size] - sum(rows[i][j] * found[j] for j in range(i + 1, size))) / rows[i][i]
    return found


def _newest(connection: sa.Connection, since: float) -> list[Any]:
    a, u, t = tables.attempts.c, tables.usage_records.c, tables.tasks.c
    reading = sa.select(tables.task_data.c.task_id).where(tables.task_data.c.task_id == a.task_id)
    query = (
        sa.select(
            a.site,
            a.created_at,
            a.submitted_at,
            a.started_at,
            u.elapsed_seconds,
            t.input_bytes,
            t.ended_at.label("task_ended_at"),
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
