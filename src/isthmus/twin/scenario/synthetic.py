"""A seeded workload, made a day at a time: Poisson arrivals with a cycle, and jobs drawn from a log or from distributions.

Without a log the shapes follow Lublin and Feitelson (JPDC 2003) in kind, not in their fitted figures: a peak by day, few wide
jobs, long tails; users ask for more time than they need, by a factor that is exponentially distributed. With `like`, each job's
processors, run time and request are those of one job of the log, and arrivals follow the log's hours of the week.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.federation import Workload
from isthmus.twin.scenario.model import Site, Synthetic

DAY_CYCLE = 0.6  # the rate of arrivals swings by this share around its mean, with its peak at 14 h


def make_workload(parts: tuple[Synthetic, ...], sites: tuple[Site, ...], seed: int) -> Workload:
    """The jobs of all homes; the same for the same seed, and each home's own whatever the others are."""
    made = [_day(part, index, day, sites, seed) for index, part in enumerate(parts) for day in range(ceil(part.days))]
    return Workload.joined(made) if made else no_jobs()


def days_of(parts: tuple[Synthetic, ...], sites: tuple[Site, ...], seed: int) -> Iterator[Workload]:
    """The same jobs as `make_workload`, those of one day at a time."""
    for day in range(ceil(max((part.days for part in parts), default=0.0))):
        yield Workload.joined(
            [_day(part, index, day, sites, seed) for index, part in enumerate(parts) if day < part.days]
        )


def no_jobs() -> Workload:
    """An empty workload."""
    return Workload(**{name: np.empty(0, dtype=np.int64) for name in Workload.__dataclass_fields__})


def _day(part: Synthetic, index: int, day: int, sites: tuple[Site, ...], seed: int) -> Workload:
    numbers = [site.name for site in sites]
    home = numbers.index(part.home)
    random = np.random.default_rng([seed, index, day])
    hour = np.arange(24)
    rate = part.like.hourly[(24 * day + hour) % 168] if part.like else _cycle(hour)
    within = np.clip(24 * (part.days - day) - hour, 0, 1)  # the last day may be a part of one
    counts = random.poisson(part.jobs_per_day / 24 * rate * within)
    count = int(counts.sum())
    begun = (86400 * day + 3600 * np.repeat(hour, counts)).astype(np.float64)
    submit = np.sort(begun + random.uniform(0, 3600, count) * np.repeat(within, counts)).astype(np.int64)
    most = min(part.most_processors, sites[home].processors)
    if part.like:
        drawn = random.integers(0, len(part.like), count)
        width = np.minimum(part.like.processors[drawn], most)
        run, request = part.like.run_seconds[drawn], part.like.requested_seconds[drawn]
    else:
        run = _lognormal(random, part.mean_run_seconds, part.run_spread, count)
        width = np.minimum(2 ** random.integers(0, int(np.log2(most)) + 1, count), most)
        request = np.ceil(run * (1 + random.exponential(max(part.overestimate - 1, 0), count))).astype(np.int64)
    size = _lognormal(random, part.mean_input_bytes, 1.5, count) if part.mean_input_bytes else np.zeros(count)
    return Workload(
        submit_seconds=submit,
        run_seconds=run.astype(np.int64),
        processors=width.astype(np.int64),
        requested_seconds=request.astype(np.int64),
        home=np.full(count, home, dtype=np.int64),
        input_bytes=size.astype(np.int64),
    )


def _cycle(hour: NDArray[np.int64]) -> NDArray[np.float64]:
    rate: NDArray[np.float64] = 1 + DAY_CYCLE * np.cos(2 * np.pi * ((hour + 0.5) / 24 - 14 / 24))
    return rate


def _lognormal(random: np.random.Generator, mean: float, spread: float, count: int) -> np.ndarray:
    drawn = random.lognormal(np.log(mean) - spread**2 / 2, spread, count)
    return np.maximum(drawn, 1).astype(np.int64)
