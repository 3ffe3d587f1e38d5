"""Repeated measurements and their spread: warm-up, repetitions, outliers by a documented rule."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[], None]
    Record = dict[str, float | int | str]

OUTLIER_SCORE = 3.5
MIN_REPETITIONS = 5
MAX_REPETITIONS = 200


@dataclass(frozen=True)
class Measure:
    """One figure: median, 10th and 90th percentile of the kept samples, and how many were kept and rejected."""

    median: float
    p10: float
    p90: float
    samples: int
    rejected: int
    by: str = ""  # what did the arithmetic, or how the figure was taken

    def record(self) -> Record:
        """As JSON has it."""
        shown: Record = {
            "median": self.median,
            "p10": self.p10,
            "p90": self.p90,
            "samples": self.samples,
            "rejected": self.rejected,
        }
        if self.by:
            shown["by"] = self.by
        return shown


def quantile(ordered: Sequence[float], share: float) -> float:
    """Quantile of sorted values by linear interpolation (type 7 of Hyndman and Fan 1996)."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def kept(samples: Sequence[float]) -> list[float]:
    """The samples without outliers, sorted.

    An outlier has a modified z-score |0.6745 (x - median) / MAD| over 3.5, MAD the median absolute deviation (Iglewicz and
    Hoaglin 1993). With MAD 0 nothing is rejected; the rule never rejects half of the samples.
    """
    ordered = sorted(samples)
    middle = quantile(ordered, 0.5)
    deviation = quantile(sorted(abs(value - middle) for value in ordered), 0.5)
    if deviation == 0.0:
        return ordered
    return [value for value in ordered if 0.6745 * abs(value - middle) / deviation <= OUTLIER_SCORE]


def summarise(samples: Sequence[float], by: str = "") -> Measure:
    """The figure of some samples; ValueError without any."""
    if not samples:
        raise ValueError("there is no sample")
    good = kept(samples)
    return Measure(
        median=quantile(good, 0.5),
        p10=quantile(good, 0.1),
        p90=quantile(good, 0.9),
        samples=len(good),
        rejected=len(samples) - len(good),
        by=by,
    )


def rates(run: Run, work: float, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Work per second (by `clock`) of each repetition of `run`, after one warm-up, for about `seconds` in all."""
    run()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < MIN_REPETITIONS or (time.perf_counter() < end and len(found) < MAX_REPETITIONS):
        begun = clock()
        run()
        found.append(work / max(1e-9, clock() - begun))
        if len(found) >= 3 and time.perf_counter() > end + 2 * seconds:
            break  # one repetition is so long that five would break the bound of the whole
    return found
