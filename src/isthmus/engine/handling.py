"""What handling a task takes at each site, learned from the newest: from the decision to the site's queue, the longer the more
is to be brought there before it, and from the end of the run until its outputs are here and checked. The one is learned as soon as a task
is in the queue, the other as soon as it has ended. Not of tasks that read data sets: their transfers have estimates of their own.
"""

from __future__ import annotations

import math
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
    """One attempt on its way to its site's queue: when it was placed, when it was there, with how many bytes."""

    placed_at: float
    there_at: float
    size_bytes: float


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
        brought: dict[str, list[Brought]] = {}
        after: dict[str, list[float]] = {}
        for row in await self._database.read(_brought, now - PAST_SECONDS):
            there_at = max(row.submitted_at, row.created_at)
            brought.setdefault(row.site, []).append(Brought(row.created_at, there_at, float(row.input_bytes)))
        for row in await self._database.read(_collected, now - PAST_SECONDS):
            took = float(row.task_ended_at - row.started_at - row.elapsed_seconds)
            after.setdefault(row.site, []).append(max(0.0, took))
        self._known = {
            site: learnt(brought[site][:MOST], took[:MOST])
            for site, took in after.items()
            if min(len(took), len(brought.get(site, ()))) >= ENOUGH
        }

    def into(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is known of each site."""
        if not self._known:
            return snapshot
        views = []
        for view in snapshot.pools:
            after, before = self._known.get(view.site, (None, None))
            views.append(replace(view, handling=after, handover=before))
        return replace(snapshot, pools=tuple(views))


def learnt(brought: Sequence[Brought], after: Sequence[float]) -> tuple[Estimate, Handover]:
    """What collecting takes at a site, with what bringing may be off in it; and what bringing takes. `after`: seconds from a run's end to
    the task's, those that ended last first."""
    brought = sorted(brought, key=lambda one: (one.placed_at, one.there_at))
    before = _before(brought)
    handover = _fitted(brought, before)
    off = [one.there_at - one.placed_at - handover.of(*of) for one, of in zip(brought, before, strict=True)]
    (low, middle, high), (early, usual, late) = _quantiles(off), _quantiles(after[::-1])
    seconds = max(0.0, usual + middle)
    p10 = max(0.0, seconds - math.hypot(usual - early, middle - low))
    return Estimate(
        seconds=seconds, source="learned", p10=p10, p90=seconds + math.hypot(late - usual, high - middle)
    ), handover


def _quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10 %, 50 % and 90 % of values of which the last count most."""
    known = [Seen(value, weight=weight) for value, weight in zip(values, _weights(len(values)), strict=True)]
    return quantile(known, 0.1), quantile(known, 0.5), quantile(known, 0.9)


def _weights(count: int) -> list[float]:
    """What each of so many counts, the last most."""
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


def _brought(connection: sa.Connection, since: float) -> list[Any]:
    """Those that came to their sites' queues, the newest first."""
    a, t = tables.attempts.c, tables.tasks.c
    query = (
        sa.select(a.site, a.created_at, a.submitted_at, t.input_bytes)
        .select_from(tables.attempts.join(tables.tasks, t.id == a.task_id))
        .where(a.created_at > since, a.submitted_at.is_not(None), ~_reads_data())
        .order_by(a.key.desc())
        .limit(NEWEST)
    )
    return list(connection.execute(query))


def _collected(connection: sa.Connection, since: float) -> list[Any]:
    """Those that ended well, the last first."""
    a, u, t = tables.attempts.c, tables.usage_records.c, tables.tasks.c
    query = (
        sa.select(a.site, a.started_at, u.elapsed_seconds, t.ended_at.label("task_ended_at"))
        .select_from(
            tables.usage_records.join(tables.attempts, u.attempt == a.key).join(tables.tasks, t.id == a.task_id)
        )
        .where(u.created_at > since, a.state == AttemptState.SUCCEEDED.value, ~_reads_data())
        .where(a.started_at.is_not(None), t.ended_at.is_not(None), t.attempt == a.key)
        .order_by(u.created_at.desc(), u.attempt.desc())
        .limit(NEWEST)
    )
    return list(connection.execute(query))


def _reads_data() -> sa.ColumnElement[bool]:
    return sa.select(tables.task_data.c.task_id).where(tables.task_data.c.task_id == tables.attempts.c.task_id).exists()
