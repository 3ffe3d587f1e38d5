"""The options of one task at given prices: the cheapest of all, the cheapest that fits, taking one; compiled.

Prices are 0 or more, so an option never costs less than without prices: a task looks at its pools in order of that cost
and stops at the first that cannot be the best any more. Most tasks look at a few pools only.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDING = 1e-9  # a figure fits when it is larger than what is free by no more than this share


@njit(cache=True)
def weight_of(t, c, homes):  # type: ignore[no-untyped-def]
    """How much the task's own cost counts: 1, and the price of its home."""
    return 1.0 + homes[c.home[t]] if c.home[t] >= 0 else 1.0


@njit(cache=True)
def option_cost(t, s, k, b, c):  # type: ignore[no-untyped-def]
    """Cost of one option without prices; of being deferred for pool -1."""
    if s < 0:
        return c.defer[t]
    value = c.cost[t, s] + c.delay[t] * b
    if b > c.due[t, s]:
        value += c.late[t]
    if c.source[t] >= 0:
        value += c.volume[t] * c.path_cost[c.source[t], s, k]
    return value


@njit(cache=True)
def scarce_worth(t, s, k, b, c, sums):  # type: ignore[no-untyped-def]
    """What an option uses, at the prices."""
    kinds, buckets = c.demand.shape[1], sums.pools.shape[1] - 1
    begin = b + c.lead[t, s]
    end = min(buckets, begin + c.duration[t, s])
    worth = 0.0
    for r in range(kinds):
        worth += c.demand[t, r] * (sums.pools[s * kinds + r, end] - sums.pools[s * kinds + r, begin])
    n = c.source[t]
    if n >= 0:
        which = (n * c.order.shape[1] + s) * c.path_cost.shape[2] + k
        stop = min(buckets, b + c.window[t, s])
        worth += c.volume[t] / c.window[t, s] * (sums.paths[which, stop] - sums.paths[which, b])
    return worth


@njit(cache=True)
def best_option(t, c, sums):  # type: ignore[no-untyped-def]
    """(reduced cost, pool, path, bucket, second) of the cheapest option; pool -1 = deferred.

    `second` is the least reduced cost of another pool or of being deferred, or a lower bound of it.
    """
    pools, paths, kinds = c.order.shape[1], c.path_cost.shape[2], c.demand.shape[1]
    buckets = sums.pools.shape[1] - 1
    weight = weight_of(t, c, sums.homes)
    best, second = c.defer[t] * weight, np.inf
    best_pool, best_path, best_bucket = -1, 0, 0
    n = c.source[t]
    for j in range(pools):
        s = c.order[t, j]
        if s < 0:
            break
        own = c.least[t, j]
        if own * weight >= best:
            second = min(second, own * weight)
            break
        here, here_path, here_bucket = np.inf, 0, 0
        row, first_path = s * kinds, (n * pools + s) * paths
        for b in range(buckets - c.lead[t, s]):
            value = own + c.delay[t] * b
            if b > c.due[t, s]:
                value += c.late[t]
            value *= weight
            if value >= here or value >= best:
                break
            begin = b + c.lead[t, s]
            end = min(buckets, begin + c.duration[t, s])
            for r in range(kinds):
                value += c.demand[t, r] * (sums.pools[row + r, end] - sums.pools[row + r, begin])
            which = 0
            if n >= 0:
                stop = min(buckets, b + c.window[t, s])
                share = c.volume[t] / c.window[t, s]
                cheapest = np.inf
                for k in range(paths):
                    extra = c.detour[n, s, k] * c.volume[t] * weight
                    extra += share * (sums.paths[first_path + k, stop] - sums.paths[first_path + k, b])
                    if extra < cheapest:
                        cheapest, which = extra, k
                value += cheapest
            if value < here:
                here, here_path, here_bucket = value, which, b
        if here < best:
            second = best
            best, best_pool, best_path, best_bucket = here, s, here_path, here_bucket
        elif here < second:
            second = here
    return best, best_pool, best_path, best_bucket, second


@njit(cache=True)
def pool_fits(t, s, b, c, pool_free):  # type: ignore[no-untyped-def]
    """Whether the pool has what the task asks for, in every bucket of its run."""
    kinds, buckets = c.demand.shape[1], pool_free.shape[1]
    begin = b + c.lead[t, s]
    end = min(buckets, begin + c.duration[t, s])
    for r in range(kinds):
        wanted = c.demand[t, r] * (1.0 - ROUNDING)
        if wanted > 0.0:
            for i in range(begin, end):
                if pool_free[s * kinds + r, i] < wanted:
                    return False
    return True


@njit(cache=True)
def path_fits(t, s, k, b, c, link_free):  # type: ignore[no-untyped-def]
    """Whether the links of the path carry the task's data, in every bucket of its window."""
    n = c.source[t]
    if n < 0:
        return True
    share = c.volume[t] / c.window[t, s] * (1.0 - ROUNDING)
    which = (n * c.order.shape[1] + s) * c.path_cost.shape[2] + k
    stop = min(link_free.shape[1], b + c.window[t, s])
    for j in range(c.path_start[which], c.path_start[which + 1]):
        for i in range(b, stop):
            if link_free[c.path_links[j], i] < share:
                return False
    return True


@njit(cache=True)
def best_fit(t, limit, c, sums, pool_free, link_free):  # type: ignore[no-untyped-def]
    """(reduced cost, pool, path, bucket) of the cheapest option below `limit` that fits; (limit, -1, 0, 0) without one."""
    pools, paths, kinds = c.order.shape[1], c.path_cost.shape[2], c.demand.shape[1]
    buckets = pool_free.shape[1]
    weight = weight_of(t, c, sums.homes)
    best, best_pool, best_path, best_bucket = limit, -1, 0, 0
    n = c.source[t]
    for j in range(pools):
        s = c.order[t, j]
        own = c.least[t, j]
        if s < 0 or own * weight >= best:
            break
        row, first_path = s * kinds, (n * pools + s) * paths
        for b in range(buckets - c.lead[t, s]):
            value = own + c.delay[t] * b
            if b > c.due[t, s]:
                value += c.late[t]
            value *= weight
            if value >= best:
                break
            if not pool_fits(t, s, b, c, pool_free):
                continue
            begin = b + c.lead[t, s]
            end = min(buckets, begin + c.duration[t, s])
            for r in range(kinds):
                value += c.demand[t, r] * (sums.pools[row + r, end] - sums.pools[row + r, begin])
            if value >= best:
                continue
            if n < 0:
                best, best_pool, best_path, best_bucket = value, s, 0, b
                continue
            share = c.volume[t] / c.window[t, s]
            stop = min(buckets, b + c.window[t, s])
            for k in range(paths):
                whole = value + c.detour[n, s, k] * c.volume[t] * weight
                whole += share * (sums.paths[first_path + k, stop] - sums.paths[first_path + k, b])
                if whole < best and path_fits(t, s, k, b, c, link_free):
                    best, best_pool, best_path, best_bucket = whole, s, k, b
    return best, best_pool, best_path, best_bucket


@njit(cache=True)
def take(sign, t, s, k, b, c, pool_free, link_free):  # type: ignore[no-untyped-def]
    """Take an option from what is free (sign 1), or give it back (sign -1); pool -1 takes nothing."""
    if s < 0:
        return
    kinds, buckets = c.demand.shape[1], pool_free.shape[1]
    begin = b + c.lead[t, s]
    for r in range(kinds):
        if c.demand[t, r] > 0.0:
            for i in range(begin, min(buckets, begin + c.duration[t, s])):
                pool_free[s * kinds + r, i] -= sign * c.demand[t, r]
    n = c.source[t]
    if n >= 0:
        share = sign * c.volume[t] / c.window[t, s]
        which = (n * c.order.shape[1] + s) * c.path_cost.shape[2] + k
        for j in range(c.path_start[which], c.path_start[which + 1]):
            for i in range(b, min(buckets, b + c.window[t, s])):
                link_free[c.path_links[j], i] -= share
