"""Bounds keep their promise over time, and what outlives its prediction is believed to go on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.forecasting.correction import corrected_seconds
from isthmus.forecasting.forecast import Forecast, Source


@pytest.mark.parametrize("target", [0.1, 0.5, 0.95])
def test_the_level_keeps_its_target_when_the_world_changes(target: float) -> None:
    """Outcomes ten times as large from the middle on, bounds from the past only: the share kept is the target."""
    outcomes = np.random.default_rng(1).exponential(size=4000)
    outcomes[2000:] *= 10
    level, kept = AdaptiveLevel(target=target), 0
    for i in range(200, 4000):
        bound = np.quantile(outcomes[i - 200 : i], min(1.0, max(0.0, level.value)))
        covered = bool(outcomes[i] <= bound)
        kept += covered
        level = level.after(covered)
    assert kept / 3800 == pytest.approx(target, abs=0.02)


@given(st.lists(st.booleans(), max_size=400), st.sampled_from([0.05, 0.5, 0.95]))
def test_the_level_stays_within_its_range(outcomes: list[bool], target: float) -> None:
    """However long a bound cannot be kept, the way back is short."""
    level = AdaptiveLevel(target=target)
    for covered in outcomes:
        level = level.after(covered)
        assert -level.rate <= level.value <= 2


def test_a_level_without_sense_is_refused() -> None:
    """A target outside (0, 1) or no rate."""
    with pytest.raises(Invalid):
        AdaptiveLevel(target=1.0)
    with pytest.raises(Invalid):
        AdaptiveLevel(target=0.5, rate=0.0)


@pytest.mark.parametrize(
    ("elapsed", "believed"),
    [(99, 100), (100, 160), (159, 160), (160, 400), (400, 1000), (1000, 1900), (1900, 3000), (3000, 3060)],
)
def test_a_job_that_outlives_its_prediction_gets_the_published_steps(elapsed: int, believed: int) -> None:
    """Predicted 100 s, requested 3,000 s: one minute more, five, fifteen, half an hour, then the request, and beyond."""
    assert corrected_seconds(100, elapsed, 3000) == believed


@given(st.floats(1, 1e5), st.floats(0, 4e5), st.floats(1, 1e5))
def test_what_is_believed_lies_ahead(predicted: float, elapsed: float, requested: float) -> None:
    """A running job is never believed to be over."""
    assert corrected_seconds(min(predicted, requested), elapsed, requested) > elapsed


@settings(max_examples=50)
@given(st.lists(st.floats(-1, 10), min_size=3, max_size=3))
def test_a_forecast_is_in_order_or_refused(quantiles: list[float]) -> None:
    """p10 <= p50 <= p90, none below zero."""
    p10, p50, p90 = quantiles
    if 0 <= p10 <= p50 <= p90:
        assert Forecast(point=p50, p10=p10, p50=p50, p90=p90, source=Source.LEARNED).p90 == p90
    else:
        with pytest.raises(Invalid):
            Forecast(point=1, p10=p10, p50=p50, p90=p90, source=Source.LEARNED)
