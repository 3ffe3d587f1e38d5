"""What-if: two scenarios compared job by job, many at once, and how much more load one bears."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.federation import Router
from isthmus.twin.scenario.cluster import on_ray
from isthmus.twin.scenario.model import Scenario
from isthmus.twin.scenario.run import Result, run_scenario
from isthmus.twin.schedulers import bounded_slowdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """B minus A of one figure, per job, with the ends of its 95 % confidence interval."""

    figure: str
    a: float
    b: float
    difference: float
    low: float
    high: float


def compare(a: Result, b: Result, *, seed: int, resamples: int = 2000) -> tuple[Difference, ...]:
    """Paired by job; the interval from a bootstrap over days of submission (percentiles; Efron and Tibshirani 1993).

    Days, not jobs, are drawn, as jobs of a day wait for each other. Invalid where the two have different workloads.
    """
    same = len(a.work.home) == len(b.work.home) and all(
        np.array_equal(getattr(a.work, name), getattr(b.work, name))
        for name in ("submit_seconds", "run_seconds", "processors", "home")
    )
    if not same:
        raise Invalid(
            "workload", "The two scenarios have different jobs.", remedy="Give both the same workload and seed."
        )
    day = a.work.submit_seconds // 86400
    random = np.random.default_rng(seed)
    days = np.unique(day, return_inverse=True)[1]
    drawn = random.multinomial(days.max() + 1, np.full(days.max() + 1, 1 / (days.max() + 1)), size=resamples)
    jobs = np.bincount(days)
    found = []
    for figure, of_a, of_b in _figures(a, b):
        gained = np.bincount(days, weights=of_b - of_a)
        means = (drawn @ gained) / np.maximum(drawn @ jobs, 1)
        low, high = np.percentile(means, [2.5, 97.5])
        found.append(
            Difference(
                figure=figure,
                a=float(of_a.mean()),
                b=float(of_b.mean()),
                difference=float((of_b - of_a).mean()),
                low=float(low),
                high=float(high),
            )
        )
    return tuple(found)


def _figures(a: Result, b: Result) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    return [
        ("wait_s", a.waits.astype(np.float64), b.waits.astype(np.float64)),
        (
            "bounded_slowdown",
            bounded_slowdown(a.waits, a.work.run_seconds),
            bounded_slowdown(b.waits, b.work.run_seconds),
        ),
        ("energy_kwh", a.accounts.energy_kwh, b.accounts.energy_kwh),
        ("cost", a.accounts.cost, b.accounts.cost),
        ("carbon_kg", a.accounts.carbon_kg, b.accounts.carbon_kg),
    ]


def sweep(
    scenario: Scenario,
    *,
    arrivals: Sequence[float],
    routers: Sequence[Router],
    seeds: Sequence[int],
    processes: int,
    ray: str | None = None,
    on_row: Callable[[int, int], None] = lambda _done, _runs: None,
) -> list[dict[str, float | str]]:
    """The figures of every combination, in order; on so many processes, or on the Ray cluster at an address (see `on_ray`). `on_row` is told how many are done, of how many; not by Ray."""
    cases = [
        replace(scenario, arrivals=factor, router=router, seed=seed)
        for router, factor, seed in product(routers, arrivals, seeds)
    ]
    if ray is not None:
        return on_ray(_row, cases, ray)
    if processes <= 1 or len(cases) == 1:
        return _counted(map(_row, cases), len(cases), on_row)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return _counted(pool.map(_row, cases), len(cases), on_row)


def _counted(
    rows: Iterable[dict[str, float | str]], runs: int, on_row: Callable[[int, int], None]
) -> list[dict[str, float | str]]:
    found = []
    for row in rows:
        found.append(row)
        on_row(len(found), runs)
    return found


def _row(case: Scenario) -> dict[str, float | str]:
    return {"router": case.router, "arrivals": case.arrivals, "seed": case.seed, **run_scenario(case).figures()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The greatest factor found at which p95 wait keeps the limit, the least found at which it does not, and all tried.

    `exceeded` is None where even the greatest factor allowed kept it; `kept` is 0 where the least did not.
    """

    kept: float
    exceeded: float | None
    tried: tuple[tuple[float, float], ...]  # (arrivals factor, p95 wait in seconds)


def capacity(
    scenario: Scenario,
    *,
    p95_wait_seconds: float,
    least: float = 0.1,
    most: float = 16.0,
    precision: float = 0.01,
    on_try: Callable[[float, float], None] = lambda _factor, _wait: None,
) -> Capacity:
    """How far arrivals can be compressed until the 95th percentile of waits exceeds a limit: bisection of the factor.

    Waits need not grow with the factor everywhere; what is found is one crossing.
    """
    tried: list[tuple[float, float]] = []

    def keeps(factor: float) -> bool:
        wait = run_scenario(replace(scenario, arrivals=factor)).summary.p95_wait_s
        tried.append((factor, wait))
        on_try(factor, wait)
        return wait <= p95_wait_seconds

    if not keeps(least):
        return Capacity(kept=0.0, exceeded=least, tried=tuple(tried))
    low, high = least, max(scenario.arrivals, 2 * least)
    while keeps(high):
        low = high
        if high >= most:
            return Capacity(kept=high, exceeded=None, tried=tuple(tried))
        high = min(2 * high, most)
    while high - low > precision * low:
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return Capacity(kept=low, exceeded=high, tried=tuple(tried))
