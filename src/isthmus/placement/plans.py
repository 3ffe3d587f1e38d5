"""The best few plans of one task, from the receipt of its decision: what `--dry-run` shows."""

from __future__ import annotations

import math

from isthmus.domain.placement import Candidate, Estimate, Plan, Receipt, WaitingTask, Why
from isthmus.placement.preference import order, yardstick
from isthmus.placement.spreading import parts_of

SHOWN = 3
_ABLE = frozenset(
    {
        Why.CHOSEN,
        Why.LATER_FINISH,
        Why.DEARER,
        Why.MORE_CARBON,
        Why.WORSE_BY_WEIGHTS,
        Why.NEEDED_MORE,
        Why.FULL_NOW,
        Why.HOME_FIRST,
        Why.FAILED_HERE,
    }
)


def best_plans(task: WaitingTask, receipt: Receipt, count: int = SHOWN) -> tuple[Plan, ...]:
    """The chosen plan, then the others that are possible now or soon, in the order in which the task prefers them."""
    by = yardstick(task, receipt.candidates)
    able = [one for one in receipt.candidates if one.why in _ABLE and one.finish_seconds is not None]
    able.sort(key=lambda one: (one.why is not Why.CHOSEN, *order(task, one, by), one.site, one.pool))
    return tuple(plan_of(one) for one in able[:count])


def plan_of(one: Candidate) -> Plan:
    """A candidate that was estimated, with the quantiles of its end."""
    assert one.wait is not None
    assert one.transfer is not None
    assert one.run is not None
    named = parts_of(one)
    parts = named.values()
    middle = sum(part.seconds for part in parts)
    low = middle - math.hypot(*(_below(part) for part in parts))
    high = middle + math.hypot(*(part.late - part.seconds for part in parts))
    if one.finish is not None:
        named["finish"] = one.finish
        low, middle, high = one.finish.p10 or 0.0, one.finish.p50 or 0.0, one.finish.late
    return Plan(
        site=one.site,
        pool=one.pool,
        why=one.why,
        finish_p10_seconds=max(0.0, low),
        finish_p50_seconds=middle,
        finish_p90_seconds=high,
        sources={name: part.source for name, part in named.items()},
        price=one.price,
        energy_kwh=one.energy_kwh,
        carbon_grams=one.carbon_grams,
        transfers=one.transfers,
    )


def _below(part: Estimate) -> float:
    return 0.0 if part.p10 is None else max(0.0, part.seconds - part.p10)
