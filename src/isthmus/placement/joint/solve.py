"""One round: prices, an assignment from them, and its certificate. Deterministic; its work is bounded by counts.

Every answer is within every capacity, and `Answer.dual` bounds from below what any answer could cost.
"""

from __future__ import annotations

import numpy as np

from isthmus.placement.joint.assign import (
    TRIES,
    costs,
    look,
    losses,
    move,
    no_sums,
    nothing_held,
    orders,
    place,
    raised,
)
from isthmus.placement.joint.climb import climb
from isthmus.placement.joint.columns import Columns, Holding, Sums, columns, sums
from isthmus.placement.joint.eject import eject, holders
from isthmus.placement.joint.problem import Answer, Budget, Floats, Prices, Problem, no_prices

ENOUGH = 2e-4  # a pass that gains less than this share of the cost is the last


def solve(problem: Problem, prices: Prices | None = None, budget: Budget | None = None) -> Answer:
    """Assign every task an option or defer it, from the last round's `prices` when they are given.

    With 0 sweeps the prices stay as they are, and with none given the answer is that of placing greedily by regret.
    """
    budget = budget or Budget()
    given = no_prices(problem) if prices is None else prices
    c = columns(problem)
    dual, found = climb(problem, c, given, max(1, budget.sweeps))
    priced = sums(problem, found)
    floor, regret = look(c, priced)
    held = _placed(problem, c, priced, floor, regret, budget.placings)
    _improve(c, priced, floor, regret, held, budget)
    primal, excess = _cost(problem, c, held)
    return Answer(
        pool=held.pool,
        path=held.path,
        bucket=held.bucket,
        primal=primal,
        dual=dual,
        prices=found,
        home_excess=excess,
    )


def _placed(problem: Problem, c: Columns, priced: Sums, floor: Floats, regret: Floats, tries: int) -> Holding:
    """The cheapest of several placings."""
    best, least = nothing_held(problem), np.inf
    sequences = orders(problem, floor, regret)
    for factor, name in TRIES[: max(1, tries)]:
        held = nothing_held(problem)
        total = place(sequences[name], c, raised(priced, factor), held)
        if total < least:
            best, least = held, total
    return best


def _improve(c: Columns, priced: Sums, floor: Floats, regret: Floats, held: Holding, budget: Budget) -> None:
    """Moves and ejections of the tasks that lose most at the prices, until they gain little."""
    free = no_sums(priced)
    marginal = np.argsort(regret, kind="stable")
    for _ in range(budget.passes):
        lost = losses(c, priced, floor, held)
        sequence = np.argsort(-lost, kind="stable")[: budget.moved(len(lost))]
        sequence = sequence[lost[sequence] > 1e-9 * np.abs(floor).mean()]
        gain = move(sequence, c, free, held) + eject(sequence, c, priced, free, held, holders(marginal, c, held))
        if gain < ENOUGH * np.abs(floor).sum():
            break


def _cost(problem: Problem, c: Columns, held: Holding) -> tuple[float, Floats]:
    each = costs(c, held)
    homed = problem.home >= 0
    at_home = np.bincount(problem.home[homed], weights=each[homed], minlength=len(problem.alone))
    return float(each.sum()), np.maximum(0.0, at_home - problem.alone)
