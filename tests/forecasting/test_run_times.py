"""Run times are learned from the past alone, and better than by the last two.

Logs: Parallel Workloads Archive (Feitelson, Tsafrir, Krakov, JPDC 2014); KTH by Lars Malinowsky, CTC by Dan Dwyer and
Steve Hotovy, SDSC-SP2 by Victor Hazlewood.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.domain.errors import Invalid
from isthmus.forecasting.baselines import accuracy, easy_plus_plus, last_two
from isthmus.forecasting.choosing import Training
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.histories import Rows
from isthmus.forecasting.replay import replay_run_times
from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel
from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import bounded_slowdown, simulate

SMALL = Training(first=60, step=100, trees=10, leaves=7, least_in_leaf=10)
ASKS = RunRequest(user="ann", processors=4, requested_seconds=3600, submitted_at=1000)


def ended(run: float, at: float, forecast: Forecast | None = None, **changes: Any) -> RunRecord:
    """A job like ASKS that ran for `run` seconds until `at`."""
    request = replace(ASKS, **{"submitted_at": at - run, **changes})
    return RunRecord(request=request, run_seconds=run, ended_at=at, forecast=forecast)


def busy(model: RunTimeModel, jobs: range) -> list[Forecast]:
    """Jobs of five users whose run time hangs on user and size; forecasts, trained when due."""
    forecasts = []
    for i in jobs:
        request = replace(ASKS, user=f"u{i % 5}", processors=1 + i % 3, submitted_at=1000.0 * i)
        forecasts.append(model.predict(request))
        run = 60.0 * (1 + i % 5) * (1 + i % 3) + i % 7
        model.observe(RunRecord(request=request, run_seconds=run, ended_at=1000 * i + run, forecast=forecasts[-1]))
        if model.due:
            model.train()
    return forecasts


@pytest.mark.parametrize(("name", "published"), [("KTH-SP2", 0.570), ("CTC-SP2", 0.577), ("SDSC-SP2", 0.597)])
def test_the_last_two_give_the_published_accuracy(traces: Path, name: str, published: float) -> None:
    """The baseline is the one others are measured against, to the last digit that is known of it."""
    log = read_swf(traces / "pwa" / f"{name}.sc15-rebuilt.swf.gz")
    waits = np.load(traces / "reference-sc15" / f"{name}.waits.npz")["EASY"]
    assert round(float(accuracy(log.run_seconds, last_two(log, waits)).mean()), 3) == published


@pytest.mark.parametrize(("name", "processors", "published"), [("KTH-SP2", 100, 62.8569), ("SDSC-SP2", 128, 65.0636)])
def test_easy_plus_plus_is_that_of_sc15(traces: Path, name: str, processors: int, published: float) -> None:
    """Forecasts that hang on the schedule they make, in the twin: the mean bounded slowdown to four decimals.

    Gaussier, Glesser, Reis, Trystram, SC'15: predictor "tsafrir", correction "reqtime".
    """
    log = read_swf(traces / "pwa" / f"{name}.sc15-rebuilt.swf.gz")
    first = simulate(log, processors, "easy")
    waits = easy_plus_plus(log, first, lambda given: simulate(log, processors, "easy-sjbf", given))
    assert round(float(bounded_slowdown(waits, log.run_seconds).mean()), 4) == published


def test_it_beats_the_last_two_and_its_quantiles_hold(traces: Path) -> None:
    """On the first months of KTH, when little is known: nearer than the last two; each quantile holds."""
    log = read_swf(traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz")
    waits = np.load(traces / "reference-sc15" / "KTH-SP2.waits.npz")["EASY"][:4000]
    log = log.where(np.arange(len(log)) < 4000)
    got = replay_run_times(log, waits, RunTimeModel(Training(trees=60, leaves=31)))
    better = (
        accuracy(log.run_seconds, got.column("point")).mean() - accuracy(log.run_seconds, last_two(log, waits)).mean()
    )
    assert better >= 0.015
    assert (got.estimates() <= log.requested_seconds).all()
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
        assert (log.run_seconds <= got.column(name)).mean() == pytest.approx(share, abs=0.02)


def test_who_nothing_is_known_of_is_forecast_as_declared() -> None:
    """The cold start says what the job requests, and that it is a declaration."""
    forecast = RunTimeModel().predict(ASKS)
    assert (forecast.point, forecast.p90, forecast.source, forecast.error) == (3600, 3600, Source.DECLARED, None)


def test_one_ended_job_is_enough_to_learn() -> None:
    """The second job of a user is expected to run as long as the first, and its source is no longer a declaration."""
    model = RunTimeModel()
    model.observe(ended(120, 500))
    forecast = model.predict(ASKS)
    assert forecast.source is Source.LEARNED
    assert forecast.point == pytest.approx(120)


def test_similar_commands_count_across_requests() -> None:
    """Of a user's two programs the one of the same command is taken, though the other ended later."""
    model = RunTimeModel()
    for k in range(5):
        model.observe(ended(100, 200 + k, command="short", requested_seconds=3600))
        model.observe(ended(3000, 210 + k, command="long", requested_seconds=3600))
    assert model.predict(replace(ASKS, command="short")).point == pytest.approx(100)
    assert model.predict(replace(ASKS, command="long")).point == pytest.approx(3000)


def test_what_ended_after_the_submission_changes_nothing() -> None:
    """Strictly causal: jobs still running at the submission are as if they were not there."""
    model = RunTimeModel(SMALL)
    busy(model, range(100))
    request = replace(ASKS, user="u1", submitted_at=100_000.0)
    before = model.predict(request)
    model.observe(ended(77, 100_001, user="u1"))
    model.observe(ended(99, 200_000, user="u2"))
    assert model.predict(request) == before
    assert model.predict(replace(request, submitted_at=200_001.0)) != before


def test_a_restored_state_goes_on_as_if_nothing_had_happened() -> None:
    """The state is JSON; the restored model gives the same forecasts, also after it trains again."""
    model = RunTimeModel(SMALL)
    busy(model, range(150))
    again = RunTimeModel.from_state(json.loads(json.dumps(model.state())))
    assert busy(model, range(150, 320)) == busy(again, range(150, 320))


def test_the_error_is_that_of_its_own_forecasts() -> None:
    """The published error is the mean over the learned forecasts so far; before the first there is none."""
    model = RunTimeModel(SMALL)
    forecasts = busy(model, range(300))
    runs = [60.0 * (1 + i % 5) * (1 + i % 3) + i % 7 for i in range(299)]
    learned = [(f, run) for f, run in zip(forecasts, runs, strict=False) if f.source is Source.LEARNED]
    errors = [1 - min(f.point, run) / max(f.point, run) for f, run in learned]
    assert forecasts[0].error is None
    assert forecasts[-1].error == pytest.approx(np.mean(errors))
    assert forecasts[-1].point == pytest.approx(60 * 5 * 3, rel=0.05)


def test_rows_are_bounded_and_the_latest_stay() -> None:
    """A full table forgets its older half."""
    rows = Rows(16)
    for k in range(100):
        rows.add(np.full(9, float(k)))
        assert rows.count <= 16
        assert rows.table[rows.count - 1, 0] == k


def test_a_request_without_processors_is_refused() -> None:
    """Nothing is forecast for a job that asks for nothing."""
    with pytest.raises(Invalid):
        replace(ASKS, processors=0)
    with pytest.raises(Invalid):
        replace(ASKS, requested_seconds=0)
