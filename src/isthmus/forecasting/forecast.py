"""A forecast: a distribution in three quantiles, a point, where it comes from, and how wrong such forecasts were."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from isthmus.domain.errors import Invalid
from isthmus.domain.placement import Estimate


class Source(StrEnum):
    """Where a figure comes from: a measurement, a model that learned from the past, or somebody's declaration."""

    MEASURED = "measured"
    LEARNED = "learned"
    DECLARED = "declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A forecast of a quantity that is never negative: seconds, price, gCO2eq/kWh, as its maker says.

    `point` is the value expected to be nearest by the maker's own score; it need not be the median. `error` is the mean
    error of the maker's forecasts of this source so far, by that score, 0 = perfect; None: none was scored yet. `p95` is there where the maker promises that 95 % keep it.
    """

    point: float
    p10: float
    p50: float
    p90: float
    source: Source
    error: float | None = None
    p95: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p10 <= self.p50 <= self.p90 or self.point < 0:
            raise Invalid("forecast", f"{self} is not in order.", remedy="Give 0 <= p10 <= p50 <= p90.")

    def estimate(self) -> Estimate:
        """As placement reads it; seconds only."""
        return Estimate(
            seconds=self.point,
            source=self.source.value,
            p10=self.p10,
            p50=self.p50,
            p90=self.p90,
            p95=self.p95,
            error=self.error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanError:
    """The error that a maker publishes: the mean over all its forecasts at first, over the last 500 or so later."""

    value: float | None = None
    count: int = 0

    def after(self, error: float) -> MeanError:
        """With the error of one more forecast."""
        count = min(500, self.count + 1)
        before = error if self.value is None else self.value
        return MeanError(value=before + (error - before) / count, count=count)
