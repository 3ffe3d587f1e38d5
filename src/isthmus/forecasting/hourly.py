"""Load, price or carbon of the hours ahead, from the same figure of the hours before: one model for each series.

The start is the same hour of the newest day that has it, shifted by how today differs from yesterday so far (`yesterday`), or
the last hour on its way back to the mean of the last week (`mean`, for what has no firm day, like load); trees learn what is
left, for all hours ahead at once. From the mean, the last hour, the start and the trees are rivals: for each number of hours
ahead the one that was nearest lately is taken. The bounds are the quantiles of the last misses, at levels that adapt to what happened.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.forecasting.choosing import Chooser, Training
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.forecasting.forecast import Forecast, MeanError, Source
from isthmus.forecasting.packing import pack, unpack

Start = Literal["yesterday", "mean"]
DAY, WEEK = 24, 168
FEATURES = 26
KEPT = 8 * WEEK  # hours remembered
MOST_AHEAD = 2 * DAY
TAUGHT = (1, 2, 3, 5, 8, 12, 16, 20, 24, 30, 36, 42, 48)  # horizons of which each hour that comes in teaches
MISSES = 500
SHIFT = 0.85  # how much of today's difference from yesterday is left after each hour ahead
BACK = 0.96  # the same of the last hour's from the mean of the last week
TRAINING = Training(
    first=14 * DAY,
    step=2 * WEEK,
    rows=200_000,
    trees=300,
    leaves=12,
    learning_rate=0.03,
    objective="l1",
    least_in_leaf=100,
)


class HourlyModel:
    """Forecasts of one series of hourly means, never negative, never above `highest`. `observe` takes the hours in their order, none left out.

    When `due`, the owner calls `train`, outside an event loop; until it returns, only `predict` may be called. Memory is bounded; a state is exact.
    """

    def __init__(
        self,
        declared: float = 0.0,
        horizon: int = DAY,
        training: Training = TRAINING,
        *,
        start: Start = "yesterday",
        highest: float | None = None,
    ) -> None:
        """`declared` stands until the first hour is measured; `horizon` is how many hours ahead can be asked."""
        if not 1 <= horizon <= MOST_AHEAD:
            raise Invalid("horizon", f"{horizon} hours.", remedy=f"Ask for 1 to {MOST_AHEAD}.")
        self._declared, self._horizon = declared, horizon
        self._from, self._highest = start, math.inf if highest is None else highest
        self._chooser = Chooser(FEATURES, training)
        self._values = np.zeros(0)
        self._next_hour = 0
        self._misses = [np.zeros(0) for _ in range(horizon)]
        self._levels = [[AdaptiveLevel(target=target) for target in (0.1, 0.5, 0.9)] for _ in range(horizon)]
        self._given: dict[int, list[tuple[int, float, tuple[float, ...], tuple[float, ...]]]] = {}
        self._rivals = [(MeanError(), MeanError(), MeanError()) for _ in range(horizon)]  # last hour, start, trees
        self._error = MeanError()

    def observe(self, hour: int, value: float) -> None:
        """The mean over one hour, counted in hours since 1970 in UTC. Invalid: the hour does not follow the last one."""
        if len(self._values) and hour != self._next_hour:
            raise Invalid("hour", f"{hour} after {self._next_hour - 1}.", remedy="Fill the gap with an estimate first.")
        self._judge(hour, value)
        self._values = np.append(self._values, value)[-KEPT:]
        self._next_hour = hour + 1
        if len(self._values) > WEEK + DAY:
            self._teach()
        if len(self._values) > DAY:
            aheads = list(range(1, self._horizon + 1))
            for ahead, learned in zip(aheads, self._learned(aheads).tolist(), strict=True):
                rivals = self._points(ahead, learned)
                point = self._chosen(ahead, rivals)
                self._given.setdefault(hour + ahead, []).append((ahead, point, self._bounds(ahead, point), rivals))

    def predict(self, ahead: int) -> Forecast:
        """The mean over the hour `ahead` of the last one observed (1: the next). Its error is the mean relative error."""
        if not 1 <= ahead <= self._horizon:
            raise Invalid("ahead", f"{ahead} hours.", remedy=f"Ask for 1 to {self._horizon}.")
        count = len(self._values)
        if count <= DAY:
            value = float(self._values[-1]) if count else self._declared
            source = Source.MEASURED if count else Source.DECLARED
            return Forecast(point=value, p10=value, p50=value, p90=value, source=source, error=self._error.value)
        point = self._chosen(ahead, self._points(ahead, float(self._learned([ahead])[0])))
        p10, p50, p90 = self._bounds(ahead, point)
        source = Source.LEARNED if self._chooser.trained else Source.MEASURED
        return Forecast(point=self._within(point), p10=p10, p50=p50, p90=p90, source=source, error=self._error.value)

    @property
    def known_hours(self) -> int:
        """How many hours it remembers."""
        return len(self._values)

    def off(self, ahead: int) -> float | None:
        """How far its last forecasts of so many hours ahead were from what came, in the mean; None before the first came."""
        misses = self._misses[ahead - 1]
        return float(np.abs(misses).mean()) if len(misses) else None

    @property
    def due(self) -> bool:
        """Whether it would learn from training now."""
        return self._chooser.due

    def train(self) -> None:
        """Grow new trees; takes up to seconds of one processor."""
        self._chooser.train()

    def _start(self, ahead: int) -> float:
        return _start(self._values, ahead, self._from)

    def _points(self, ahead: int, learned: float) -> tuple[float, ...]:
        start = self._start(ahead)
        return float(self._values[-1]), start, start + learned

    def _chosen(self, ahead: int, rivals: tuple[float, ...]) -> float:
        if self._from != "mean":
            return rivals[-1]
        off = [math.inf if error.value is None else error.value for error in self._rivals[ahead - 1]]
        return rivals[off.index(min(off))]

    def _within(self, value: float) -> float:
        return float(min(self._highest, max(0.0, value)))

    def _learned(self, aheads: list[int]) -> NDArray[np.float64]:
        if not self._chooser.trained or len(self._values) <= WEEK:
            return np.zeros(len(aheads))
        rows = np.array([_row(self._values, self._next_hour - 1, ahead) for ahead in aheads], np.float32)
        return self._chooser.scores(rows) * _scale(self._values)

    def _bounds(self, ahead: int, point: float) -> tuple[float, float, float]:
        misses = self._misses[ahead - 1]
        if not len(misses):
            return (self._within(point),) * 3
        levels = [min(1.0, max(0.0, level.value)) for level in self._levels[ahead - 1]]
        p10, p50, p90 = np.sort(np.clip(point + _quantiles(misses, levels), 0.0, self._highest)).tolist()
        return p10, p50, p90

    def _judge(self, hour: int, value: float) -> None:
        for ahead, point, bounds, rivals in self._given.pop(hour, ()):
            errors = zip(self._rivals[ahead - 1], rivals, strict=True)
            first, second, third = (error.after(abs(value - rival)) for error, rival in errors)
            self._rivals[ahead - 1] = first, second, third
            self._misses[ahead - 1] = np.append(self._misses[ahead - 1], value - point)[-MISSES:]
            levels = self._levels[ahead - 1]
            self._levels[ahead - 1] = [level.after(value <= bound) for level, bound in zip(levels, bounds, strict=True)]
            if value > 0:
                self._error = self._error.after(abs(value - point) / value)

    def _teach(self) -> None:
        """The hour that came in is what earlier hours were to foretell."""
        last = len(self._values) - 1
        rows, left = [], []
        for ahead in (one for one in TAUGHT if one <= max(DAY, self._horizon)):
            values = self._values[: last + 1 - ahead]
            if len(values) <= WEEK:
                continue
            start = _start(values, ahead, self._from)
            rows.append(_row(values, self._next_hour - 1 - ahead, ahead))
            left.append((self._values[last] - start) / _scale(values))
        if rows:
            self._chooser.add(np.array(rows, np.float32), np.array(left))

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON values."""
        return {
            "declared": self._declared,
            "horizon": self._horizon,
            "start": self._from,
            "highest": None if math.isinf(self._highest) else self._highest,
            "training": asdict(self._chooser.training),
            "chooser": self._chooser.state(),
            "values": pack(self._values),
            "next_hour": self._next_hour,
            "misses": [pack(misses) for misses in self._misses],
            "levels": [[level.level for level in levels] for levels in self._levels],
            "given": [[hour, given] for hour, given in self._given.items()],
            "rivals": [[asdict(error) for error in errors] for errors in self._rivals],
            "error": asdict(self._error),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HourlyModel:
        """A model that goes on exactly as the one that gave the state would."""
        training = Training(**state["training"])
        model = cls(state["declared"], state["horizon"], training, start=state["start"], highest=state["highest"])
        model._chooser.restore(state["chooser"])
        model._values = unpack(state["values"])
        model._next_hour = state["next_hour"]
        model._misses = [unpack(misses) for misses in state["misses"]]
        model._levels = [
            [replace(level, level=kept) for level, kept in zip(levels, row, strict=True)]
            for levels, row in zip(model._levels, state["levels"], strict=True)
        ]
        model._given = {
            hour: [(ahead, point, tuple(bounds), tuple(rivals)) for ahead, point, bounds, rivals in given]
            for hour, given in state["given"]
        }
        model._rivals = [(MeanError(**a), MeanError(**b), MeanError(**c)) for a, b, c in state["rivals"]]
        model._error = MeanError(**state["error"])
        return model


def _start(values: NDArray[np.float64], ahead: int, start: Start) -> float:
    if start == "mean":
        middle = values[-WEEK:].mean()
        return float(middle + BACK**ahead * (values[-1] - middle))
    return float(values[_known(len(values), ahead)] + SHIFT**ahead * (values[-1] - values[-1 - DAY]))


def _known(count: int, ahead: int) -> int:
    """Where the newest value of the same hour of the day is."""
    return count - 1 + ahead - DAY * -(-ahead // DAY)


def _quantiles(values: NDArray[np.float64], levels: list[float]) -> NDArray[np.float64]:
    """As `np.quantile`, many times as fast on a few values."""
    ordered = np.sort(values)
    at = np.array(levels) * (len(ordered) - 1)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, len(ordered) - 1)
    found: NDArray[np.float64] = ordered[low] + (at - low) * (ordered[high] - ordered[low])
    return found


def _scale(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[-WEEK:]).mean()) + 1e-9


def _row(values: NDArray[np.float64], hour: int, ahead: int) -> list[float]:
    """What is known at `hour`, whose value is the last, of the hour `ahead`; values over the mean of the last week."""
    scaled = values[-WEEK:] / _scale(values)
    target = len(scaled) - 1 + ahead
    newest = _known(len(scaled), ahead)
    yesterday = scaled[newest]
    return [
        ahead,
        (hour + ahead) % DAY,
        (hour + ahead) // DAY % 7,
        *scaled[-1:-7:-1],
        scaled[-1] - scaled[-2],
        scaled[-1] - scaled[-1 - DAY],
        scaled[-2] - scaled[-2 - DAY],
        scaled[-4] - scaled[-4 - DAY],
        yesterday,
        scaled[newest - DAY],
        scaled[newest - 2 * DAY],
        scaled[target - WEEK],
        yesterday - scaled[-1],
        scaled[-DAY:].mean(),
        scaled[-DAY:].min(),
        scaled[-DAY:].max(),
        scaled[-2 * DAY : -DAY].mean(),
        scaled[-DAY:].std(),
        float(np.mean([scaled[day] for day in range(newest, -1, -DAY)])),
        float(np.mean([scaled[newest - day * DAY] for day in range(3)])),
        float(np.mean([scaled[-1 - day * DAY] for day in range(7)])),
    ]
