"""Intervals of predicted ends: conformal over what came, the unfinished counted as censored, wide before anything is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from isthmus.domain.placement import Estimate, Snapshot
from isthmus.placement import best_plans, decide
from isthmus.placement.spreading import Seen, quantile, score, spread_of, spread_over, widths
from tests.placement.test_round import NOW, pool, waiting


def test_quantiles_of_ended_scores_cover_the_next_as_often_as_asked() -> None:
    """The finite-sample correction: of 20 exchangeable scores the 90 % quantile holds for the next nine times out of ten."""
    rng = random.Random(4)
    held = low = 0
    for _ in range(4000):
        known = [Seen(rng.gauss(0, 1)) for _ in range(20)]
        following = rng.gauss(0, 1)
        held += following <= quantile(known, 0.9)
        low += following <= quantile(known, 0.1)
    assert held / 4000 == pytest.approx(0.9, abs=0.02)
    assert low / 4000 == pytest.approx(0.1, abs=0.02)


def test_what_goes_on_is_not_taken_to_have_ended() -> None:
    """Half of the tasks have ended early, the others go on: the median is not that of the early ones."""
    known = [Seen(float(n)) for n in range(10)] + [Seen(9.5, ended=False)] * 10
    assert quantile([one for one in known if one.ended], 0.5) <= 5
    assert quantile(known, 0.6) > 9


def test_what_counts_more_decides() -> None:
    """Old ends around 10 of little weight, new ones around 0: the interval is that of the new ones. Weights are relative."""
    rng = random.Random(5)
    new = [Seen(rng.gauss(0, 1)) for _ in range(200)]
    old = [Seen(rng.gauss(10, 1), weight=0.01) for _ in range(200)]
    assert quantile([*old, *new], 0.9) == pytest.approx(quantile(new, 0.9), abs=0.3)
    heavy = [replace(one, weight=7.0) for one in new]
    assert quantile(heavy, 0.3) == pytest.approx(quantile(new, 0.3))


def test_an_interval_begins_as_the_parts_say_and_becomes_what_was_seen() -> None:
    """Before any end about one width to each side, declared; after many ends all at 5 to 6 widths, that."""
    cold = spread_of((), declared=False)
    assert cold.source == "declared"
    assert -2 <= cold.low <= -1
    assert cold.middle == pytest.approx(0, abs=0.2)
    assert 1 <= cold.high <= 3
    some = [Seen(5 + number / 3) for number in range(3)]
    assert spread_of(some, declared=False).source == "declared"
    assert cold.high < spread_of(some, declared=False).high
    many = spread_of([Seen(5 + number / 100) for number in range(100)], declared=False, first=0.05)
    assert many.source == "learned"
    assert many.middle == pytest.approx(5.5, abs=0.1)
    assert many.high == pytest.approx(5.95, abs=0.1)


def test_scores_are_in_widths_of_their_own_side() -> None:
    """10 s late of a task whose end may be 20 s late counts half."""
    middle, below, above = widths([Estimate(seconds=100.0, source="learned", p10=60.0, p90=120.0)])
    assert (middle, below, above) == (100.0, 40.0, 20.0)
    assert score(110.0, middle, below, above) == 0.5
    assert score(80.0, middle, below, above) == -0.5


def test_a_plan_shows_the_interval_and_says_when_nothing_is_known() -> None:
    """Cold: wide, and the source is `declared`."""
    run = Estimate(seconds=100.0, source="learned", p10=70.0, p90=140.0)
    cold = spread_of((), declared=False)
    view = replace(pool("a", free_cpus=16), spread=cold)
    task = replace(waiting(), run=run)
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task]).receipts
    [plan] = best_plans(task, receipt)
    assert plan.sources["finish"] == "declared"
    assert plan.finish_p10_seconds == pytest.approx(102.0 + cold.low * 30)
    assert plan.finish_p50_seconds == pytest.approx(102.0 + cold.middle * (40 if cold.middle > 0 else 30))
    assert plan.finish_p90_seconds == pytest.approx(102.0 + cold.high * 40)
    assert spread_over(receipt.candidates[0], cold) == receipt.candidates[0].finish


def test_where_only_the_limit_is_known_a_task_may_end_at_any_time_before() -> None:
    """Cold, by the limit: from at once to somewhat beyond, and most likely long before."""
    view = replace(pool("a", free_cpus=16), spread_declared=spread_of((), declared=True))
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [waiting()]).receipts
    finish = receipt.candidates[0].finish
    assert finish is not None
    assert finish.p10 == 0.0
    assert 0.05 * 602 < (finish.p50 or 0) < 0.5 * 602
    assert 602 < finish.late < 1.5 * 602
