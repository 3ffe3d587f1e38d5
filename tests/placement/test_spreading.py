"""Intervals of predicted ends: conformal over what came, the unfinished counted as censored, wide before anything is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from isthmus.domain.placement import Estimate, Snapshot
from isthmus.placement import best_plans, decide
from isthmus.placement.spreading import COLD, quantile, score, spread_over, widths
from tests.placement.test_round import NOW, pool, waiting


def test_quantiles_of_ended_scores_cover_the_next_as_often_as_asked() -> None:
    """The finite-sample correction: of 20 exchangeable scores the 90 % quantile holds for the next nine times out of ten."""
    rng = random.Random(4)
    held = low = 0
    for _ in range(4000):
        known = [(rng.gauss(0, 1), True) for _ in range(20)]
        following = rng.gauss(0, 1)
        held += following <= quantile(known, 0.9)
        low += following <= quantile(known, 0.1)
    assert held / 4000 == pytest.approx(0.9, abs=0.02)
    assert low / 4000 == pytest.approx(0.1, abs=0.02)


def test_what_goes_on_is_not_taken_to_have_ended() -> None:
    """Half of the tasks have ended early, the others go on: the median is not that of the early ones."""
    known = [(float(n), True) for n in range(10)] + [(9.5, False)] * 10
    assert quantile([one for one in known if one[1]], 0.5) <= 5
    assert quantile(known, 0.6) > 9


def test_scores_are_in_widths_of_their_own_side() -> None:
    """10 s late of a task whose end may be 20 s late counts half."""
    middle, below, above = widths([Estimate(seconds=100.0, source="learned", p10=60.0, p90=120.0)])
    assert (middle, below, above) == (100.0, 40.0, 20.0)
    assert score(110.0, middle, below, above) == 0.5
    assert score(80.0, middle, below, above) == -0.5


def test_a_plan_shows_the_interval_and_says_when_nothing_is_known() -> None:
    """Cold: wide, and the source is `declared`."""
    run = Estimate(seconds=100.0, source="learned", p10=70.0, p90=140.0)
    view = replace(pool("a", free_cpus=16), spread=COLD)
    task = replace(waiting(), run=run)
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task]).receipts
    [plan] = best_plans(task, receipt)
    assert plan.sources["finish"] == "declared"
    assert plan.finish_p10_seconds == 0.0
    assert plan.finish_p50_seconds == pytest.approx(102.0)
    assert plan.finish_p90_seconds == pytest.approx(102.0 + 9 * 40)
    assert spread_over(receipt.candidates[0], COLD) == receipt.candidates[0].finish
