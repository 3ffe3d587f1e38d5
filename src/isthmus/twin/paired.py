"""How sure a mean difference between two schedules of the same jobs is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def paired_interval(difference: NDArray[np.float64], seed: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of paired differences, one entry a job in order of submission; (nan, nan) for no job.

    A bootstrap of circular blocks (Politis and Romano 1992) of sqrt(n) jobs that follow each other, as the waits of
    neighbours depend on each other; percentiles of 2,000 resamples.
    """
    jobs = len(difference)
    if jobs == 0:
        return math.nan, math.nan
    length = max(1, round(math.sqrt(jobs)))
    blocks = math.ceil(jobs / length)
    ring = np.concatenate([difference, difference[: length - 1]])
    sums = np.convolve(ring, np.ones(length), mode="valid")
    draws = np.random.default_rng(seed)
    means = np.array(
        [sums[draws.integers(0, jobs, blocks)].sum() / (blocks * length) for _ in range(RESAMPLES)], dtype=np.float64
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
