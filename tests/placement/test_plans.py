"""The best plans of a dry run: in the task's order, the chosen one first, with their spread."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from isthmus.domain.placement import Estimate, Snapshot, Why
from isthmus.domain.task import Goal, Objective
from isthmus.placement import best_plans, decide
from tests.placement.test_roads import BOTH, reads
from tests.placement.test_round import NOW, pool, waiting


def test_three_plans_of_four_the_chosen_first_then_as_the_task_prefers() -> None:
    """By price for `cheapest`; a pool that can never take it is no plan."""
    views = [
        pool(site, free_cpus=16, price_per_cpu_hour=Decimal(price))
        for site, price in zip("abcd", (4, 2, 3, 1), strict=True)
    ]
    views.append(pool("down", up=False))
    task = waiting(objective=Objective(goal=Goal.CHEAPEST))
    [receipt] = decide(Snapshot(now=NOW, pools=tuple(views)), [task]).receipts
    plans = best_plans(task, receipt)
    assert [plan.site for plan in plans] == ["d", "b", "c"]
    assert [plan.why for plan in plans] == [Why.CHOSEN, Why.DEARER, Why.DEARER]


def test_spreads_of_independent_parts_add_up_as_their_squares() -> None:
    """Transfer 10.1 s (2.5 later at one in ten), run 100 s (40 later): 40.1 later in all, not 42.5."""
    run = Estimate(seconds=100.0, source="learned", p10=70.0, p90=140.0)
    task = replace(reads(), run=run)
    [receipt] = decide(Snapshot(now=NOW, pools=(pool("a", free_cpus=16),), roads=BOTH), [task]).receipts
    [plan] = best_plans(task, receipt)
    assert plan.finish_p50_seconds == pytest.approx(112.1)
    assert plan.finish_p90_seconds - plan.finish_p50_seconds == pytest.approx((40**2 + 2.5**2) ** 0.5)
    assert plan.finish_p50_seconds - plan.finish_p10_seconds == pytest.approx(30.0)
    assert plan.sources == {"wait": "measured", "transfer": "measured", "run": "learned"}
    assert plan.transfers[0].links == ("fat",)


def test_a_task_that_can_go_nowhere_has_no_plan() -> None:
    """Nothing is offered that cannot be."""
    task = waiting()
    [receipt] = decide(Snapshot(now=NOW, pools=(pool(up=False),)), [task]).receipts
    assert best_plans(task, receipt) == ()


def test_preemptible_tasks_pay_their_part_of_the_price() -> None:
    """A quarter of 2 for each processor hour."""
    view = replace(pool("a", free_cpus=16, price_per_cpu_hour=Decimal(2)), preemptible_share=Decimal("0.25"))
    prices = []
    for preemptible in (False, True):
        task = waiting(preemptible=preemptible, run=Estimate(seconds=3600.0, source="learned"))
        [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task]).receipts
        prices.append(receipt.candidates[0].price)
    assert prices == [Decimal(2), Decimal("0.5")]
