"""Keeps what is known of a site up to date: its pools, its load, whether it answers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import IsthmusError
from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.queue import QueuedJob
from isthmus.domain.site import OwnShare, SiteDescription
from isthmus.engine import queues
from isthmus.engine.ahead import note_hour
from isthmus.engine.leases import Lease, guard
from isthmus.engine.work import SiteWork
from isthmus.store import events, tables
from isthmus.store.documents import dump, load

log = logging.getLogger(__name__)
_LIVE = sa.text("state NOT IN ('succeeded', 'failed', 'cancelled', 'lost')")  # as the partial index says it
_ON_THE_WAY = (AttemptState.SUBMITTING.value, AttemptState.UNKNOWN.value)


async def describe(work: SiteWork) -> None:
    """Ask the site for its pools and store the answer, or the reason why there is none."""
    try:
        async with asyncio.timeout(60):
            description = await work.adapter.describe()
    except (IsthmusError, TimeoutError, OSError) as error:
        await work.database.write(store_error, work.lease, work.name, work.clock.now(), _said(error))
        return
    changed = await work.database.write(_store, work.lease, work.name, work.clock.now(), description)
    if changed:
        work.look_again()


def is_idle(connection: sa.Connection, site: str) -> bool:
    """Whether nothing of ours is at the site and no task waits that could go there: then it is asked rarely."""
    a, t = tables.attempts, tables.tasks
    live = sa.select(a.c.key).where(a.c.site == site, _LIVE).limit(1)
    waiting = sa.select(t.c.id).where(sa.text("state = 'waiting'")).limit(1)
    return all(connection.execute(query).first() is None for query in (live, waiting))


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _store(connection: sa.Connection, lease: Lease, site: str, now: float, description: SiteDescription) -> bool:
    """Answers whether placement should look again: the site is back, or has other pools than before."""
    guard(connection, lease)
    row = connection.execute(tables.sites.select().where(tables.sites.c.name == site).with_for_update()).one()
    queues.keep(connection, site, now, description.queue)
    description = with_own(connection, site, description)
    text = dump(replace(description, queue=None))  # rounds read it often, and need no rows
    connection.execute(
        tables.sites.update()
        .where(tables.sites.c.name == site)
        .values(description=text, described_at=now, last_seen_at=now, error="")
    )
    note_hour(connection, site, now, description.pools, _running_cpus(connection, site), orjson.loads(row.prices))
    was_back = bool(row.error) or not row.description
    if was_back:
        events.add(connection, [events.event(now, "site.reachable", site=site)])
    return was_back or _shape(load(SiteDescription, row.description)) != _shape(description)


def with_own(connection: sa.Connection, site: str, description: SiteDescription) -> SiteDescription:
    """The description with what of each pool's load is our own, where the site shows its queue. A job that looks like one whose
    submission is under way is taken to be it: the answer with its id comes after many others."""
    queue = description.queue
    if queue is None:
        return description
    a = tables.attempts.c
    ours: set[str] = set()
    for which in (_LIVE, sa.text(f"({tables.AFTER})")):
        ours.update(connection.execute(sa.select(a.native_id).where(a.site == site, which)).scalars())
    sent = sa.select(a.pool, a.cpus, a.walltime_seconds).where(a.site == site, _LIVE, a.native_id == "")
    unnamed = Counter(
        (row.pool, row.cpus, _minutes(row.walltime_seconds))
        for row in connection.execute(sent.where(a.state.in_(_ON_THE_WAY)))
    )
    pools = []
    for pool in description.pools:
        own = []
        for job in reversed(queue.jobs):  # the newest first: their ids may not have been told yet
            like = (pool.name, job.processors, _minutes(job.limit_seconds))
            if pool.name not in job.pools:
                continue
            if job.id in ours:
                own.append(job)
            elif unnamed[like]:
                unnamed[like] -= 1
                own.append(job)
        share = OwnShare(
            running_cpus=sum(job.processors for job in own if job.running),
            queued_jobs=sum(not job.running for job in own),
            cpu_seconds=sum(job.processors * _left(job, queue.at) for job in own),
        )
        pools.append(replace(pool, own=share))
    return replace(description, pools=tuple(pools))


def _minutes(seconds: float | None) -> int:
    """A limit as schedulers keep it."""
    return math.ceil((seconds or 0.0) / 60)


def _running_cpus(connection: sa.Connection, site: str) -> dict[str, int]:
    """Processors of our own running attempts, by pool."""
    a = tables.attempts.c
    query = sa.select(a.pool, sa.func.sum(a.cpus)).where(a.site == site, _LIVE, a.state == AttemptState.RUNNING.value)
    return {pool: int(cpus) for pool, cpus in connection.execute(query.group_by(a.pool))}


def _left(job: QueuedJob, now: float) -> float:
    ran = 0.0 if job.started_at is None else max(0.0, now - job.started_at)
    return max(0.0, (job.limit_seconds or 0.0) - ran)


def _shape(description: SiteDescription) -> Any:
    """What decides whether a task could run there at all."""
    return (
        description.features,
        tuple(
            (
                p.name,
                p.nodes,
                p.cpus_per_node,
                p.memory_bytes_per_node,
                p.accelerators_per_node,
                p.accelerator_kind,
                p.up,
            )
            for p in description.pools
        ),
    )


def store_error(connection: sa.Connection, lease: Lease, site: str, now: float, error: str) -> None:
    """Note that a site does not answer; the first time with an event."""
    guard(connection, lease)
    row = connection.execute(tables.sites.select().where(tables.sites.c.name == site).with_for_update()).one()
    if row.error == error[:2000]:
        return
    connection.execute(tables.sites.update().where(tables.sites.c.name == site).values(error=error[:2000]))
    if not row.error:
        events.add(connection, [events.event(now, "site.unreachable", site=site, body={"error": error[:400]})])
