"""What the brain is told: pools with their load and promises, and the tasks that wait, read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState
from isthmus.domain.placement import (
    Estimate,
    Gang,
    PoolView,
    Promise,
    RunTimesByPool,
    Snapshot,
    Standing,
    WaitingTask,
)
from isthmus.domain.site import SiteDescription, SiteState
from isthmus.domain.task import TaskSpec
from isthmus.engine.accounting import by_hour, energy_of, flat, preemptible_share
from isthmus.engine.carbon import carbon_hours
from isthmus.store import tables
from isthmus.store.datasets import keeping_sites
from isthmus.store.documents import load

_IS_LIVE = sa.text(tables.LIVE.replace("state", "attempts.state"))  # in the words of its index
_MAX_QUEUED = 10_000  # own jobs in one batch queue; the rest waits here, by priority
_MAX_IMMEDIATE = 1_000_000  # a pool without a queue is bounded by its processors
_STALE_SECONDS = 120.0  # a site whose pools were not seen for this long is not given new work


def read_snapshot(connection: sa.Connection, now: float) -> Snapshot:
    """Every pool of every site that has not left, with what was promised there."""
    promised, unseen = _promises(connection, now)
    to_bring = _to_bring(connection)
    carbon = carbon_hours(connection)
    keeping = keeping_sites(connection)
    views: list[PoolView] = []
    query = tables.sites.select().where(tables.sites.c.state != SiteState.LEFT.value).order_by(tables.sites.c.name)
    for row in connection.execute(query):
        if not row.description:
            continue
        description = load(SiteDescription, row.description)
        prices = orjson.loads(row.prices)
        fresh = row.described_at is not None and now - row.described_at < _STALE_SECONDS
        for pool in description.pools:
            tariff = prices.get(pool.name, prices.get("*", {}))
            views.append(
                PoolView(
                    site=row.name,
                    pool=replace(pool, price_per_cpu_hour=flat(tariff, "cpu_hour")),
                    state=SiteState(row.state),
                    reachable=not row.error and fresh,
                    region=row.region,
                    trust=row.trust,
                    features=description.features,
                    promised=promised.get((row.name, pool.name), Promise()),
                    promised_unseen=unseen.get((row.name, pool.name), Promise()),
                    to_bring=to_bring.get(row.name, (0, 0)),
                    accounts=frozenset(orjson.loads(row.accounts)),
                    max_jobs=_MAX_IMMEDIATE if pool.immediate else _MAX_QUEUED,
                    price_per_accelerator_hour=flat(tariff, "accelerator_hour"),
                    preemptible_share=preemptible_share(tariff),
                    cpu_hours=by_hour(tariff, "cpu_hour"),
                    accelerator_hours=by_hour(tariff, "accelerator_hour"),
                    keeps_data=row.name in keeping,
                    energy=energy_of(tariff, carbon.get(row.name)),
                )
            )
    return Snapshot(now=now, pools=tuple(views))


def _to_bring(connection: sa.Connection) -> dict[str, tuple[int, int]]:
    """By site, the attempts that are on their way to its queue, and the bytes of their uploads."""
    a, t = tables.attempts.c, tables.tasks
    query = (
        sa.select(a.site, sa.func.count().label("jobs"), sa.func.sum(t.c.input_bytes).label("size"))
        .select_from(tables.attempts.join(t, t.c.id == a.task_id))
        .where(_IS_LIVE)
        .where(a.submitted_at.is_(None))
        .group_by(a.site)
    )
    return {row.site: (row.jobs, int(row.size or 0)) for row in connection.execute(query)}


def _promises(
    connection: sa.Connection, now: float
) -> tuple[dict[tuple[str, str], Promise], dict[tuple[str, str], Promise]]:
    a, s = tables.attempts.c, tables.sites.c
    ran = sa.case((a.started_at < now, now - a.started_at), else_=0.0)
    expected = sa.case((a.expected_seconds > 0, a.expected_seconds), else_=sa.cast(a.walltime_seconds, sa.Double))
    left = sa.case((expected > 1.1 * ran, expected - ran), else_=0.1 * ran)  # one that outlived its forecast goes on
    is_unseen = sa.case((sa.or_(a.submitted_at.is_(None), a.submitted_at > s.described_at), 1), else_=0)
    query = (
        sa.select(
            a.site,
            a.pool,
            is_unseen.label("unseen"),
            sa.func.count().label("jobs"),
            sa.func.sum(a.cpus).label("cpus"),
            sa.func.sum(a.memory_bytes).label("memory_bytes"),
            sa.func.sum(a.accelerators).label("accelerators"),
            sa.func.sum(sa.cast(a.cpus, sa.Double) * left).label("cpu_seconds"),
        )
        .select_from(tables.attempts.join(tables.sites, a.site == s.name))
        .where(_IS_LIVE)
        .where(a.state != AttemptState.COLLECTING.value)  # its processors are free again
        .group_by(a.site, a.pool, is_unseen)
    )
    promised: dict[tuple[str, str], Promise] = {}
    unseen: dict[tuple[str, str], Promise] = {}
    for row in connection.execute(query):
        part = Promise(
            jobs=row.jobs,
            cpus=int(row.cpus),
            memory_bytes=int(row.memory_bytes),
            accelerators=int(row.accelerators),
            cpu_seconds=float(row.cpu_seconds),
        )
        key = (row.site, row.pool)
        if row.unseen:
            unseen[key] = part
        before = promised.get(key, Promise())
        promised[key] = Promise(
            jobs=before.jobs + part.jobs,
            cpus=before.cpus + part.cpus,
            memory_bytes=before.memory_bytes + part.memory_bytes,
            accelerators=before.accelerators + part.accelerators,
            cpu_seconds=before.cpu_seconds + part.cpu_seconds,
        )
    return promised, unseen


def read_apart(connection: sa.Connection, users: Sequence[str]) -> list[tuple[str, str, str]]:
    """(site, user, group) of the users' live tasks that want to be apart from others of their group."""
    a, t = tables.attempts.c, tables.tasks.c
    query = (
        sa.select(a.site, a.user, t.spec)
        .select_from(tables.attempts.join(tables.tasks, a.task_id == t.id))
        .where(_IS_LIVE)
        .where(a.state != AttemptState.COLLECTING.value)
        .where(a.user.in_(users))
        .where(t.spec.contains('"apart":"'))
    )
    return [
        (row.site, row.user, orjson.loads(row.spec).get("constraints", {}).get("apart", ""))
        for row in connection.execute(query)
    ]


def waiting_task(
    task_id: str,
    user: str,
    spec: TaskSpec,
    *,
    input_bytes: int,
    run: Estimate | None,
    run_at: RunTimesByPool | None = None,
    avoid_sites: Sequence[str] = (),
    standing: Standing | None = None,
    home: str = "",
    gang: Gang | None = None,
) -> WaitingTask:
    """A task as the brain sees it."""
    return WaitingTask(
        id=task_id,
        user=user,
        home=home,
        demand=spec.demand,
        objective=spec.objective,
        constraints=spec.constraints,
        input_bytes=input_bytes,
        input_sites=frozenset(item.site_path.partition(":")[0] for item in spec.inputs if item.site_path),
        needs_container=any(step.image for step in spec.steps),
        options=frozenset(spec.backend_parameters),
        avoid_sites=tuple(avoid_sites),
        run=run,
        run_at=run_at,
        preemptible=spec.preemptible,
        standing=standing,
        gang=gang,
    )
