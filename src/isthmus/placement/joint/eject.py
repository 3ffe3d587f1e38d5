"""Moves with ejection: a task takes the option it wants from tasks that lose less by it than the task gains; compiled.

Who makes room is looked for among the holders of what is missing, those with the least regret at the prices first,
because for them another place is nearly as good. A move that does not lower the cost of the assignment is undone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.placement.joint.options import (
    ROUNDING,
    best_fit,
    option_cost,
    path_fits,
    pool_fits,
    scarce_worth,
    take,
    weight_of,
)

DEPTH = 6  # at most so many tasks make room for one
WANTED = 3  # options that a task tries to get, the least reduced cost first
LOOKED_AT = 24  # holders of what is missing that are weighed for each
SCANNED = 200  # holders of the pool or link among whom they are looked for


@njit(cache=True)
def _count(sequence, c, h, at_pool, at_link, of_pool, of_link, write):  # type: ignore[no-untyped-def]
    for t in sequence:
        s = h.pool[t]
        if s < 0:
            continue
        if write:
            of_pool[at_pool[s]] = t
        at_pool[s] += 1
        if c.source[t] >= 0:
            which = (c.source[t] * c.order.shape[1] + s) * c.path_cost.shape[2] + h.path[t]
            for j in range(c.path_start[which], c.path_start[which + 1]):
                if write:
                    of_link[at_link[c.path_links[j]]] = t
                at_link[c.path_links[j]] += 1


@njit(cache=True)
def holders(sequence, c, h):  # type: ignore[no-untyped-def]
    """Tasks by pool, then by link, each in the given sequence: (start, tasks, start, tasks), in CSR."""
    pools, links = c.order.shape[1], h.link_free.shape[0]
    pool_count, link_count = np.zeros(pools, np.int64), np.zeros(links, np.int64)
    nobody = np.empty(0, np.int32)
    _count(sequence, c, h, pool_count, link_count, nobody, nobody, False)
    at_pool, at_link = np.zeros(pools + 1, np.int64), np.zeros(links + 1, np.int64)
    at_pool[1:], at_link[1:] = np.cumsum(pool_count), np.cumsum(link_count)
    of_pool, of_link = np.empty(at_pool[-1], np.int32), np.empty(at_link[-1], np.int32)
    _count(sequence, c, h, at_pool[:-1].copy(), at_link[:-1].copy(), of_pool, of_link, True)
    return at_pool, of_pool, at_link, of_link


@njit(cache=True)
def _missing(t, s, k, b, c, h):  # type: ignore[no-untyped-def]
    """The link that an option misses most of, -1 where a resource of the pool is missed more."""
    kinds, buckets = c.demand.shape[1], h.pool_free.shape[1]
    worst, link = 0.0, -1
    begin = b + c.lead[t, s]
    for r in range(kinds):
        wanted = c.demand[t, r]
        if wanted > 0.0:
            for i in range(begin, min(buckets, begin + c.duration[t, s])):
                worst = max(worst, (wanted * (1.0 - ROUNDING) - h.pool_free[s * kinds + r, i]) / wanted)
    n = c.source[t]
    if n >= 0 and c.volume[t] > 0.0:
        share = c.volume[t] / c.window[t, s]
        which = (n * c.order.shape[1] + s) * c.path_cost.shape[2] + k
        for j in range(c.path_start[which], c.path_start[which + 1]):
            for i in range(b, min(buckets, b + c.window[t, s])):
                lack = (share * (1.0 - ROUNDING) - h.link_free[c.path_links[j], i]) / share
                if lack > worst:
                    worst, link = lack, c.path_links[j]
    return link


@njit(cache=True)
def _gives(u, t, s, b, link, c, h):  # type: ignore[no-untyped-def]
    """The share of what t misses at the pool s (or on the link) from bucket b on that u holds; of its scarcest row."""
    kinds, buckets = c.demand.shape[1], h.pool_free.shape[1]
    here = h.pool[u]
    least = np.inf
    if link < 0:
        if here != s:
            return 0.0
        begin = b + c.lead[t, s]
        low = h.bucket[u] + c.lead[u, s]
        high = low + c.duration[u, s]
        for r in range(kinds):
            for i in range(begin, min(buckets, begin + c.duration[t, s])):
                lack = c.demand[t, r] * (1.0 - ROUNDING) - h.pool_free[s * kinds + r, i]
                if c.demand[t, r] > 0.0 and lack > 0.0:
                    least = min(least, c.demand[u, r] / lack if low <= i < high else 0.0)
        return least if least < np.inf else 0.0
    if here < 0 or c.source[u] < 0:
        return 0.0
    which = (c.source[u] * c.order.shape[1] + here) * c.path_cost.shape[2] + h.path[u]
    uses = False
    for j in range(c.path_start[which], c.path_start[which + 1]):
        uses = uses or c.path_links[j] == link
    if not uses:
        return 0.0
    low = h.bucket[u]
    high = low + c.window[u, here]
    for i in range(b, min(buckets, b + c.window[t, s])):
        lack = c.volume[t] / c.window[t, s] * (1.0 - ROUNDING) - h.link_free[link, i]
        if lack > 0.0:
            least = min(least, c.volume[u] / c.window[u, here] / lack if low <= i < high else 0.0)
    return least if least < np.inf else 0.0


@njit(cache=True)
def _wishes(t, limit, c, sums, buckets, value, where):  # type: ignore[no-untyped-def]
    """Fill the options with the least reduced cost below `limit`, whether they fit or not, the least first; how many."""
    count = 0
    weight = weight_of(t, c, sums.homes)
    paths = c.path_cost.shape[2] if c.source[t] >= 0 else 1
    for j in range(c.order.shape[1]):
        s = c.order[t, j]
        edge = limit if count < WANTED else value[count - 1]
        if s < 0 or c.least[t, j] * weight >= edge:
            break
        for b in range(buckets - c.lead[t, s]):
            if weight * (c.least[t, j] + c.delay[t] * b) >= edge:
                break
            for k in range(paths):
                one = weight * option_cost(t, s, k, b, c)
                edge = limit if count < WANTED else value[count - 1]
                if one >= edge:
                    continue
                one += scarce_worth(t, s, k, b, c, sums)
                if one >= edge:
                    continue
                i = count if count < WANTED else WANTED - 1
                while i > 0 and value[i - 1] > one:
                    value[i] = value[i - 1]
                    where[i] = where[i - 1]
                    i -= 1
                value[i] = one
                where[i, 0], where[i, 1], where[i, 2] = s, k, b
                count = min(WANTED, count + 1)
    return count


@njit(cache=True)
def _who(t, s, k, b, gain, c, free, h, lists):  # type: ignore[no-untyped-def]
    """(task, loss): whose leaving costs least for what it gives, below `gain`; -1 when nobody's does."""
    at_pool, of_pool, at_link, of_link = lists
    link = _missing(t, s, k, b, c, h)
    first, last = (at_pool[s], at_pool[s + 1]) if link < 0 else (at_link[link], at_link[link + 1])
    chosen, score, loss = -1, np.inf, 0.0
    looked = 0
    for j in range(first, min(last, first + SCANNED)):
        if looked >= LOOKED_AT:
            break
        u = of_pool[j] if link < 0 else of_link[j]
        if u == t or h.pool[u] < 0:
            continue
        share = min(1.0, _gives(u, t, s, b, link, c, h))
        if share <= 0.0:
            continue
        looked += 1
        weight = weight_of(u, c, free.homes)
        mine = weight * option_cost(u, h.pool[u], h.path[u], h.bucket[u], c)
        limit = mine + min(gain, score * share)
        if c.least[u, 0] * weight >= limit:
            continue
        value, other, _, _ = best_fit(u, min(limit, c.defer[u] * weight), c, free, h.pool_free, h.link_free)
        if other < 0:
            value = c.defer[u] * weight
            if value >= limit:
                continue
        if (value - mine) / share < score:
            chosen, score, loss = u, (value - mine) / share, value - mine
    return chosen, loss


@njit(cache=True)
def _room(t, s, k, b, c, h):  # type: ignore[no-untyped-def]
    return pool_fits(t, s, b, c, h.pool_free) and path_fits(t, s, k, b, c, h.link_free)


@njit(cache=True)
def _try(t, s, k, b, gain, c, free, h, lists, out, was):  # type: ignore[no-untyped-def]
    """Whether t got the option with a gain over all; what was tried is undone otherwise. t holds nothing on entry."""
    count, lost = 0, 0.0
    while not _room(t, s, k, b, c, h):
        if count == DEPTH:
            break
        u, loss = _who(t, s, k, b, gain - lost, c, free, h, lists)
        if u < 0:
            break
        lost += loss
        out[count] = u
        was[count, 0], was[count, 1], was[count, 2] = h.pool[u], h.path[u], h.bucket[u]
        take(-1, u, h.pool[u], h.path[u], h.bucket[u], c, h.pool_free, h.link_free)
        h.pool[u] = -1
        count += 1
    change = np.inf
    if _room(t, s, k, b, c, h):
        take(1, t, s, k, b, c, h.pool_free, h.link_free)
        change = -gain
        for i in range(count):
            u = out[i]
            weight = weight_of(u, c, free.homes)
            value, other, path, bucket = best_fit(u, c.defer[u] * weight, c, free, h.pool_free, h.link_free)
            change += value - weight * option_cost(u, was[i, 0], was[i, 1], was[i, 2], c)
            take(1, u, other, path, bucket, c, h.pool_free, h.link_free)
            h.pool[u], h.path[u], h.bucket[u] = other, path, bucket
        if change < -1e-9 * gain:
            h.pool[t], h.path[t], h.bucket[t] = s, k, b
            return -change
        take(-1, t, s, k, b, c, h.pool_free, h.link_free)
    for i in range(count):
        u = out[i]
        take(-1, u, h.pool[u], h.path[u], h.bucket[u], c, h.pool_free, h.link_free)
    for i in range(count):
        u = out[i]
        h.pool[u], h.path[u], h.bucket[u] = was[i, 0], was[i, 1], was[i, 2]
        take(1, u, h.pool[u], h.path[u], h.bucket[u], c, h.pool_free, h.link_free)
    return 0.0


@njit(cache=True)
def eject(sequence, c, sums, free, h, lists):  # type: ignore[no-untyped-def]
    """One pass: each task of the sequence tries to get an option that is better at the prices from others; the gain.

    `free` are the sums without prices, `lists` what `holders` says.
    """
    value, where = np.empty(WANTED), np.empty((WANTED, 3), np.int32)
    out, was = np.empty(DEPTH, np.int32), np.empty((DEPTH, 3), np.int32)
    gained = 0.0
    for t in sequence:
        s, k, b = h.pool[t], h.path[t], h.bucket[t]
        weight = weight_of(t, c, sums.homes)
        now = weight * option_cost(t, s, k, b, c)
        priced = now + (scarce_worth(t, s, k, b, c, sums) if s >= 0 else 0.0)
        wishes = _wishes(t, priced - 1e-9 * abs(priced), c, sums, h.pool_free.shape[1], value, where)
        if wishes == 0:
            continue
        take(-1, t, s, k, b, c, h.pool_free, h.link_free)
        h.pool[t] = -1
        got = 0.0
        for w in range(wishes):
            gain = now - weight * option_cost(t, where[w, 0], where[w, 1], where[w, 2], c)
            if gain > 1e-9 * abs(now):
                got = _try(t, where[w, 0], where[w, 1], where[w, 2], gain, c, free, h, lists, out, was)
            if got > 0.0:
                gained += got
                break
        if got == 0.0:
            h.pool[t] = s
            take(1, t, s, k, b, c, h.pool_free, h.link_free)
    return gained
