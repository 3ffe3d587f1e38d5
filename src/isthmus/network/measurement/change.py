"""Tells a change of a measured figure from its noise, once, and its end, once. Pure.

A one-sided CUSUM (Page, Biometrika 1954) of how far a value lies above what is usual, in usual deviations: worse is higher, as for delay, variation
and loss. What is usual is a moving mean and mean absolute deviation of the values while nothing is wrong. A single outlier counts no more than
four deviations, so it takes several values to raise an alarm and several good ones in a row to clear it (hysteresis); a new level that stays is
taken as usual in the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

_GAUSSIAN_DEVIATION = math.sqrt(math.pi / 2)
"""Standard deviation of a normal distribution by its mean absolute deviation."""


class Change(StrEnum):
    """What a value said."""

    RAISED = "raised"
    """The figure is worse than usual."""
    CLEARED = "cleared"
    """It is as usual again."""
    SETTLED = "settled"
    """It stayed worse for so long that this is what is usual now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How much it takes; the defaults raise about once in 100,000 values of normal noise and find five deviations in three."""

    learn_count: int = 20
    """Values that are looked at before anything can be raised."""
    memory: float = 0.05
    """Weight of a new value in what is usual."""
    allowance: float = 1.0
    """Deviations above the mean that do not count."""
    threshold: float = 8.0
    """Sum of counting deviations at which a change is raised."""
    outlier: float = 4.0
    """A value counts as this many deviations at most."""
    clear_below: float = 2.0
    """Deviations above the mean below which a value is good."""
    clear_count: int = 5
    """Good values in a row that clear."""
    settle_count: int = 200
    """Values after which a raised level is taken as usual."""
    least_deviation: float = 0.0
    """Smaller deviations than this are of no interest, in the figure's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is known of one figure."""

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    """Mean absolute deviation."""
    excess: float = 0.0
    raised: bool = False
    good_in_a_row: int = 0
    raised_for: int = 0
    raised_mean: float = 0.0

    def usual_deviation(self, sensitivity: Sensitivity) -> float:
        """The standard deviation that is usual, never 0."""
        return max(self.deviation * _GAUSSIAN_DEVIATION, sensitivity.least_deviation, abs(self.mean) * 1e-6, 1e-12)


def observe(watched: Watched, value: float, sensitivity: Sensitivity) -> tuple[Watched, Change | None]:
    """Take one value, which must be finite; return what is known now, and the change that it tells, if any."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no measured figure")
    if watched.raised:
        return _while_raised(watched, value, sensitivity)
    if watched.count < sensitivity.learn_count:
        return _learnt(watched, value, 1 / (watched.count + 1)), None
    above = (value - watched.mean) / watched.usual_deviation(sensitivity)
    excess = max(0.0, watched.excess + min(above, sensitivity.outlier) - sensitivity.allowance)
    if excess >= sensitivity.threshold:
        return replace(
            watched, raised=True, excess=0.0, good_in_a_row=0, raised_for=0, raised_mean=value
        ), Change.RAISED
    # A value that counts towards an alarm does not also change what is usual.
    learnt = watched if above > sensitivity.clear_below else _learnt(watched, value, sensitivity.memory)
    return replace(learnt, excess=excess), None


def _while_raised(watched: Watched, value: float, sensitivity: Sensitivity) -> tuple[Watched, Change | None]:
    above = (value - watched.mean) / watched.usual_deviation(sensitivity)
    good = watched.good_in_a_row + 1 if above < sensitivity.clear_below else 0
    if good >= sensitivity.clear_count:
        return replace(watched, raised=False, good_in_a_row=0), Change.CLEARED
    raised_for = watched.raised_for + 1
    raised_mean = watched.raised_mean + (value - watched.raised_mean) * sensitivity.memory
    if raised_for >= sensitivity.settle_count:
        return Watched(count=watched.count, mean=raised_mean, deviation=watched.deviation), Change.SETTLED
    return replace(watched, good_in_a_row=good, raised_for=raised_for, raised_mean=raised_mean), None


def _learnt(watched: Watched, value: float, weight: float) -> Watched:
    mean = watched.mean + (value - watched.mean) * weight
    distance = abs(value - watched.mean) if watched.count else 0.0
    deviation = watched.deviation + (distance - watched.deviation) * weight
    return replace(watched, count=watched.count + 1, mean=mean, deviation=deviation)
