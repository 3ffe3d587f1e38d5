"""The problem as the compiled code reads it: its columns, with each task's pools in order of cost; prices summed over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from isthmus.placement.joint.problem import Floats, Ints, Prices, Problem, Shorts


class Columns(NamedTuple):
    """The columns of a `Problem` and, for each task, its pools in order of cost without prices.

    `order` [T, S]: pools, the cheapest first, -1 from the first impossible one on. `least` [T, S]: their costs with the
    cheapest path. `detour` [N, S, K]: what each path costs above the cheapest for one unit of volume.
    """

    order: Ints
    least: Floats
    cost: Floats
    demand: Floats
    duration: Shorts
    lead: Shorts
    window: Shorts
    volume: Floats
    source: Ints
    path_cost: Floats
    detour: Floats
    path_start: Ints
    path_links: Ints
    delay: Floats
    due: Shorts
    late: Floats
    defer: Floats
    home: Ints


class Sums(NamedTuple):
    """Prices summed over time, so that an interval costs one subtraction: pools [S*R, B + 1], paths [N*S*K, B + 1]."""

    pools: Floats
    paths: Floats
    homes: Floats


class Holding(NamedTuple):
    """Who holds what: option of each task [T] (pool -1 = deferred), and what is free: pools [S*R, B], links [L, B]."""

    pool: Ints
    path: Ints
    bucket: Ints
    pool_free: Floats
    link_free: Floats


def columns(problem: Problem) -> Columns:
    """Sort every task's pools once for the round."""
    p = problem
    cheapest = p.paths.cost.min(axis=2)
    with np.errstate(invalid="ignore"):
        detour = np.where(np.isfinite(p.paths.cost), p.paths.cost - cheapest[:, :, None], np.inf)
    order, least = _order(p.cost, p.source, p.volume, cheapest)
    return Columns(
        order=order,
        least=least,
        cost=p.cost,
        demand=p.demand,
        duration=p.duration,
        lead=p.lead,
        window=p.window,
        volume=p.volume,
        source=p.source,
        path_cost=p.paths.cost,
        detour=detour,
        path_start=p.paths.start,
        path_links=p.paths.links,
        delay=p.delay_cost,
        due=p.due,
        late=p.late_cost,
        defer=p.defer_cost,
        home=p.home,
    )


def sums(problem: Problem, prices: Prices) -> Sums:
    """Prices as the compiled code reads them."""
    pools, kinds, buckets = problem.capacity.shape
    by_row = np.ascontiguousarray(prices.pools).reshape(pools * kinds, buckets)
    paths = sum_paths(sum_time(prices.links), problem.paths.start, problem.paths.links)
    return Sums(sum_time(by_row), paths, prices.homes)


@njit(cache=True)
def _order(cost, source, volume, cheapest):  # type: ignore[no-untyped-def]
    tasks, pools = cost.shape
    order = np.full((tasks, pools), -1, np.int32)
    least = np.full((tasks, pools), np.inf)
    for t in range(tasks):
        count = 0
        n = source[t]
        for s in range(pools):
            value = cost[t, s]
            if n >= 0 and value < np.inf:
                value = value + volume[t] * cheapest[n, s] if cheapest[n, s] < np.inf else np.inf
            if value == np.inf:
                continue
            i = count
            while i > 0 and least[t, i - 1] > value:
                least[t, i] = least[t, i - 1]
                order[t, i] = order[t, i - 1]
                i -= 1
            least[t, i] = value
            order[t, i] = s
            count += 1
    return order, least


@njit(cache=True)
def sum_time(prices):  # type: ignore[no-untyped-def]
    """[rows, B] summed up to each bucket: [rows, B + 1]."""
    rows, buckets = prices.shape
    result = np.zeros((rows, buckets + 1))
    for i in range(rows):
        for b in range(buckets):
            result[i, b + 1] = result[i, b] + prices[i, b]
    return result


@njit(cache=True)
def sum_paths(links, path_start, path_links):  # type: ignore[no-untyped-def]
    """Summed prices of links [L, B + 1] to those of whole paths [N*S*K, B + 1]."""
    ends = links.shape[1]
    result = np.zeros((len(path_start) - 1, ends))
    for i in range(len(path_start) - 1):
        for j in range(path_start[i], path_start[i + 1]):
            for b in range(ends):
                result[i, b] += links[path_links[j], b]
    return result
