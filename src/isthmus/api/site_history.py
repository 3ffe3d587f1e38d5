"""What a site's work under Isthmus was over time: processors in use, waits, ends; from usage records and live attempts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import Since, SitePath, answer, when
from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.store import tables
from isthmus.trust.access import OfSite

router = Router("sites")
LOOKED_AT = 50_000  # attempts read for one answer, the newest first
LONGEST_SECONDS = 366 * 86_400.0
_LIVE = sa.text("attempts.state NOT IN ('succeeded', 'failed', 'cancelled', 'lost')")  # as the partial index says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One attempt's stay at a site, in seconds since 1970; `ended` None: it is still there."""

    submitted: float | None
    started: float
    ended: float | None
    cpus: int
    failed: bool


@router.route("GET", "/v1/sites/{site}/history", rule=OfSite(), answer=answers.SiteHistory)
async def get_site_history(
    service: Serving,
    site: SitePath,
    since: Since = None,
    buckets: Annotated[int, Query(ge=1, le=400)] = 96,
) -> Response:
    """The work of Isthmus at a site since a time (a day ago when not said), in equal parts."""
    now = service.clock()
    begin = now - 86_400.0 if since is None else min(now - 1.0, max(since.timestamp(), now - LONGEST_SECONDS))
    stays, complete = await service.database.read(_stays, site, begin)
    parts = by_bucket(stays, begin, now, buckets)
    return answer({"site": site, "since": when(begin), "until": when(now), "complete": complete, "buckets": parts})


def _stays(connection: sa.Connection, site: str, begin: float) -> tuple[list[Stay], bool]:
    u, a = tables.usage_records.c, tables.attempts.c
    ended = (
        sa.select(a.submitted_at, u.started_at, u.ended_at, u.cpus, a.state)
        .join_from(tables.usage_records, tables.attempts, a.key == u.attempt)
        .where(u.site == site, u.created_at >= begin, u.started_at.is_not(None))
        .order_by(u.created_at.desc())
        .limit(LOOKED_AT + 1)
    )
    there = (
        sa.select(a.submitted_at, a.started_at, a.ended_at, a.cpus, a.state)
        .where(a.site == site, _LIVE, a.started_at.is_not(None))
        .limit(LOOKED_AT + 1)
    )
    past, live = connection.execute(ended).all(), connection.execute(there).all()
    found = [
        Stay(submitted=row[0], started=row[1], ended=row[2], cpus=row[3], failed=row[4] in ("failed", "lost"))
        for row in [*past[:LOOKED_AT], *live[:LOOKED_AT]]
    ]
    return found, len(past) <= LOOKED_AT and len(live) <= LOOKED_AT


def by_bucket(stays: Iterable[Stay], begin: float, end: float, count: int) -> list[dict[str, Any]]:
    """The time from `begin` to `end` in `count` equal parts: mean processors in use, starts, ends, failures, and the waits
    (median and 90th percentile, seconds) of what started in each; null where nothing started."""
    width = (end - begin) / count
    busy = [0.0] * count
    started, ended, failed = [0] * count, [0] * count, [0] * count
    waits: list[list[float]] = [[] for _ in range(count)]
    for stay in stays:
        until = min(end, end if stay.ended is None else stay.ended)
        first = max(0, int((max(stay.started, begin) - begin) / width))
        last = min(count - 1, int((until - begin) / width))
        for index in range(first, last + 1):
            low = begin + index * width
            busy[index] += stay.cpus * max(0.0, min(until, low + width) - max(stay.started, low))
        if begin <= stay.started < end:
            index = min(count - 1, int((stay.started - begin) / width))
            started[index] += 1
            if stay.submitted is not None:
                waits[index].append(max(0.0, stay.started - stay.submitted))
        if stay.ended is not None and begin <= stay.ended < end:
            index = min(count - 1, int((stay.ended - begin) / width))
            ended[index] += 1
            failed[index] += stay.failed
    return [
        {
            "at": when(begin + index * width),
            "cpus": busy[index] / width,
            "started": started[index],
            "ended": ended[index],
            "failed": failed[index],
            "wait_p50_seconds": _quantile(waits[index], 0.5),
            "wait_p90_seconds": _quantile(waits[index], 0.9),
        }
        for index in range(count)
    ]


def _quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share does not exceed; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
