"""What handling a task takes at each site, learned from the newest: from the decision to the site's queue, the longer the more
is to be brought there before it, and from the end of the run until its outputs are here and checked. The one is learned as soon as a task
is in the queue, the other as soon as it has ended. Not from tasks that read data sets: their transfers have estimates of their own; but
they are brought before others like any. A site of which too little is known takes the figures of all.
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


_ON_THE_WAY = (AttemptState.PLACED.value, AttemptState.STAGING.value, AttemptState.SUBMITTING.value)


@dataclass(frozen=True, slots=True)
class Brought:
    """One attempt on its way to its site's queue: when it was placed, when it was there, with how many bytes."""

    placed_at: float
    there_at: float  # infinite while it is on its way
    size_bytes: float
    teaches: bool = True  # what it took says what others will take


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
        after: dict[str, list[float]] = {"": []}
        for row in await self._database.read(_brought, now - PAST_SECONDS):
            there_at = math.inf if row.submitted_at is None else max(row.submitted_at, row.created_at)
            one = Brought(row.created_at, there_at, float(row.input_bytes), not (row.reads or row.submitted_at is None))
            brought.setdefault(row.site, []).append(one)
        for row in await self._database.read(_collected, now - PAST_SECONDS):
            took = max(0.0, float(row.task_ended_at - row.started_at - row.elapsed_seconds))
            for which in (row.site, ""):
                after.setdefault(which, []).append(took)
        ways = {site: _with_before(some) for site, some in brought.items()}
        ways[""] = sorted((one for of in ways.values() for one in of), key=lambda one: one[0].there_at)
        self._known = {
            site: _learnt(ways[site][-MOST:], took[:MOST])
            for site, took in after.items()
            if min(len(took), len(ways.get(site, ()))) >= ENOUGH
        }

    def into(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with what is known of each site."""
        if not self._known:
            return snapshot
        views = []
        for view in snapshot.pools:
            after, before = self._known.get(view.site) or self._known.get("") or (None, None)
            views.append(replace(view, handling=after, handover=before))
        return replace(snapshot, pools=tuple(views))


def learnt(brought: Sequence[Brought], after: Sequence[float]) -> tuple[Estimate, Handover]:
    """What collecting takes at a site, with what bringing may be off in it; and what bringing takes. `after`: seconds from a run's end to
    the task's, those that ended last first."""
    return _learnt(_with_before(brought), after)


def _learnt(ways: Sequence[tuple[Brought, tuple[int, float]]], after: Sequence[float]) -> tuple[Estimate, Handover]:
    seconds = [one.there_at - one.placed_at for one, _ in ways]
    before = [of for _, of in ways]
    handover = _fitted(seconds, before)
    off = [took - handover.of(*of) for took, of in zip(seconds, before, strict=True)]
    (low, middle, high), (early, usual, late) = _quantiles(off), _quantiles(after[::-1])
    p50 = max(0.0, usual + middle)
    p10 = max(0.0, p50 - math.hypot(usual - early, middle - low))
    return Estimate(seconds=p50, source="learned", p10=p10, p90=p50 + math.hypot(late - usual, high - middle)), handover


def _quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10 %, 50 % and 90 % of values of which the last count most."""
    known = [Seen(value, weight=weight) for value, weight in zip(values, _weights(len(values)), strict=True)]
    return quantile(known, 0.1), quantile(known, 0.5), quantile(known, 0.9)


def _weights(count: int) -> list[float]:
    """What each of so many counts, the last most."""
    return [_FADES ** (count - 1 - number) for number in range(count)]


def _with_before(brought: Sequence[Brought]) -> list[tuple[Brought, tuple[int, float]]]:
    """Each attempt of a site that teaches, with how many, itself included, were to be brought when it was placed, and how many bytes."""
    brought = sorted(brought, key=lambda one: (one.placed_at, one.there_at))
    placed = [one.placed_at for one in brought]
    there = sorted(brought, key=lambda one: one.there_at)
    arrivals = [one.there_at for one in there]
    came = [0.0, *accumulate(one.size_bytes for one in brought)]
    left = [0.0, *accumulate(one.size_bytes for one in there)]
    found = []
    for number, one in enumerate(brought):
        gone = min(bisect_right(arrivals, one.placed_at), bisect_left(placed, one.placed_at))
        if one.teaches:
            found.append((one, (number + 1 - gone, max(one.size_bytes, came[number + 1] - left[gone]))))
    return found


def _fitted(seconds: Sequence[float], before: Sequence[tuple[int, float]]) -> Handover:
    """Least squares over what was to be brought, newer attempts first of all, held to what is plausible."""
    weights = _weights(len(seconds))
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
    """Those that came to their sites' queues or are on their way, the newest first."""
    a, t = tables.attempts.c, tables.tasks.c
    query = (
        sa.select(a.site, a.created_at, a.submitted_at, t.input_bytes, _reads_data().label("reads"))
        .select_from(tables.attempts.join(tables.tasks, t.id == a.task_id))
        .where(a.created_at > since, sa.or_(a.submitted_at.is_not(None), a.state.in_(_ON_THE_WAY)))
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
