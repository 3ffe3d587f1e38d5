"""From prices to an assignment: place in an order, then single moves; compiled. Every step keeps every capacity."""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.placement.joint.columns import Holding, Sums
from isthmus.placement.joint.options import best_fit, best_option, option_cost, scarce_worth, take, weight_of
from isthmus.placement.joint.problem import Floats, Order, Problem

TRIES = (  # (prices times, regret times): the more scarce things seem while placing, the more is left for those who come last
    (1.02, "cost"),
    (1.02, "deferring"),
    (1.04, "deferring"),
    (1.0, "cost"),
    (1.02, "delay"),
    (1.04, "cost"),
    (1.0, "deferring"),
    (1.02, "share"),
    (1.0, "share"),
    (1.01, "cost"),
)


def orders(problem: Problem, floor: Floats, regret: Floats) -> dict[str, Order]:
    """Sequences to place tasks in, the largest first; of several placings the best is kept, for none is best for every round.

    Regret times the task's cost; times the cost of being deferred; times the cost of a delay; times the largest share of a
    resource of all pools that it asks for (large tasks first, for what is left is in pieces later).
    """
    share = problem.demand / np.maximum(problem.capacity.sum(axis=(0, 2)), 1e-12)
    keys = {
        "cost": regret * np.abs(floor),
        "deferring": regret * np.abs(problem.defer_cost),
        "delay": regret * problem.delay_cost,
        "share": regret * share.max(axis=1, initial=0.0),
    }
    return {name: np.argsort(-key, kind="stable") for name, key in keys.items()}


@njit(cache=True)
def look(c, sums):  # type: ignore[no-untyped-def]
    """For each task [T] at these prices: least reduced cost, and regret: what another pool, or being deferred, costs more."""
    tasks = len(c.defer)
    floor, regret = np.empty(tasks), np.empty(tasks)
    for t in range(tasks):
        value, _, _, _, second = best_option(t, c, sums)
        floor[t] = value
        regret[t] = min(second, c.defer[t] * weight_of(t, c, sums.homes)) - value
    return floor, regret


def nothing_held(problem: Problem) -> Holding:
    """Every task deferred, everything free."""
    pools, kinds, buckets = problem.capacity.shape
    tasks = len(problem.volume)
    return Holding(
        np.full(tasks, -1, np.int32),
        np.zeros(tasks, np.int32),
        np.zeros(tasks, np.int32),
        problem.capacity.reshape(pools * kinds, buckets).copy(),
        problem.link_capacity.copy(),
    )


def raised(sums: Sums, factor: float) -> Sums:
    """The prices times a factor."""
    return Sums(sums.pools * factor, sums.paths * factor, sums.homes)


def no_sums(sums: Sums) -> Sums:
    """Everything free but the homes: what moves are judged by."""
    return Sums(np.zeros_like(sums.pools), np.zeros_like(sums.paths), sums.homes)


@njit(cache=True)
def place(sequence, c, sums, h):  # type: ignore[no-untyped-def]
    """Each task in the sequence takes its cheapest option at these prices that fits, or is deferred; the cost of all."""
    total = 0.0
    for t in sequence:
        limit = c.defer[t] * weight_of(t, c, sums.homes)
        _, s, k, b = best_fit(t, limit, c, sums, h.pool_free, h.link_free)
        take(1, t, s, k, b, c, h.pool_free, h.link_free)
        h.pool[t], h.path[t], h.bucket[t] = s, k, b
        total += option_cost(t, s, k, b, c)
    return total


@njit(cache=True)
def costs(c, h):  # type: ignore[no-untyped-def]
    """[T]: what each task's option costs."""
    each = np.empty(len(c.defer))
    for t in range(len(each)):
        each[t] = option_cost(t, h.pool[t], h.path[t], h.bucket[t], c)
    return each


@njit(cache=True)
def losses(c, sums, floor, h):  # type: ignore[no-untyped-def]
    """[T]: how far each task's option is, at the prices, from its best; they add up to all of the gap but unused worth."""
    lost = np.empty(len(floor))
    for t in range(len(floor)):
        s, k, b = h.pool[t], h.path[t], h.bucket[t]
        lost[t] = option_cost(t, s, k, b, c) * weight_of(t, c, sums.homes) - floor[t]
        if s >= 0:
            lost[t] += scarce_worth(t, s, k, b, c, sums)
    return lost


@njit(cache=True)
def move(sequence, c, free, h):  # type: ignore[no-untyped-def]
    """One pass: each task moves to its cheapest option that fits, if it is cheaper than its own; the gain.

    `free` are the sums without prices.
    """
    gained = 0.0
    for t in sequence:
        s, k, b = h.pool[t], h.path[t], h.bucket[t]
        now = option_cost(t, s, k, b, c) * weight_of(t, c, free.homes)
        limit = now - 1e-9 * abs(now)
        if c.least[t, 0] * weight_of(t, c, free.homes) >= limit:
            continue
        take(-1, t, s, k, b, c, h.pool_free, h.link_free)
        value, other, other_path, other_bucket = best_fit(t, limit, c, free, h.pool_free, h.link_free)
        if other >= 0:
            gained += now - value
            s, k, b = other, other_path, other_bucket
            h.pool[t], h.path[t], h.bucket[t] = s, k, b
        take(1, t, s, k, b, c, h.pool_free, h.link_free)
    return gained
