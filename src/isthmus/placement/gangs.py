"""Tasks that start together, each at another site: which pairs of pools could have them, and the best of those.

A pair is possible when both parts have room, at different sites, would start within the gang's hold of each other, and the later end
and the sum of the prices keep the earliest deadline and the smallest budget that any part names. The part that would start first is held
at its site until the other is there, and that is paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from isthmus.domain.placement import Candidate, PartPlan, PoolView, Together, WaitingTask, Why
from isthmus.domain.units import show_duration
from isthmus.placement import estimates
from isthmus.placement.preference import Yardstick

_BEST, _CHEAPEST = 16, 8  # sites of each part that are looked at, by its own preference and by price
JOINTLY = 64  # gangs in one exact answer
_WORK = 0.5  # CP-SAT's deterministic seconds for it
_BEYOND = 2.0  # being left for later costs so many times the dearest pair
Worth = Callable[[WaitingTask, Candidate], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The pools of two parts by their numbers; each part's plan with the time that it is held in its run and its price; `cost`: the
    scores of both, and what others would lose by what they hold. `key` orders pairs, the best first."""

    pools: tuple[int, int]
    plans: tuple[Candidate, Candidate]
    held: tuple[float, float]
    cost: float
    key: tuple[object, ...]

    @property
    def price(self) -> Decimal:
        """Of both parts."""
        return sum((plan.price or Decimal(0) for plan in self.plans), Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why no pair is possible now, by name, with the figure that was wanted and the one there is."""

    why: Why
    wanted: str
    offered: str


def pairs_of(
    now: float,
    tasks: Sequence[WaitingTask],
    candidates: Sequence[Sequence[Candidate]],
    views: Sequence[PoolView],
    yardsticks: Sequence[Yardstick],
    worth: Worth,
) -> list[Pair] | Refusal:
    """Every possible pair for the two parts of a gang, the best first, or why there is none."""
    able = [_able(*part) for part in zip(candidates, yardsticks, strict=True)]
    for part, found in enumerate(able):
        if not found:
            return Refusal(
                why=Why.NO_PAIR_OF_SITES, wanted=f"{len(tasks)} sites at once", offered=f"none for part {part}"
            )
    apart = [(i, j) for i in able[0] for j in able[1] if candidates[0][i].site != candidates[1][j].site]
    if not apart:
        only = candidates[0][able[0][0]].site
        return Refusal(why=Why.NO_PAIR_OF_SITES, wanted=f"{len(tasks)} sites at once", offered=f"only {only}")
    gang = tasks[0].gang
    assert gang is not None
    found_pairs: list[Pair] = []
    too_late: list[Pair] = []
    too_dear: list[Pair] = []
    closest: tuple[float, str] | None = None
    until = min((t.objective.deadline.timestamp() for t in tasks if t.objective.deadline is not None), default=None)
    budget = min((t.objective.budget for t in tasks if t.objective.budget is not None), default=None)
    for i, j in apart:
        both = (candidates[0][i], candidates[1][j])
        starts = [_start(one) for one in both]
        gap = abs(starts[0] - starts[1])
        if gap > gang.hold_seconds:
            if closest is None or gap < closest[0]:
                closest = gap, f"{both[0].site} and {both[1].site}"
            continue
        pair = _pair(now, tasks, (i, j), both, (views[i], views[j]), yardsticks, worth)
        if until is not None and now + max(plan.late_seconds or 0.0 for plan in pair.plans) > until:
            too_late.append(pair)
        elif budget is not None and pair.price > budget:
            too_dear.append(pair)
        else:
            found_pairs.append(pair)
    if found_pairs:
        return sorted(found_pairs, key=lambda pair: pair.key)
    if too_dear:
        cheapest = min(too_dear, key=lambda pair: pair.price)
        return Refusal(
            why=Why.OVER_BUDGET, wanted=f"{budget} for all parts", offered=f"{cheapest.price} at {_names(cheapest)}"
        )
    if too_late and until is not None:
        soonest = min(too_late, key=_late)
        return Refusal(
            why=Why.MISSES_DEADLINE, wanted=_time(until), offered=f"{_time(now + _late(soonest))} at {_names(soonest)}"
        )
    assert closest is not None
    return Refusal(
        why=Why.STARTS_TOO_FAR_APART,
        wanted=f"starts within {show_duration(gang.hold_seconds)}",
        offered=f"{show_duration(closest[0])} apart at {closest[1]}",
    )


def _able(candidates: Sequence[Candidate], by: Yardstick) -> list[int]:
    """The pools that could have a part: of each site the best and the cheapest, and no more than a few sites."""
    best: dict[str, int] = {}
    cheapest: dict[str, int] = {}
    for index, one in enumerate(candidates):
        if one.why is not Why.LATER_FINISH:
            continue
        site = one.site
        if site not in best or by.score(one) < by.score(candidates[best[site]]):
            best[site] = index
        if site not in cheapest or (one.price or 0) < (candidates[cheapest[site]].price or 0):
            cheapest[site] = index
    first = sorted(best.values(), key=lambda index: by.score(candidates[index]))[:_BEST]
    low = sorted(cheapest.values(), key=lambda index: candidates[index].price or Decimal(0))[:_CHEAPEST]
    return list(dict.fromkeys([*first, *low]))


def _start(one: Candidate) -> float:
    """Seconds from now until it could start."""
    assert one.wait is not None
    assert one.transfer is not None
    return one.wait.seconds + one.transfer.seconds


def _pair(
    now: float,
    tasks: Sequence[WaitingTask],
    pools: tuple[int, int],
    both: tuple[Candidate, Candidate],
    views: tuple[PoolView, PoolView],
    yardsticks: Sequence[Yardstick],
    worth: Worth,
) -> Pair:
    starts = (_start(both[0]), _start(both[1]))
    held = (max(starts) - starts[0], max(starts) - starts[1])
    first, second = (
        as_held(now, task, plan, view, seconds)
        for task, plan, view, seconds in zip(tasks, both, views, held, strict=True)
    )
    cost = sum(
        by.score(plan) + worth(task, plan) for task, plan, by in zip(tasks, (first, second), yardsticks, strict=True)
    )
    again = sum(plan.site in task.avoid_sites for task, plan in zip(tasks, both, strict=True))
    names = tuple((plan.site, plan.pool) for plan in both)
    return Pair(pools=pools, plans=(first, second), held=held, cost=cost, key=(again, cost, names))


def as_held(now: float, task: WaitingTask, plan: Candidate, view: PoolView, seconds: float) -> Candidate:
    """The plan with the time that the task is held in its run."""
    if seconds <= 0:
        return plan
    assert plan.run is not None
    more = estimates.price(task, view, seconds, now + _start(plan))
    return replace(plan, run=estimates.later(plan.run, seconds), price=(plan.price or Decimal(0)) + more)


def _late(pair: Pair) -> float:
    return max(plan.late_seconds or 0.0 for plan in pair.plans)


def _names(pair: Pair) -> str:
    return " and ".join(f"{plan.site}/{plan.pool}" for plan in pair.plans)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def record(tasks: Sequence[WaitingTask], part: int, pair: Pair, pairs: int, method: str) -> Together:
    """The record of a pair that was chosen, as one part has it."""
    gang = tasks[part].gang
    assert gang is not None
    return Together(
        gang=gang.id,
        part=part,
        parts=gang.parts,
        hold_seconds=gang.hold_seconds,
        why=Why.CHOSEN,
        plans=tuple(
            PartPlan(
                part=number,
                task_id=task.id,
                site=plan.site,
                pool=plan.pool,
                start_seconds=_start(plan),
                held_seconds=held,
            )
            for number, (task, plan, held) in enumerate(zip(tasks, pair.plans, pair.held, strict=True))
        ),
        pairs=pairs,
        method=method,
        price=pair.price,
    )


def refused(task: WaitingTask, refusal: Refusal) -> Together:
    """The record of a gang that waits, as one of its parts has it."""
    gang = task.gang
    assert gang is not None
    return Together(
        gang=gang.id,
        part=gang.part,
        parts=gang.parts,
        hold_seconds=gang.hold_seconds,
        why=refusal.why,
        wanted=refusal.wanted,
        offered=refusal.offered,
    )


_REMEDIES = {
    Why.PARTS_MISSING: "It goes when all parts wait for a place: hand in, or release, those that are lacking.",
    Why.NO_PAIR_OF_SITES: "It goes when two sites have room at once; allow more sites, or ask for less.",
    Why.STARTS_TOO_FAR_APART: "It goes when the queues of two sites are about as long; or let a part be held for longer (`together_hold`).",
    Why.MISSES_DEADLINE: "Move the deadline to {offered}, or later.",
    Why.OVER_BUDGET: "Raise the budget of the group: {offered}.",
}


def remedy_of(refusal: Refusal) -> str:
    """What would help."""
    return _REMEDIES.get(refusal.why, "").format(offered=refusal.offered)


def jointly(
    options: Sequence[Sequence[Pair]],
    held: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    free: Sequence[Mapping[str, float]],
) -> list[Pair | None]:
    """One pair for each gang, or None, so that all fit into what is free and cost least in sum: exactly, by CP-SAT.

    `options` are the pairs of each gang whose both parts could start at once, `held` what either part holds of each resource, `free` what
    each pool has. ImportError without the extra `exact`.
    """
    import numpy as np

    from isthmus.placement.joint.cores import Core, solve_core
    from isthmus.placement.joint.problem import Prices

    kinds = sorted(free[0]) if free else []
    pools = sorted({pair.pools for pairs in options for pair in pairs})
    if not pools:
        return [None] * len(options)
    at = {pair: number for number, pair in enumerate(pools)}
    cost = np.full((len(options), len(pools)), np.inf)
    for number, pairs in enumerate(options):
        for pair in pairs:
            cost[number, at[pair.pools]] = pair.cost
    beyond = _BEYOND * float(cost[np.isfinite(cost)].max()) + 1.0
    demand = np.array([[[part[kind] for kind in kinds] for part in both] for both in held], float)
    core = Core(
        first=np.array([first for first, _ in pools], np.int32),
        second=np.array([second for _, second in pools], np.int32),
        cost=cost,
        demand_first=demand[:, 0],
        demand_second=demand[:, 1],
        capacity=np.array([[[max(0.0, of[kind])] for kind in kinds] for of in free], float),
        duration=np.ones(len(options), np.int32),
        delay_cost=np.zeros(len(options)),
        defer_cost=np.full(len(options), beyond),
    )
    prices = Prices(pools=np.zeros(core.capacity.shape), links=np.zeros((0, 1)), homes=np.zeros(0))
    answer = solve_core(core, prices, _WORK)
    chosen: list[Pair | None] = []
    for pairs, number in zip(options, answer.pair, strict=True):
        chosen.append(next((pair for pair in pairs if number >= 0 and pair.pools == pools[number]), None))
    return chosen
