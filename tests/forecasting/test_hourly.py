"""Hours ahead: better than yesterday's same hour and than the last hour, and honest before anything was learned.

Carbon intensity: Electricity Maps (ODbL), 2022.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from isthmus.domain.errors import Invalid
from isthmus.forecasting.choosing import Training
from isthmus.forecasting.forecast import Source
from isthmus.forecasting.hourly import HourlyModel

SMALL = Training(first=100, step=200, trees=20, leaves=7, objective="l1", least_in_leaf=20)


def wave(hour: int) -> float:
    """A series with a day and a week in it."""
    return 100 + 30 * np.sin(hour * 2 * np.pi / 24) + 10 * (hour // 24 % 7 > 4)


def test_it_beats_persistence_and_yesterday_six_hours_ahead(traces: Path) -> None:
    """California, from the third week to the tenth, mean absolute error; four of five hours within p10 and p90."""
    with gzip.open(traces / "carbon" / "US-CAL-CISO_2022_hourly.csv.gz", "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))[:1700]
    series = np.array([float(row["Carbon Intensity gCO₂eq/kWh (direct)"]) for row in rows])
    model = HourlyModel(horizon=6)
    ours, inside = [], []
    hours = range(336, 1694)
    for hour in range(1694):
        model.observe(hour, float(series[hour]))
        if model.due:
            model.train()
        if hour >= 336:
            forecast = model.predict(6)
            ours.append(abs(forecast.point - series[hour + 6]))
            inside.append(forecast.p10 <= series[hour + 6] <= forecast.p90)
    at = np.array(hours)
    yesterday = np.abs(series[at + 6 - 24] - series[at + 6]).mean()
    persistence = np.abs(series[at] - series[at + 6]).mean()
    assert np.mean(ours) < 0.9 * yesterday
    assert np.mean(ours) < 0.5 * persistence
    assert np.mean(inside) == pytest.approx(0.8, abs=0.03)


def test_before_the_first_hour_it_says_what_was_declared() -> None:
    """Declared, then measured, then learned."""
    model = HourlyModel(declared=250, training=SMALL)
    assert (model.predict(1).point, model.predict(1).source) == (250, Source.DECLARED)
    model.observe(10, 300)
    assert (model.predict(24).point, model.predict(24).source) == (300, Source.MEASURED)
    for hour in range(11, 400):
        model.observe(hour, wave(hour))
        if model.due:
            model.train()
    forecast = model.predict(5)
    assert forecast.source is Source.LEARNED
    assert forecast.point == pytest.approx(wave(404), rel=0.1)
    assert forecast.error is not None


def test_a_gap_and_a_horizon_too_far_are_refused() -> None:
    """A series with holes would be learned wrongly."""
    model = HourlyModel(training=SMALL)
    model.observe(1, 5)
    with pytest.raises(Invalid, match="3 after 1"):
        model.observe(3, 5)
    with pytest.raises(Invalid):
        model.predict(25)
    with pytest.raises(Invalid):
        HourlyModel(horizon=49)
    with pytest.raises(Invalid):
        HourlyModel(horizon=0)


def test_a_restored_state_goes_on_as_if_nothing_had_happened() -> None:
    """The state is JSON; forecasts and later learning are the same."""
    model = HourlyModel(training=SMALL)
    for hour in range(350):
        model.observe(hour, wave(hour))
        if model.due:
            model.train()
    again = HourlyModel.from_state(json.loads(json.dumps(model.state())))
    for hour in range(350, 700):
        for kept in (model, again):
            kept.observe(hour, wave(hour) + hour % 5)
            if kept.due:
                kept.train()
        if hour % 50 == 0:
            assert model.predict(7) == again.predict(7)


def test_two_days_ahead_and_never_above_what_is_possible() -> None:
    """A load of at most 1 that has a day in it, from its mean back: near two days ahead, no bound above 1, and its
    error is told by hours ahead; a restored state goes on alike."""
    model = HourlyModel(horizon=48, training=SMALL, start="mean", highest=1.0)
    assert model.off(48) is None
    load = [min(1.0, wave(hour) / 110) for hour in range(800)]
    ours = []
    for hour in range(748):
        model.observe(hour, load[hour])
        if model.due:
            model.train()
        if hour > 500:
            found = model.predict(48)
            assert 0 <= found.p10 <= found.p50 <= found.p90 <= 1
            ours.append(abs(found.point - load[hour + 48]))
    assert model.predict(30).source is Source.LEARNED
    assert np.mean(ours) < 0.05
    shifted = [abs(load[hour] - load[hour + 30]) for hour in range(500, 700)]
    assert (model.off(30) or 1.0) < 0.5 * np.mean(shifted)  # of the last 500 misses, half from before there were trees
    again = HourlyModel.from_state(json.loads(json.dumps(model.state())))
    assert again.predict(48) == model.predict(48)
