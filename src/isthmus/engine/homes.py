"""Own users first: what is at each home site and who of its people waits, as the rows of a round want it.

Of jobs in a site's queue that are not ours, all are the site's own users'; of ours, those of projects whose home it is. The rows come
from the queue as last seen, each with the run time that was learned for it; where a site shows no rows, its sums stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.placement import Claim, HomeLine, PoolView, Snapshot, WaitingTask
from isthmus.domain.queue import ExpectedJob
from isthmus.engine.serving import first_of
from isthmus.store import tables

MOST_WAITING = (
    200  # tasks of one home, and jobs of one pool, that have a plan; those behind them wait longer than any guest runs
)
Lines = Mapping[tuple[str, str], Sequence[ExpectedJob]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Homes:
    """What the store knows: the home of each project that has one, attempts at these sites, and tasks that wait here."""

    of: Mapping[str, str] = field(default_factory=dict)
    attempts: Sequence[Any] = ()
    waiting: Sequence[Any] = ()

    def into(self, snapshot: Snapshot, tasks: Sequence[WaitingTask], lines: Lines) -> Snapshot:
        """The snapshot with a line at each pool of each home; `tasks` are those of `waiting`."""
        if not self.of:
            return snapshot
        sites = set(self.of.values())
        there: dict[tuple[str, str], list[Any]] = {}
        for row in self.attempts:
            there.setdefault((row.site, row.pool), []).append(row)
        views = []
        for view in snapshot.pools:
            if view.site in sites:
                key = (view.site, view.pool.name)
                view = replace(view, home=self._line(view, there.get(key, []), lines, snapshot.now))
            views.append(view)
        return replace(snapshot, pools=tuple(views), homebound=tuple(tasks))

    def _line(self, view: PoolView, rows: Sequence[Any], lines: Lines, now: float) -> HomeLine:
        """What is at one pool: its queue in the site's order, then what is on its way there."""
        running: list[Claim] = []
        waiting: list[Claim] = []
        shown = lines.get((view.site, view.pool.name))
        ours = {row.native_id: row for row in rows if row.native_id}
        seen = set()
        for job in shown or ():
            row = ours.get(job.id)
            if row is not None:
                seen.add(row.key)
                self._sort(row, now, running, waiting)
            elif job.running:
                running.append(Claim(cpus=job.processors, seconds=job.seconds))
            else:
                waiting.append(Claim(cpus=job.processors, seconds=job.seconds))
        for row in rows:
            if row.key not in seen:
                self._sort(row, now, running, waiting)
        if shown is not None:
            running += _elsewhere(view, shown, lines)
        elif not view.pool.immediate:
            running, waiting = running + _others(view, running), _strangers(view, rows) + waiting
        return HomeLine(running=tuple(running), waiting=tuple(waiting[:MOST_WAITING]))

    def _sort(self, row: Any, now: float, running: list[Claim], waiting: list[Claim]) -> None:
        """One of our attempts: what the site's own have waiting has a plan; a guest that was let in holds its room already."""
        if row.state == AttemptState.COLLECTING:
            return
        ran = max(0.0, now - row.started_at) if row.started_at is not None else 0.0
        expected = row.expected_seconds or float(row.walltime_seconds)
        claim = Claim(
            cpus=row.cpus,
            memory_bytes=row.memory_bytes,
            accelerators=row.accelerators,
            seconds=max(expected - ran, 0.1 * ran),
        )
        own = self.of.get(row.project) == row.site
        (waiting if own and row.started_at is None else running).append(claim)


NOBODY = Homes()


def read_homes(connection: sa.Connection) -> Homes:
    """The homes of projects, where any has one; with them what the rows are made from."""
    p, a = tables.projects.c, tables.attempts.c
    of = {row.name: row.home for row in connection.execute(sa.select(p.name, p.home).where(p.home != ""))}
    if not of:
        return NOBODY
    columns = (
        a.key, a.project, a.site, a.pool, a.state, a.native_id, a.cpus, a.memory_bytes, a.accelerators,
        a.walltime_seconds, a.expected_seconds, a.started_at,
    )  # fmt: skip
    live = sa.select(*columns).where(sa.text(tables.LIVE)).where(a.site.in_(sorted(set(of.values())))).order_by(a.key)
    waiting: list[Any] = []
    for site in sorted(set(of.values())):
        projects = sorted(project for project, home in of.items() if home == site)
        waiting += first_of(connection, projects, MOST_WAITING)
    return Homes(of=of, attempts=list(connection.execute(live)), waiting=waiting)


def _elsewhere(view: PoolView, shown: Sequence[ExpectedJob], lines: Lines) -> list[Claim]:
    """Processors that are neither idle nor held by a job of the pool: they are down, or busy for another pool of the site until its
    last job has ended."""
    free = view.pool.cpus if view.pool.free_cpus is None else view.pool.free_cpus
    lacking = view.pool.cpus - free - sum(job.processors for job in shown if job.running)
    if lacking <= 0:
        return []
    others = [
        job.seconds
        for (site, pool), jobs in lines.items()
        if site == view.site and pool != view.pool.name
        for job in jobs
        if job.running
    ]
    return [Claim(cpus=lacking, seconds=max(others, default=float("inf")))]


def _others(view: PoolView, running: Sequence[Claim]) -> list[Claim]:
    """What strangers have running where a site shows only sums: all of it as long as the mean of what is left."""
    pool = view.pool
    free = pool.cpus if pool.free_cpus is None else pool.free_cpus
    busy = pool.cpus - free
    strangers = busy - sum(claim.cpus for claim in running)
    return [Claim(cpus=strangers, seconds=pool.running_cpu_seconds_left / busy)] if strangers > 0 else []


def _strangers(view: PoolView, rows: Sequence[Any]) -> list[Claim]:
    """What strangers have waiting where a site shows only sums: as if it wanted the whole pool, since nobody says how wide it is."""
    pool = view.pool
    ours = sum(row.state == AttemptState.QUEUED for row in rows)
    if pool.queued_jobs <= ours:
        return []
    return [Claim(cpus=pool.cpus, seconds=max(1.0, pool.queued_cpu_seconds / max(1, pool.cpus)))]
