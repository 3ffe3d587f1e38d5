"""Run time of a job: learned online from the jobs that ended before it was submitted, by user, command, pool and request.

Every run time that a similar job had is a candidate; trees predict how near each will be to the job's own (score:
min/max of the two, the accuracy of Tsafrir, Etsion, Feitelson, TPDS 2007), and the best one is the point. The
quantiles are those of the candidates weighted by that prediction, at levels that adapt to what happened.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.forecasting.candidates import FEATURES, candidates
from isthmus.forecasting.choosing import Chooser, Training
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.forecasting.forecast import Forecast, MeanError, Source
from isthmus.forecasting.histories import Histories

USERS, JOBS_OF_USER, EVERYBODY = 4096, 512, 1024
SHARPNESS = 8.0  # how much more a candidate with a better score weighs in the quantiles
# The rule before there are trees: agreement with alike jobs, else of the request, else of the user, else of others.
RULE = tuple(
    FEATURES.index(name) for name in ("agree_command", "agree_alike", "agree_request", "agree_user", "agree_peers")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is known of a job when it is submitted. Times are seconds since 1970 in UTC; empty names are unknown."""

    user: str
    processors: int
    requested_seconds: float
    submitted_at: float
    command: str = ""  # what makes commands similar: a name or a hash of the normalised command
    pool: str = ""

    def __post_init__(self) -> None:
        if self.processors < 1 or not self.requested_seconds >= 1:
            raise Invalid(
                "request",
                f"{self.processors} processors for {self.requested_seconds} s.",
                remedy="Ask for at least one of each.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A job that ended, with the forecast that was made at its submission, where one was."""

    request: RunRequest
    run_seconds: float
    ended_at: float
    forecast: Forecast | None = None


class RunTimeModel:
    """`predict` changes nothing; `observe` takes each ended job once, in the order in which they end.

    When `due`, the owner calls `train`, outside an event loop; until it returns, only `predict` may be called. Memory is bounded; a state is exact.
    """

    def __init__(self, training: Training | None = None) -> None:
        """An empty model: its forecasts are what the jobs declare."""
        self._chooser = Chooser(len(FEATURES), training or Training())
        self._histories = Histories(USERS, JOBS_OF_USER, EVERYBODY)
        self._levels = tuple(AdaptiveLevel(target=target) for target in (0.1, 0.5, 0.9))
        self._errors = {source: MeanError() for source in Source}

    def predict(self, request: RunRequest) -> Forecast:
        """The run time in seconds, at most the request. Its error is 1 - mean(min/max) of such forecasts so far."""
        values, rows = self._candidates(request)
        requested = request.requested_seconds
        scores = self._scores(rows)
        if scores is None:
            error = self._errors[Source.DECLARED].value
            return Forecast(point=requested, p10=0, p50=requested, p90=requested, source=Source.DECLARED, error=error)
        point = min(math.exp(values[int(np.argmax(scores))]), requested)
        order = np.argsort(values, kind="stable")
        weights = np.exp(SHARPNESS * (scores[order] - scores.max()))
        shares = (np.cumsum(weights) - weights / 2) / weights.sum()
        levels = [level.value for level in self._levels]
        at = np.interp(levels, [0.0, *shares, 1.0], [0.0, *values[order], math.log(requested)])
        p10, p50, p90 = np.sort(np.minimum(np.exp(at), requested))
        return Forecast(
            point=point,
            p10=float(p10),
            p50=float(p50),
            p90=float(p90),
            source=Source.LEARNED,
            error=self._errors[Source.LEARNED].value,
        )

    def observe(self, record: RunRecord) -> None:
        """Learn from a job that ended. Without its forecast only the history grows, not the published error."""
        run = max(1.0, record.run_seconds)
        values, rows = self._candidates(record.request)
        near = np.exp(-np.abs(values - math.log(run)))
        if len(values) > 1:
            self._chooser.add(rows, near)
        if record.forecast is not None:
            self._judge(record.forecast, run)
        request = record.request
        history = self._histories.of(request.user)
        before = np.nan
        for ended in reversed(history.table[: history.count]):
            if ended[1] <= request.submitted_at:
                before = ended[2]
                break
        job = _numbers(request)
        row = np.array([job[0], record.ended_at, math.log(run), job[1], job[2], job[3], job[4], before, job[5]])
        self._histories.add(request.user, row)

    @property
    def due(self) -> bool:
        """Whether it would learn from training now."""
        return self._chooser.due

    def train(self) -> None:
        """Grow new trees; takes up to seconds of one processor."""
        self._chooser.train()

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON values: trees in LightGBM's text, arrays in base64."""
        return {
            "training": asdict(self._chooser.training),
            "chooser": self._chooser.state(),
            "histories": self._histories.state(),
            "levels": [level.level for level in self._levels],
            "errors": {source.value: asdict(error) for source, error in self._errors.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RunTimeModel:
        """A model that goes on exactly as the one that gave the state would."""
        model = cls(Training(**state["training"]))
        model._chooser.restore(state["chooser"])
        model._histories.restore(state["histories"])
        model._levels = tuple(
            AdaptiveLevel(target=level.target, level=kept)
            for level, kept in zip(model._levels, state["levels"], strict=True)
        )
        model._errors = {Source(source): MeanError(**error) for source, error in state["errors"].items()}
        return model

    def _candidates(self, request: RunRequest) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        own, all_jobs = self._histories.of(request.user), self._histories.everybody
        found: tuple[NDArray[np.float64], NDArray[np.float32]] = candidates(
            own.table, own.count, all_jobs.table, all_jobs.count, _numbers(request)
        )
        return found

    def _scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64] | None:
        if self._chooser.trained:
            return self._chooser.scores(rows)
        for feature in RULE:
            agreement = rows[:, feature].astype(np.float64)
            if not np.isnan(agreement).any():
                return agreement
        return None

    def _judge(self, forecast: Forecast, run: float) -> None:
        error = 1 - min(forecast.point, run) / max(forecast.point, run)
        self._errors[forecast.source] = self._errors[forecast.source].after(error)
        if forecast.source is Source.LEARNED:
            bounds = (forecast.p10, forecast.p50, forecast.p90)
            self._levels = tuple(level.after(run <= bound) for level, bound in zip(self._levels, bounds, strict=True))


def _numbers(request: RunRequest) -> NDArray[np.float64]:
    return np.array(
        [
            request.submitted_at,
            math.log(request.requested_seconds),
            math.log(request.processors),
            _code(request.command),
            _code(request.pool),
            _code(request.user),
        ]
    )


@lru_cache(maxsize=65536)
def _code(name: str) -> float:
    return float(int.from_bytes(blake2b(name.encode(), digest_size=6).digest(), "big")) if name else 0.0
