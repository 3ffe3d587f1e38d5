"""Prices of a contested round: the waiting tasks, pools and links as a joint problem over time, and what its scarce rows cost.

A pool's work ahead is taken as a fluid that drains at the pool's size; what is left in each bucket is its capacity. Costs are
scores (see `preference`), so that every task counts by how many times worse than its best plan it fares. Imported only by a
round that needs it, for it brings numpy and numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.domain.placement import Candidate, PoolView, ScarcePrice, Snapshot, WaitingTask
from isthmus.placement.joint.problem import Budget, Floats, Prices, Problem
from isthmus.placement.joint.solve import solve
from isthmus.placement.linkrows import LinkRows, link_rows
from isthmus.placement.preference import Yardstick
from isthmus.placement.scarcity import held

RESOURCES = ("cpus", "memory_bytes", "accelerators")
BUCKETS = 8
BUDGET = Budget(sweeps=60, passes=0)
_SHORTEST_BUCKET = 15.0
_BEYOND = 2.0  # being left for later costs so many times the dearest plan of the round


@dataclass(frozen=True, eq=False, kw_only=True)
class Stated:
    """A round as arrays, with the standing prices and the names of its links."""

    problem: Problem
    prices: Prices
    links: tuple[str, ...]
    bucket_seconds: float


def stated(
    snapshot: Snapshot,
    tasks: Sequence[WaitingTask],
    plans: Sequence[Sequence[Candidate | None]],
    yardsticks: Sequence[Yardstick],
) -> Stated:
    """The round from `plans` [task][pool] as they would be without waiting (None = impossible) and the last prices."""
    bucket_seconds = _bucket_seconds(snapshot, tasks, plans)
    links = link_rows(snapshot, tasks, plans, yardsticks, bucket_seconds, BUCKETS)
    problem = _problem(snapshot, tasks, plans, yardsticks, bucket_seconds, links)
    standing = _standing(snapshot, problem, links.names)
    return Stated(problem=problem, prices=standing, links=links.names, bucket_seconds=bucket_seconds)


def price(
    snapshot: Snapshot,
    tasks: Sequence[WaitingTask],
    plans: Sequence[Sequence[Candidate | None]],
    yardsticks: Sequence[Yardstick],
) -> tuple[ScarcePrice, ...]:
    """Prices for the round."""
    stand = stated(snapshot, tasks, plans, yardsticks)
    found = solve(stand.problem, stand.prices, BUDGET).prices
    return as_scarce(snapshot, found, stand.links, stand.bucket_seconds)


def as_scarce(
    snapshot: Snapshot, found: Prices, links: Sequence[str], bucket_seconds: float
) -> tuple[ScarcePrice, ...]:
    """Prices as the round reads them: only those above 0."""
    pools = (
        ScarcePrice(
            site=view.site,
            pool=view.pool.name,
            resource=resource,
            bucket_seconds=bucket_seconds,
            by_bucket=tuple(found.pools[s, r].tolist()),
        )
        for s, view in enumerate(snapshot.pools)
        for r, resource in enumerate(RESOURCES)
        if found.pools[s, r].any()
    )
    ways = (
        ScarcePrice(
            site="",
            pool="",
            resource="bytes",
            bucket_seconds=bucket_seconds,
            by_bucket=tuple(found.links[number].tolist()),
            link=name,
        )
        for number, name in enumerate(links)
        if found.links[number].any()
    )
    return (*pools, *ways)


def _bucket_seconds(
    snapshot: Snapshot, tasks: Sequence[WaitingTask], plans: Sequence[Sequence[Candidate | None]]
) -> float:
    """Buckets long enough for all the work there is, ahead and in this round, to end before the last."""
    work = sum(
        held(task)["cpus"] * next((plan.run.seconds for plan in of if plan is not None and plan.run is not None), 0.0)
        for task, of in zip(tasks, plans, strict=True)
    )
    ahead = sum(_ahead(view) for view in snapshot.pools)
    size = sum(view.pool.cpus for view in snapshot.pools if view.pool.up) or 1
    return max(_SHORTEST_BUCKET, 1.5 * (work + ahead) / size / BUCKETS)


def _ahead(view: PoolView) -> float:
    """Processor seconds that the pool owes already."""
    if view.pool.immediate:
        return view.promised.cpu_seconds
    return view.pool.queued_cpu_seconds + view.pool.running_cpu_seconds_left + view.promised_unseen.cpu_seconds


def _capacity(view: PoolView, bucket_seconds: float) -> Floats:
    """What the pool has left of each resource in each bucket, [R, B]."""
    pool = view.pool
    full = np.array(
        [pool.cpus, pool.nodes * pool.memory_bytes_per_node, pool.nodes * pool.accelerators_per_node], np.float64
    )
    volume = pool.cpus * bucket_seconds
    drained = np.clip(_ahead(view) - volume * np.arange(BUCKETS), 0.0, volume) / max(volume, 1e-9)
    left: Floats = full[:, None] * (1.0 - drained)
    taken = np.array([view.promised.cpus, view.promised.memory_bytes, view.promised.accelerators], np.float64)
    if pool.immediate:
        left[:, 0] = np.maximum(full - taken, 0.0)
    elif pool.free_cpus is not None and not pool.queued_jobs:
        left[0, 0] = max(float(pool.free_cpus - view.promised_unseen.cpus), 0.0)
    return left


def _problem(
    snapshot: Snapshot,
    tasks: Sequence[WaitingTask],
    plans: Sequence[Sequence[Candidate | None]],
    yardsticks: Sequence[Yardstick],
    bucket_seconds: float,
    links: LinkRows,
) -> Problem:
    count, pools = len(tasks), len(snapshot.pools)
    cost = np.full((count, pools), np.inf)
    duration = np.ones((count, pools), np.int16)
    due = np.full((count, pools), BUCKETS, np.int16)
    for t, (task, of, by) in enumerate(zip(tasks, plans, yardsticks, strict=True)):
        deadline = task.objective.deadline
        for s, plan in enumerate(of):
            if plan is None or plan.run is None or plan.finish_seconds is None:
                continue
            cost[t, s] = by.score(plan)
            duration[t, s] = min(BUCKETS, max(1, round(plan.run.seconds / bucket_seconds)))
            if deadline is not None:
                spare = deadline.timestamp() - snapshot.now - plan.finish_seconds
                due[t, s] = min(BUCKETS, max(-1.0, np.floor(spare / bucket_seconds)))
    delay = np.array([by.per_second * bucket_seconds for by in yardsticks])
    dearest = float(cost[np.isfinite(cost)].max(initial=1.0))
    wanted = [held(task) for task in tasks]
    return Problem(
        cost=cost,
        demand=np.array([[of[resource] for resource in RESOURCES] for of in wanted]),
        capacity=np.array([_capacity(view, bucket_seconds) for view in snapshot.pools]),
        duration=duration,
        lead=links.lead,
        window=links.window,
        volume=links.volume,
        source=links.source,
        paths=links.paths,
        link_capacity=links.capacity,
        delay_cost=delay,
        due=due,
        late_cost=np.full(count, np.inf),
        defer_cost=_BEYOND * dearest + delay * BUCKETS,
        home=np.full(count, -1, np.int32),
        alone=np.zeros(0),
    )


def _standing(snapshot: Snapshot, problem: Problem, links: Sequence[str]) -> Prices:
    """The last round's prices, bucket by bucket, where the pools and links are still there."""
    pools, ways = np.zeros(problem.capacity.shape), np.zeros(problem.link_capacity.shape)
    where = {(view.site, view.pool.name): s for s, view in enumerate(snapshot.pools)}
    known = {name: number for number, name in enumerate(links)}
    for one in snapshot.prices:
        if len(one.by_bucket) != BUCKETS:
            continue
        if one.link:
            if one.link in known:
                ways[known[one.link]] = one.by_bucket
            continue
        s = where.get((one.site, one.pool))
        if s is not None and one.resource in RESOURCES:
            pools[s, RESOURCES.index(one.resource)] = one.by_bucket
    return Prices(pools=pools, links=ways, homes=np.zeros(0))
