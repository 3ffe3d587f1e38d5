"""Prices of what is scarce: projected subgradient sweeps over all tasks, with momentum and step control; compiled.

One sweep is one argmin for each task at the current prices. The dual value of a sweep bounds the cost of every assignment
from below (Lagrangian relaxation: Geoffrion 1974); the bound that is kept is the best of all sweeps.
Step length: Polyak 1969, with a target level above the best bound that is halved when the bound stops rising; direction
deflected by momentum (Camerini, Fratta, Maffioli 1975), scaled for each row by a typical price over its capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from isthmus.placement.joint.columns import Columns, Sums, sum_paths, sum_time
from isthmus.placement.joint.options import best_option, scarce_worth
from isthmus.placement.joint.problem import Floats, Prices, Problem

MOMENTUM = 0.7
PATIENCE = 12  # sweeps without a higher bound before the target comes nearer
FIRST_LEVEL = 0.1  # the first target above the bound, relative, from no prices
WARM_LEVEL = 0.003  # and from the last round's
LEVEL_SHARE = 0.05  # a rise of the bound by less than this share of the level does not renew the patience


class Row(NamedTuple):
    """One family of rows: prices, capacity, scale of the step, what is used, the step; alike in shape."""

    price: Floats
    capacity: Floats
    scale: Floats
    use: Floats
    step: Floats
    kept: Floats


def climb(problem: Problem, columns: Columns, prices: Prices, sweeps: int) -> tuple[float, Prices]:
    """The best bound that so many sweeps find from the given prices, and the prices it was found at."""
    p = problem
    pools, kinds, buckets = p.capacity.shape
    spread = _typical_spread(columns)
    held = [p.demand[:, r][p.demand[:, r] > 0] for r in range(kinds)]
    typical = np.array([spread / of.mean() if len(of) else 0.0 for of in held])
    moved = p.volume[p.volume > 0]
    warm = bool(prices.pools.any() or prices.links.any() or prices.homes.any())
    by_row = _row(prices.pools.reshape(-1, buckets), p.capacity.reshape(-1, buckets), np.tile(typical, pools)[:, None])
    by_link = _row(prices.links, p.link_capacity, spread / moved.mean() if len(moved) else 0.0)
    by_home = _row(prices.homes, p.alone, 1.0)
    bound = _climb(sweeps, columns, by_row, by_link, by_home, WARM_LEVEL if warm else FIRST_LEVEL)
    return bound, Prices(pools=by_row.kept.reshape(p.capacity.shape), links=by_link.kept, homes=by_home.kept)


def _typical_spread(columns: Columns) -> float:
    """What another pool typically costs more: the mean over tasks of the fifth pool's cost less the first's."""
    nth = min(4, columns.least.shape[1] - 1)
    with np.errstate(invalid="ignore"):
        spread = columns.least[:, nth] - columns.least[:, 0]
    known = spread[np.isfinite(spread)]
    return max(float(known.mean()) if len(known) else 0.0, 1e-3 * float(np.abs(columns.defer).mean() or 1.0))


def _row(price: Floats, capacity: Floats, typical: Floats | float) -> Row:
    some = float(capacity[np.isfinite(capacity)].mean()) if np.isfinite(capacity).any() else 1.0
    scale = np.broadcast_to(typical, capacity.shape) / np.maximum(capacity, max(1e-3 * some, 1e-12))
    zeros = np.zeros(capacity.shape)
    start = np.where(np.isfinite(capacity), price, 0.0)
    return Row(start, np.ascontiguousarray(capacity), scale, zeros, zeros.copy(), start.copy())


@njit(cache=True)
def sweep(c, pools, links, homes):  # type: ignore[no-untyped-def]
    """The sum of all tasks' least reduced costs at the rows' prices; fills what the tasks would use."""
    sums = Sums(sum_time(pools.price), sum_paths(sum_time(links.price), c.path_start, c.path_links), homes.price)
    kinds, buckets, paths = c.demand.shape[1], pools.price.shape[1], c.path_cost.shape[2]
    pools.use[:] = 0.0
    links.use[:] = 0.0
    homes.use[:] = 0.0
    total = 0.0
    for t in range(len(c.defer)):
        value, s, k, b, _ = best_option(t, c, sums)
        total += value
        if s >= 0:
            begin = b + c.lead[t, s]
            for r in range(kinds):
                if c.demand[t, r] > 0.0:
                    for i in range(begin, min(buckets, begin + c.duration[t, s])):
                        pools.use[s * kinds + r, i] += c.demand[t, r]
            n = c.source[t]
            if n >= 0:
                share = c.volume[t] / c.window[t, s]
                which = (n * c.order.shape[1] + s) * paths + k
                for j in range(c.path_start[which], c.path_start[which + 1]):
                    for i in range(b, min(buckets, b + c.window[t, s])):
                        links.use[c.path_links[j], i] += share
        if c.home[t] >= 0:
            own = value - (scarce_worth(t, s, k, b, c, sums) if s >= 0 else 0.0)
            homes.use[c.home[t]] += own / (1.0 + homes.price[c.home[t]])
    return total


@njit(cache=True)
def _worth(row):  # type: ignore[no-untyped-def]
    price, capacity = row.price.ravel(), row.capacity.ravel()
    worth = 0.0
    for i in range(len(price)):
        if price[i] > 0.0:
            worth += price[i] * capacity[i]
    return worth


@njit(cache=True)
def _aim(row):  # type: ignore[no-untyped-def]
    """Turn the direction of one family towards what is overused; its squared length."""
    price, capacity, scale = row.price.ravel(), row.capacity.ravel(), row.scale.ravel()
    use, step = row.use.ravel(), row.step.ravel()
    norm = 0.0
    for i in range(len(price)):
        over = use[i] - capacity[i]
        if over < 0.0 and price[i] == 0.0:
            over = 0.0
        norm += over * over * scale[i]
        step[i] = MOMENTUM * step[i] + over * scale[i]
    return norm


@njit(cache=True)
def _walk(row, length):  # type: ignore[no-untyped-def]
    price, step = row.price.ravel(), row.step.ravel()
    for i in range(len(price)):
        price[i] = max(0.0, price[i] + length * step[i])


@njit(cache=True)
def _back(row):  # type: ignore[no-untyped-def]
    row.price[:] = row.kept
    row.step[:] = 0.0


@njit(cache=True)
def _climb(sweeps, c, pools, links, homes, level):  # type: ignore[no-untyped-def]
    bound = -np.inf
    failed = 0
    for _ in range(sweeps):
        value = sweep(c, pools, links, homes) - _worth(pools) - _worth(links) - _worth(homes)
        if value > bound:
            if value > bound + LEVEL_SHARE * level * abs(value):
                failed = 0
            bound = value
            pools.kept[:] = pools.price
            links.kept[:] = links.price
            homes.kept[:] = homes.price
        else:
            failed += 1
        if failed >= PATIENCE:
            failed = 0
            level *= 0.5
            _back(pools)
            _back(links)
            _back(homes)
            continue
        norm = _aim(pools) + _aim(links) + _aim(homes)
        if norm == 0.0:
            break
        length = (1.0 - MOMENTUM) * (bound + level * abs(bound) - value) / norm
        _walk(pools, length)
        _walk(links, length)
        _walk(homes, length)
    return bound
