"""Queue wait of a job at one pool: learned online from the site's own history and its visible queue at submission.

The queue is played forward under the users' requests, under the run times believed, and under samples of them; the
site's own forecast, where it gives one, is one candidate more. Trees choose the point that most often is close, and
bound the wait; the bounds adapt so that they hold as often as they say. One model for each pool.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.forecasting.bounds import Bound
from isthmus.forecasting.choosing import Chooser, Training
from isthmus.forecasting.forecast import Forecast, MeanError, Source
from isthmus.forecasting.packing import pack, unpack
from isthmus.forecasting.queueview import QueueView

SAMPLES, PENDING, RECENT = 16, 20_000, 8
CLOSE_SECONDS, CLOSE_SHARE = 60.0, 0.2
TARGETS = (0.1, 0.5, 0.9, 0.95)
SCALES = (0.5, 0.7, 1.3, 1.7, 2.5)
MARGIN = 0.05  # by which a choice must promise more than the queue played forward
TRAINING = Training(first=1000, rows=150_000, trees=80, leaves=15, least_in_leaf=200)
JOB_FEATURES = 27
CHOICE_FEATURES = JOB_FEATURES + 7


def close(predicted: NDArray[np.float64] | float, actual: float) -> NDArray[np.bool_]:
    """Whether predictions are within the larger of one minute and 20 % of the actual wait, in seconds."""
    near: NDArray[np.bool_] = np.abs(np.asarray(predicted) - actual) <= max(CLOSE_SECONDS, CLOSE_SHARE * actual)
    return near


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitRequest:
    """A job about to be submitted; seconds since 1970 in UTC, and what is believed of its run time."""

    processors: int
    requested_seconds: int
    submitted_at: float
    run: Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What a forecast was made from, kept until the job starts."""

    forecast: Forecast
    row: NDArray[np.float32]
    choices: NDArray[np.float32]
    values: NDArray[np.float64]
    bases: tuple[float, ...]
    group: int
    played: float


class WaitModel:
    """`predict` changes nothing. `submitted` predicts and remembers; `started` learns; `dropped` forgets a job.

    When `due`, the owner calls `train`, outside an event loop; until it returns, only `predict` may be called. Memory is bounded; a state is exact.
    """

    def __init__(self, training: Training | None = None) -> None:
        """An empty model: its forecasts come from playing the queue forward."""
        self._training = training or TRAINING
        self._chooser = Chooser(CHOICE_FEATURES, self._training)
        self._bounds = [Bound(JOB_FEATURES, target, self._training) for target in TARGETS]
        self._pending: OrderedDict[str, _Evidence] = OrderedDict()
        self._recent: list[tuple[float, float, float]] = []  # log(1 + wait), log(1 + played), share of the pool
        self._bias = 0.0
        self._error = MeanError()

    def predict(self, request: WaitRequest, view: QueueView) -> Forecast:
        """The wait in seconds. Its error is the share of such forecasts that were not close so far (see `close`)."""
        return self._evidence(request, view).forecast

    def submitted(self, key: str, request: WaitRequest, view: QueueView) -> Forecast:
        """As `predict`, and the outcome of the job `key` will be told by `started` or `dropped`."""
        evidence = self._evidence(request, view)
        self._pending[key] = evidence
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)
        return evidence.forecast

    def dropped(self, key: str) -> None:
        """The job left the queue without starting."""
        self._pending.pop(key, None)

    def forget(self) -> None:
        """Nothing more will be told of the jobs that are pending."""
        self._pending.clear()

    def awaits(self, key: str) -> bool:
        """Whether the job is pending: its start will teach something."""
        return key in self._pending

    def started(self, key: str, wait_seconds: float) -> None:
        """Learn from a job that started; one that is not pending teaches nothing."""
        evidence = self._pending.pop(key, None)
        if evidence is None:
            return
        hits = close(evidence.values, wait_seconds).astype(np.float64)
        if len(hits) > 1:
            self._chooser.add(evidence.choices, hits)
        outcome = math.log1p(wait_seconds)
        forecast = evidence.forecast
        promised = (forecast.p10, forecast.p50, forecast.p90, forecast.p95 or 0.0)
        for bound, base, promise in zip(self._bounds, evidence.bases, promised, strict=True):
            # The half second: a bound is a float in log seconds, a wait is whole.
            bound.observe(evidence.row, evidence.group, base, math.log1p(promise + 0.5), outcome)
        self._error = self._error.after(float(not close(forecast.point, wait_seconds)))
        self._bias += 0.05 * (outcome - evidence.played - self._bias)
        self._recent = [*self._recent[1 - RECENT :], (outcome, evidence.played, float(evidence.row[12]))]

    @property
    def due(self) -> bool:
        """Whether it would learn from training now."""
        return self._chooser.due

    def train(self) -> None:
        """Grow new trees; takes up to seconds of one processor."""
        self._chooser.train()
        for bound in self._bounds:
            bound.train()

    def _evidence(self, request: WaitRequest, view: QueueView) -> _Evidence:
        plan, pointed, sampled = view.starts(
            request.processors, request.requested_seconds, request.run, SAMPLES, int(request.submitted_at)
        )
        row = self._row(request, view, plan, pointed, sampled)
        group = int(plan > 0)
        unlearned = np.log1p(np.quantile(sampled, TARGETS))
        bases = tuple(bound.base(row, float(start)) for bound, start in zip(self._bounds, unlearned, strict=True))
        p10, p50, p90, p95 = (
            max(0.0, math.expm1(bound.corrected(base, group))) for bound, base in zip(self._bounds, bases, strict=True)
        )
        p10, p90 = min(p10, p50), max(p50, p90)
        median = max(0.0, math.expm1(bases[1]))
        values, choices = _choices(row, view, plan, pointed, sampled, median)
        point = float(pointed)
        if self._chooser.trained:
            scores = self._chooser.scores(choices)
            best = int(np.argmax(scores))
            if scores[best] > scores[0] + MARGIN:
                point = float(values[best])
        learned = self._chooser.trained
        return _Evidence(
            forecast=Forecast(
                point=point,
                p10=p10,
                p50=p50,
                p90=p90,
                p95=max(p90, p95),
                source=Source.LEARNED if learned else request.run.source,
                error=self._error.value,
            ),
            row=row,
            choices=choices,
            values=values,
            bases=bases,
            group=group,
            played=math.log1p(pointed),
        )

    def _row(
        self, request: WaitRequest, view: QueueView, plan: int, pointed: int, sampled: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        pool = view.processors
        ahead = int(view.queued.sum())
        site = math.nan if view.site_forecast_seconds is None else math.log1p(view.site_forecast_seconds)
        recent = self._recent[-1] if self._recent else (math.nan, math.nan, math.nan)
        mean = float(np.mean([wait for wait, _, _ in self._recent])) if self._recent else math.nan
        believed = np.minimum(view.queued_belief[:, 0], view.queued_requested)
        return np.array(
            [
                math.log1p(plan),
                math.log1p(pointed),
                *np.log1p(np.quantile(sampled, (0.1, 0.25, 0.5, 0.75, 0.9))),
                site,
                len(view.queued),
                math.log1p(float(view.queued @ view.queued_requested) / pool),
                math.log1p(float(view.running @ view.promised_ends) / pool),
                1 - int(view.running.sum()) / pool,
                request.processors / pool,
                math.log(request.requested_seconds),
                math.log(max(1.0, request.run.point)),
                request.submitted_at % 86400 / 3600,
                request.submitted_at // 86400 % 7,
                *recent,
                mean,
                self._bias,
                math.log1p(float(view.queued @ believed) / pool),
                ahead / pool,
                float((view.queued <= request.processors).sum()),
                len(view.running),
                float((view.queued_requested <= request.requested_seconds).sum()),
            ],
            dtype=np.float32,
        )

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON values."""
        return {
            "training": asdict(self._training),
            "chooser": self._chooser.state(),
            "bounds": [bound.state() for bound in self._bounds],
            "recent": self._recent,
            "bias": self._bias,
            "error": asdict(self._error),
            "pending": {key: _kept(evidence) for key, evidence in self._pending.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> WaitModel:
        """A model that goes on exactly as the one that gave the state would."""
        model = cls(Training(**state["training"]))
        model._chooser.restore(state["chooser"])
        for bound, kept in zip(model._bounds, state["bounds"], strict=True):
            bound.restore(kept)
        model._recent = [(wait, played, share) for wait, played, share in state["recent"]]
        model._bias, model._error = state["bias"], MeanError(**state["error"])
        model._pending = OrderedDict((key, _evidence(kept)) for key, kept in state["pending"].items())
        return model


def _choices(
    row: NDArray[np.float32], view: QueueView, plan: int, pointed: int, sampled: NDArray[np.int64], median: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Candidate waits in seconds, and a row of CHOICE_FEATURES for each."""
    quantiles = np.quantile(sampled, (0.1, 0.25, 0.5, 0.75, 0.9))
    found: list[tuple[float, int]] = [(float(pointed), 0), (float(plan), 1), (median, 2), (0.0, 3)]
    if view.site_forecast_seconds is not None:
        found.append((view.site_forecast_seconds, 4))
    found += [(float(value), 5 + k) for k, value in enumerate(quantiles)]
    found += [(pointed * scale, 10 + k) for k, scale in enumerate(SCALES)]
    kept: list[tuple[float, int]] = []
    for value, kind in found:
        if all(abs(value - other) > max(15.0, 0.05 * other) for other, _ in kept):
            kept.append((value, kind))
    values = np.array([value for value, _ in kept])
    logs = np.log1p(values)
    width = np.maximum(CLOSE_SECONDS, CLOSE_SHARE * values)
    own = np.empty((len(kept), CHOICE_FEATURES - len(row)), np.float32)
    own[:, 0] = [kind for _, kind in kept]
    own[:, 1] = logs
    own[:, 2] = logs - row[0]
    own[:, 3] = logs - row[1]
    own[:, 4] = logs - row[4]
    own[:, 5] = (np.abs(values[:, None] - sampled[None, :]) <= width[:, None]).mean(axis=1)
    own[:, 6] = logs - math.log1p(median)
    return values, np.hstack([np.broadcast_to(row, (len(kept), len(row))), own])


def _kept(evidence: _Evidence) -> dict[str, Any]:
    forecast = asdict(evidence.forecast)
    arrays = {name: pack(getattr(evidence, name)) for name in ("row", "choices", "values")}
    return {"forecast": forecast, "bases": evidence.bases, "group": evidence.group, "played": evidence.played, **arrays}


def _evidence(kept: dict[str, Any]) -> _Evidence:
    forecast = Forecast(**{**kept["forecast"], "source": Source(kept["forecast"]["source"])})
    arrays = {name: unpack(kept[name]) for name in ("row", "choices", "values")}
    return _Evidence(
        forecast=forecast, bases=tuple(kept["bases"]), group=kept["group"], played=kept["played"], **arrays
    )
