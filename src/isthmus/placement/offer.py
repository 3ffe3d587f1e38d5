"""Whether a deadline and a budget can be kept at all: a task that no pool could serve in time and for that money, even
without a queue, is refused at once, with the nearest offer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from isthmus.domain.errors import Invalid
from isthmus.domain.placement import PASSING, PoolView, Snapshot, WaitingTask
from isthmus.placement import estimates
from isthmus.placement.carrying import Blocked, Traffic
from isthmus.placement.feasibility import failures


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The task, or the parts of a gang, at pools that have nothing else to do: the end that can be promised (seconds since 1970), the
    price."""

    views: tuple[PoolView, ...]
    end: float
    price: Decimal

    def __str__(self) -> str:
        end = datetime.fromtimestamp(self.end, UTC).isoformat(timespec="seconds")
        return f"{end} at {' and '.join(f'{view.site}/{view.pool.name}' for view in self.views)} for {self.price}"


def impossible(snapshot: Snapshot, task: WaitingTask, *peers: WaitingTask) -> Invalid | None:
    """Why deadline and budget cannot be kept, naming the nearest that can; None when they can, or when no pool fits the
    task anyway: that is for `why` to say, and may change when a site joins. With `peers`, the other parts of its gang: each at another site,
    in the time and for the money that the least generous of them names."""
    parts = (task, *peers)
    deadline = min((one.objective.deadline for one in parts if one.objective.deadline is not None), default=None)
    budget = min((one.objective.budget for one in parts if one.objective.budget is not None), default=None)
    if deadline is None and budget is None:
        return None
    traffic = Traffic(snapshot.roads, snapshot.now, held=())
    plans = _plans(snapshot, task, traffic)
    for peer in peers:
        plans = [_both(one, other) for one in plans for other in _plans(snapshot, peer, traffic) if _apart(one, other)]
    until = deadline.timestamp() if deadline is not None else float("inf")
    in_time = [plan for plan in plans if plan.end <= until]
    within = [plan for plan in plans if budget is None or plan.price <= budget]
    if not plans or any(plan in within for plan in in_time):
        return None
    soonest = min(plans, key=lambda plan: plan.end)
    cheapest = min(plans, key=lambda plan: (plan.price, plan.end))
    if not in_time:
        shorter = "" if task.run is not None else ", or ask for a shorter walltime"
        return Invalid(
            "objective.deadline",
            f"cannot be kept: the soonest end that can be promised is {soonest}.",
            remedy=f"Move it to then or later{shorter}.",
        )
    if not within:
        return Invalid("objective.budget", "is too small.", remedy=f"The cheapest: {cheapest}.")
    return Invalid(
        "objective.budget",
        "and the deadline cannot be kept together.",
        remedy=f"In time: {min(in_time, key=lambda plan: plan.price)}. Within the budget: "
        f"{min(within, key=lambda plan: plan.end)}.",
    )


def _plans(snapshot: Snapshot, task: WaitingTask, traffic: Traffic) -> list[_Plan]:
    return [
        plan
        for view in snapshot.pools
        if all(failure.why in PASSING for failure in failures(task, view))
        for plan in (_plan(snapshot.now, task, view, traffic),)
        if plan is not None
    ]


def _apart(one: _Plan, other: _Plan) -> bool:
    return not {view.site for view in one.views} & {view.site for view in other.views}


def _both(one: _Plan, other: _Plan) -> _Plan:
    return _Plan(views=one.views + other.views, end=max(one.end, other.end), price=one.price + other.price)


def _plan(now: float, task: WaitingTask, view: PoolView, traffic: Traffic) -> _Plan | None:
    brought = traffic.bring(task, view)
    if isinstance(brought, Blocked):
        return None
    run = estimates.run(task, view)
    price = estimates.price(task, view, run.seconds, now + brought.estimate.seconds) + brought.price
    return _Plan(views=(view,), end=now + brought.estimate.seconds + run.late, price=price)
