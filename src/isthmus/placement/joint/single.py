"""One task that arrives between rounds: its cheapest option at the standing prices that fits what is free."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.placement.joint.assign import nothing_held
from isthmus.placement.joint.columns import columns, sums
from isthmus.placement.joint.options import best_fit, option_cost, scarce_worth
from isthmus.placement.joint.problem import Prices, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The option taken (pool -1 = deferred), what it costs, and what the scarce things it uses are worth at the prices."""

    pool: int
    path: int
    bucket: int
    cost: float
    scarce: float


def choose(problem: Problem, prices: Prices) -> Choice:
    """The choice for the only task of a problem whose capacities are what is free now."""
    if len(problem.volume) != 1:
        raise ValueError(f"a choice is for one task, not {len(problem.volume)}")
    c, priced = columns(problem), sums(problem, prices)
    free = nothing_held(problem)
    weight = 1.0 + float(prices.homes[problem.home[0]]) if problem.home[0] >= 0 else 1.0
    limit = float(problem.defer_cost[0]) * weight
    _, pool, path, bucket = best_fit(0, limit, c, priced, free.pool_free, free.link_free)
    return Choice(
        pool=int(pool),
        path=int(path),
        bucket=int(bucket),
        cost=float(option_cost(0, pool, path, bucket, c)),
        scarce=float(scarce_worth(0, pool, path, bucket, c, priced)) if pool >= 0 else 0.0,
    )
