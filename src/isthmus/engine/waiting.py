"""How long jobs wait at the batch sites, learned from their queues: the engine's memory of waits, filled from what sites show.

Whoever places watches. What was seen to end is kept in the store, a bounded history for each site, and learned from again
after a start. Rounds get tables of forecasts by kind of job: a kind that was asked for lately is forecast again at each
look, off the event loop; a round pays at most for a few kinds that are new.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from isthmus.domain.placement import Estimate, PoolView, Snapshot, WaitingTask
from isthmus.domain.queue import ExpectedJob, SiteQueue
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.waiting import Kind, WaitTable, kind_of
from isthmus.engine import queues
from isthmus.engine.leases import Lease, guard
from isthmus.engine.warming import Warming
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load

if TYPE_CHECKING:
    from isthmus.forecasting.watching import EndedJob, SiteWatch

log = logging.getLogger(__name__)
EVERY_SECONDS = 3.0
KEPT = 5000  # ended jobs of each site in the store
LEARNED_AGAIN = 600  # of them, after a start; some milliseconds each
ROUND_SECONDS, LOOK_SECONDS = 0.03, 0.5  # what forecasts may cost a round, and a look at one site
WANTED_SECONDS = 600.0  # a kind that nobody asked for since is not forecast any more
Key = tuple[str, str]


def shape_of(task: WaitingTask) -> tuple[int, int]:
    """What a task's wait depends on: processors of all nodes, limit in seconds."""
    demand = task.demand
    return demand.cpus_per_node * demand.nodes, round(task.limit_seconds)


class WaitTimes:
    """`refresh` takes in new looks; `into` puts what is known into a snapshot and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watches: dict[str, SiteWatch] = {}
        self._seen: dict[str, float] = {}
        self._tables: dict[Key, dict[Kind, Estimate]] = {}
        self._wanted: dict[Key, dict[Kind, float]] = {}
        self.lines: dict[Key, list[ExpectedJob]] = {}  # by pool of the sites that show a queue, as last seen
        self._lock = threading.Lock()  # over the watches while they take in a look
        self._absent = False
        self._warming = Warming("isthmus.forecasting", "waits are not learned")

    async def stop(self) -> None:
        """End what goes on beside."""
        await self._warming.stop()

    async def refresh(self, now: float, lease: Lease) -> int:
        """Take in the looks since the last call, and keep what ended; answers how many sites were looked at."""
        if self._absent:
            return 0
        rows = await self._database.read(queues.newer, self._seen)
        if not rows:
            return 0
        if not self._warming.ready:
            self._warming.start()
            return 0
        pools = await self._database.read(_pools)
        for site, at, seen_at, body in rows:
            self._seen[site] = seen_at
            history = () if site in self._watches else await self._database.read(_history, site)
            try:
                ended = await asyncio.to_thread(self._look, site, queues.read(at, body), pools.get(site, ()), history)
            except (ImportError, OSError) as error:  # OSError: the library itself misses one of the system's
                log.warning("waits are not learned: %s", error)
                self._absent = True
                return 0
            if ended:
                await self._database.write(_keep, now, lease, site, ended)
        for gone in set(self._watches) - set(pools):
            del self._watches[gone]
            self.lines = {key: line for key, line in self.lines.items() if key[0] != gone}
        return len(rows)

    def into(self, snapshot: Snapshot, jobs: Iterable[tuple[int, int]]) -> Snapshot:
        """The snapshot with forecasts of waiting for `jobs`, each (processors, limit in seconds), at the pools that were learned."""
        if not self._watches:
            return snapshot
        kinds = {kind_of(processors, limit) for processors, limit in jobs}
        views = [view for view in snapshot.pools if not view.pool.immediate and view.site in self._watches]
        for view in views:
            self._wanted.setdefault((view.site, view.pool.name), {}).update(dict.fromkeys(kinds, snapshot.now))
        if self._lock.acquire(timeout=ROUND_SECONDS):
            try:
                self._fill(views, ROUND_SECONDS)
            finally:
                self._lock.release()
        return replace(snapshot, pools=tuple(self._told(view) for view in snapshot.pools))

    def _told(self, view: PoolView) -> PoolView:
        known = self._tables.get((view.site, view.pool.name))
        return replace(view, waits=WaitTable(known)) if known else view

    def _fill(self, views: Sequence[PoolView], seconds: float) -> None:
        until = time.monotonic() + seconds
        for view in views:
            key = (view.site, view.pool.name)
            known = self._tables.get(key, {})
            for kind in [kind for kind in list(self._wanted[key]) if kind not in known]:
                if time.monotonic() > until:
                    return
                self._forecast(key, view.pool, kind)

    def _forecast(self, key: Key, pool: Pool, kind: Kind) -> None:
        watch = self._watches.get(key[0])
        found = watch.forecast(key[1], min(kind[0], pool.cpus), kind[1]) if watch is not None else None
        if found is not None:
            self._tables[key] = {**self._tables.get(key, {}), kind: found.estimate()}

    def _look(self, site: str, queue: SiteQueue, pools: Sequence[Pool], history: Sequence[EndedJob]) -> list[EndedJob]:
        """One site's look taken in, and what was asked for lately forecast again; in a thread of its own."""
        from isthmus.forecasting.watching import SiteWatch

        watch = self._watches.get(site)
        if watch is None:
            watch = SiteWatch()
            watch.replay(history, pools)  # nobody else has it yet
        with self._lock:
            ended = watch.look(queue, pools)
            self._watches[site] = watch
            lines = {(site, pool.name): watch.expected(pool.name) for pool in pools}
        self.lines = {key: line for key, line in self.lines.items() if key[0] != site} | lines
        if watch.due:
            watch.train()
        until = time.monotonic() + LOOK_SECONDS
        for pool in pools:
            self._again((site, pool.name), pool, until)
        return ended

    def _again(self, key: Key, pool: Pool, until: float) -> None:
        """Forecast the kinds that were asked for lately, those that wait longest for it last of all forgotten."""
        with self._lock:
            asked = self._wanted.get(key, {})
            wanted = dict(asked)  # rounds go on asking meanwhile
            newest = max(wanted.values(), default=0.0)
            for kind in [kind for kind, at in wanted.items() if at < newest - WANTED_SECONDS]:
                del wanted[kind]
                asked.pop(kind, None)
            self._tables[key] = {kind: found for kind, found in self._tables.get(key, {}).items() if kind in wanted}
        for kind in sorted(wanted, key=lambda kind: -wanted[kind]):
            if time.monotonic() > until:
                return
            with self._lock:
                self._forecast(key, pool, kind)


def _pools(connection: sa.Connection) -> Mapping[str, tuple[Pool, ...]]:
    """The pools of the sites that show a queue."""
    s, q = tables.sites, tables.site_queues
    query = sa.select(s.c.name, s.c.description).join_from(q, s, s.c.name == q.c.site).where(s.c.state != "left")
    return {
        row.name: load(SiteDescription, row.description).pools for row in connection.execute(query) if row.description
    }


def _history(connection: sa.Connection, site: str) -> list[EndedJob]:
    from isthmus.forecasting.watching import EndedJob

    h = tables.queue_history
    query = h.select().where(h.c.site == site).order_by(h.c.ended_at.desc(), h.c.id.desc()).limit(LEARNED_AGAIN)
    return [
        EndedJob(
            id=row.job,
            pool=row.pool,
            user=row.user,
            processors=row.processors,
            limit_seconds=row.limit_seconds,
            submitted_at=row.submitted_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
        )
        for row in connection.execute(query)
    ][::-1]


def _keep(connection: sa.Connection, now: float, lease: Lease, site: str, ended: Sequence[EndedJob]) -> None:
    """Keep what ended, and of a site's history only the newest."""
    guard(connection, lease)
    h = tables.queue_history
    rows = [
        {
            "site": site,
            "pool": job.pool,
            "job": job.id,
            "user": job.user,
            "processors": job.processors,
            "limit_seconds": job.limit_seconds,
            "submitted_at": job.submitted_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "kept_at": now,
        }
        for job in ended
    ]
    connection.execute(h.insert(), rows)
    oldest = connection.execute(
        sa.select(h.c.id).where(h.c.site == site).order_by(h.c.id.desc()).offset(KEPT).limit(1)
    ).scalar()
    if oldest is not None:
        connection.execute(h.delete().where(h.c.site == site, h.c.id <= oldest))
