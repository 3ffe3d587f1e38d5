"""A seeded workload: Poisson arrivals with a day's cycle, widths in powers of two, lognormal run times and inputs.

The shapes follow Lublin and Feitelson (JPDC 2003) in kind, not in their fitted figures: a peak by day, few wide jobs,
long tails. Users ask for more time than they need, by a factor that is exponentially distributed.
"""

from __future__ import annotations

import numpy as np

from isthmus.twin.federation import Workload
from isthmus.twin.scenario.model import Site, Synthetic

DAY_CYCLE = 0.6  # the rate of arrivals swings by this share around its mean, with its peak at 14 h


def make_workload(parts: tuple[Synthetic, ...], sites: tuple[Site, ...], seed: int) -> Workload:
    """The jobs of all homes; the same for the same seed, and each home's own whatever the others are."""
    numbers = {site.name: number for number, site in enumerate(sites)}
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for index, part in enumerate(parts):
        random = np.random.default_rng([seed, index])
        home = numbers[part.home]
        count = int(random.poisson(part.jobs_per_day * part.days))
        span = part.days * 86400
        # Thinning: as many candidates as needed, kept with the probability of their hour.
        times = np.empty(0)
        while len(times) < count:
            tried = random.uniform(0, span, 2 * count + 16)
            rate = 1 + DAY_CYCLE * np.cos(2 * np.pi * (tried / 86400 - 14 / 24))
            times = np.concatenate([times, tried[random.uniform(0, 1 + DAY_CYCLE, len(tried)) < rate]])
        submit = np.sort(times[:count]).astype(np.int64)
        run = _lognormal(random, part.mean_run_seconds, part.run_spread, count)
        most = min(part.most_processors, sites[home].processors)
        width = np.minimum(2 ** random.integers(0, int(np.log2(most)) + 1, count), most)
        request = np.ceil(run * (1 + random.exponential(max(part.overestimate - 1, 0), count))).astype(np.int64)
        size = _lognormal(random, part.mean_input_bytes, 1.5, count) if part.mean_input_bytes else np.zeros(count)
        for column, values in zip(columns, (submit, run, width, request, np.full(count, home), size), strict=True):
            column.append(values.astype(np.int64))
    joined = [np.concatenate(column) if column else np.empty(0, dtype=np.int64) for column in columns]
    return Workload(
        submit_seconds=joined[0],
        run_seconds=joined[1],
        processors=joined[2],
        requested_seconds=joined[3],
        home=joined[4],
        input_bytes=joined[5],
    )


def _lognormal(random: np.random.Generator, mean: float, spread: float, count: int) -> np.ndarray:
    drawn = random.lognormal(np.log(mean) - spread**2 / 2, spread, count)
    return np.maximum(drawn, 1).astype(np.int64)
