"""Receipts of tasks that go nowhere now: why, and the smallest change that would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from isthmus.domain.placement import PASSING, Candidate, Receipt, Snapshot, WaitingTask, Why
from isthmus.placement.feasibility import remedy
from isthmus.placement.gangs import Refusal, refused, remedy_of


def going_nowhere(snapshot: Snapshot, task: WaitingTask, candidates: list[Candidate]) -> Receipt:
    """No pool takes the task now."""
    if any(candidate.why is Why.FULL_NOW for candidate in candidates):
        advice = "It goes as soon as there is room; a higher priority or a smaller demand goes sooner."
    elif any(candidate.why is Why.HOME_FIRST for candidate in candidates):
        advice = "It goes as soon as it fits beside what the site's own users wait for; a shorter or narrower task fits sooner."
    elif any(candidate.why is Why.PATH_FULL for candidate in candidates):
        advice = "It goes as soon as the path has room; or put a copy of its data at another site: `isthmus data cp`."
    elif any(candidate.why is Why.NO_REPLICA for candidate in candidates):
        advice = "It goes when its data is whole somewhere: `isthmus data show` tells where it is."
    elif any(candidate.why is Why.KEPT_APART for candidate in candidates):
        advice = "It goes when another of its group has ended; or join or allow more sites, or leave out `apart`."
    elif any(candidate.why in PASSING for candidate in candidates):
        advice = "It goes when the site is back; or allow other sites."
    else:
        advice = remedy(task, snapshot.pools) or _money_or_time(candidates)
    return Receipt(
        task_id=task.id,
        decided_at=snapshot.now,
        candidates=tuple(candidates),
        remedy=advice,
        standing=task.standing,
    )


def again(receipt: Receipt, task: WaitingTask) -> Receipt:
    """The receipt of a gang's part for that of another gang, which is like it."""
    assert receipt.together is not None
    assert task.gang is not None
    mine = replace(receipt.together, gang=task.gang.id)
    return replace(receipt, task_id=task.id, standing=task.standing, together=mine)


def parts_missing(now: float, task: WaitingTask, lacking: str) -> Receipt:
    """Of a gang whose parts do not all wait for a place yet, nothing is looked at."""
    wanted = "all parts" if task.gang is None else f"all {task.gang.parts} parts"
    why = Refusal(why=Why.PARTS_MISSING, wanted=wanted, offered=lacking)
    return Receipt(
        task_id=task.id,
        decided_at=now,
        candidates=(),
        remedy=remedy_of(why),
        standing=task.standing,
        together=refused(task, why),
    )


def no_pair(now: float, task: WaitingTask, plans: Sequence[Candidate], why: Refusal) -> Receipt:
    """A part that could go somewhere alone, and not together with the other."""
    return Receipt(
        task_id=task.id,
        decided_at=now,
        candidates=tuple(
            replace(c, why=why.why, wanted=why.wanted, offered=why.offered) if c.why is Why.LATER_FINISH else c
            for c in plans
        ),
        remedy=remedy_of(why),
        standing=task.standing,
        together=refused(task, why),
    )


def _money_or_time(candidates: Sequence[Candidate]) -> str:
    late = [c for c in candidates if c.why is Why.MISSES_DEADLINE and c.finish_seconds is not None]
    if late:
        soonest = min(late, key=lambda c: c.finish_seconds or 0.0)
        return f"Move the deadline to {soonest.offered} or later (soonest: {soonest.site}/{soonest.pool})."
    dear = [c for c in candidates if c.why is Why.OVER_BUDGET and c.price is not None]
    if dear:
        cheapest = min(dear, key=lambda c: c.price or Decimal(0))
        return f"Raise the budget to {cheapest.offered} (cheapest: {cheapest.site}/{cheapest.pool})."
    cut_off = next((c for c in candidates if c.why is Why.NO_PATH), None)
    if cut_off is not None:
        return f"Put a copy of its data at {cut_off.site} (`isthmus data cp`), or declare a link to it (`isthmus net`)."
    return ""
