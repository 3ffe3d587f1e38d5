"""The row of each home site: guests may not start where they would make the site's own users wait longer than alone.

At every pool of a home site the jobs of its own users that wait, at the site or in the service, are planned in their order: each
at the earliest time at which what runs, and those before it, leave it room (conservative backfilling). That is when they start
alone. A guest may start at once, and only if it fits beside all of these plans until its 90 % quantile; so every plan can be
kept, and no own job that waits starts later because of it. A guest is never sent to wait in a foreign queue.

The test at each step of the plan is `federation.fits_hole`, the rule of the federation of logs, where only the head has a plan.
What it cannot see: own jobs that come later, and jobs that outlive what is expected of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil, inf

from isthmus.domain.placement import Candidate, Claim, PoolView, Snapshot, WaitingTask, Why
from isthmus.domain.units import show_duration, show_size
from isthmus.placement import estimates
from isthmus.placement.feasibility import Failure, failures
from isthmus.placement.federation import fits_hole

Amounts = tuple[float, float, float]  # processors, bytes, devices
_NAMES = ("processors", "memory", "accelerators")


class Plan:
    """Room over time at one pool, from now on: what it has, less what is held and planned."""

    def __init__(self, whole: Amounts) -> None:
        self._times = [0.0]
        self._free = [whole]  # [i]: from times[i] to the next, the last for ever
        self._steps: list[tuple[float, Amounts]] | None = None

    def hold(self, begin: float, seconds: float, wanted: Amounts, sign: int = 1) -> None:
        """Take room from `begin` on, or give it back (-1)."""
        if seconds <= 0:
            return
        first = self._split(begin)
        last = len(self._times) if seconds == inf else self._split(begin + seconds)
        for i in range(first, last):
            free = self._free[i]
            self._free[i] = (free[0] - sign * wanted[0], free[1] - sign * wanted[1], free[2] - sign * wanted[2])
        self._steps = None

    def earliest(self, seconds: float, wanted: Amounts) -> float:
        """When there is room for so long; infinite where there never is."""
        begin = 0
        for i, free in enumerate(self._free):
            if not _covers(free, wanted):
                begin = i + 1
            elif i + 1 == len(self._times) or self._times[i + 1] >= self._times[begin] + seconds:
                return self._times[begin]
        return inf

    def lacking(self, seconds: float, wanted: Amounts) -> tuple[int, float] | None:
        """What does not fit for so long from now on, as (kind of room, the most that would); None where all of it fits."""
        (_, now), *steps = self._least()
        for kind, amount in enumerate(wanted):
            whole = [(int(limit), free[kind]) for limit, free in steps] or [(0, now[kind])]
            fits = all(
                fits_hole(ceil(amount), ceil(seconds), int(now[kind]), bool(steps), limit, int(left))
                for limit, left in whole
            )
            if amount and not fits:
                return kind, min([now[kind], *(free[kind] for limit, free in steps if limit < seconds)])
        return None

    def _least(self) -> list[tuple[float, Amounts]]:
        """The least that is free until then: only the times at which it grows less."""
        if self._steps is None:
            low = self._free[0]
            self._steps = [(0.0, low)]
            for at, free in zip(self._times[1:], self._free[1:], strict=True):
                less = (min(low[0], free[0]), min(low[1], free[1]), min(low[2], free[2]))
                if less != low:
                    low = less
                    self._steps.append((at, low))
        return self._steps

    def _split(self, at: float) -> int:
        i = bisect_left(self._times, at)
        if i == len(self._times) or self._times[i] != at:
            self._times.insert(i, at)
            self._free.insert(i, self._free[i - 1])
        return i


def _covers(free: Amounts, wanted: Amounts) -> bool:
    return all(want <= 0 or want <= left for want, left in zip(wanted, free, strict=True))


class HomeRows:
    """The rows of one round. `refusal` says whether a guest may start, `take` what was placed."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Plan what the own users of each home site have waiting."""
        self._plans: dict[tuple[str, str], Plan] = {}
        self._waiting: dict[tuple[str, str], int] = {}
        self._planned: dict[str, tuple[tuple[str, str], float, float, Amounts]] = {}
        views = [view for view in snapshot.pools if view.home is not None]
        self._sites = {view.site for view in views}
        for view in views:
            assert view.home is not None
            self._plans[view.site, view.pool.name] = plan = Plan(_whole(view))
            for claim in view.home.running:
                plan.hold(0.0, claim.seconds, _of(claim))
            for claim in view.home.waiting:
                _plan(plan, claim.seconds, _of(claim))
            self._waiting[view.site, view.pool.name] = len(view.home.waiting)
        for task in snapshot.homebound:
            self._reserve(task, [view for view in views if view.site == task.home])

    def are_own(self, task: WaitingTask, site: str) -> bool:
        """Whether the task is one of a site's own, where those come first."""
        return bool(task.home) and task.home == site and site in self._sites

    def refusal(self, task: WaitingTask, view: PoolView, plan: Candidate) -> Failure | None:
        """Why the task may not start at the pool as a guest."""
        if view.home is None or task.home == view.site:
            return None
        key, seconds = (view.site, view.pool.name), _holds(task, plan)
        lacking = self._plans[key].lacking(seconds, _wanted(task))
        if lacking is None:
            return None
        kind, most = lacking
        own = self._waiting[key]
        return Failure(
            Why.HOME_FIRST,
            f"{_show(kind, _wanted(task)[kind])} for {show_duration(seconds)}",
            f"{_show(kind, max(0.0, most))} beside {own} waiting of its own users"
            if own
            else f"{_show(kind, max(0.0, most))} idle, and guests do not queue there",
        )

    def take(self, task: WaitingTask, chosen: Candidate) -> None:
        """The task was placed: a guest holds its room; one of the site's own that goes elsewhere needs none at home."""
        where = (chosen.site, chosen.pool)
        planned = self._planned.get(task.id)
        if planned is not None and planned[0] != where:
            at_home, start, seconds, wanted = self._planned.pop(task.id)
            self._plans[at_home].hold(start, seconds, wanted, sign=-1)
            self._waiting[at_home] -= 1
            planned = None
        if where not in self._plans or planned is not None:
            return
        if task.home == chosen.site:
            assert chosen.run is not None
            _plan(self._plans[where], chosen.run.seconds, _wanted(task))
        else:
            self._plans[where].hold(0.0, _holds(task, chosen), _wanted(task))

    def _reserve(self, task: WaitingTask, views: Sequence[PoolView]) -> None:
        """Plan a task at the pool of its home where it starts soonest."""
        wanted = _wanted(task)
        found = [
            (self._plans[view.site, view.pool.name].earliest(seconds, wanted), view.pool.name, seconds)
            for view in views
            if next(failures(task, view), None) is None
            for seconds in (estimates.run(task, view).seconds,)
        ]
        start, pool, seconds = min(found, default=(inf, "", 0.0))
        if start < inf:
            self._plans[task.home, pool].hold(start, seconds, wanted)
            self._planned[task.id] = (task.home, pool), start, seconds, wanted
            self._waiting[task.home, pool] += 1


def _plan(plan: Plan, seconds: float, wanted: Amounts) -> float:
    start = plan.earliest(seconds, wanted)
    if start < inf:
        plan.hold(start, seconds, wanted)
    return start


def _holds(task: WaitingTask, plan: Candidate) -> float:
    """For how long a guest is expected to keep its room from now on, nine times out of ten: on its way there, held for as long as it may
    be until the other part of its gang is there, and running."""
    assert plan.wait is not None
    assert plan.late_seconds is not None
    held = 0.0 if task.gang is None else task.gang.hold_seconds
    return plan.late_seconds - plan.wait.seconds + held


def _whole(view: PoolView) -> Amounts:
    pool = view.pool
    return (
        float(pool.cpus),
        float(pool.memory_bytes_per_node * pool.nodes),
        float(pool.accelerators_per_node * pool.nodes),
    )


def _of(claim: Claim) -> Amounts:
    return float(claim.cpus), float(claim.memory_bytes), float(claim.accelerators)


def _wanted(task: WaitingTask) -> Amounts:
    demand, nodes = task.demand, task.demand.nodes
    return (
        float(demand.cpus_per_node * nodes),
        float(demand.memory_bytes * nodes),
        float(demand.accelerators.count * nodes),
    )


def _show(kind: int, amount: float) -> str:
    return show_size(int(amount)) if _NAMES[kind] == "memory" else f"{amount:.0f} {_NAMES[kind]}"
