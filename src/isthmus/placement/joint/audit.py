"""The linear relaxation, solved exactly with HiGHS over task classes: anchors the prices anew and audits the gap.

Tasks that are alike in every column (the elements of an array) are one class. Options are generated: the LP starts with
those near the best at the given prices and gets those that its own prices make attractive, until there are none
(column generation: Gilmore, Gomory 1961), so that its value is that of the LP over all options.
Needs the optional extra `exact` (highspy).
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
from numba import njit

from isthmus.placement.joint.assign import look
from isthmus.placement.joint.climb import climb
from isthmus.placement.joint.columns import Columns, columns, sums
from isthmus.placement.joint.options import option_cost, scarce_worth, weight_of
from isthmus.placement.joint.problem import Floats, Ints, Order, Prices, Problem, no_prices

CLOSE = 1e-6  # how near the bound at the LP's prices must come to the LP's value, relative


@dataclass(frozen=True, eq=False, kw_only=True)
class Audit:
    """`value` of the LP over the options generated, `bound` at its prices (no assignment costs less), and those prices.

    `exact`: the two agree, so that `value` is the optimum of the LP over all options.
    """

    value: float
    bound: float
    prices: Prices
    classes: int
    options: int
    rounds: int

    @property
    def exact(self) -> bool:
        """Whether the LP over all options was solved to its optimum."""
        return self.value - self.bound <= CLOSE * max(abs(self.value), 1e-9)


def audit(problem: Problem, prices: Prices, rounds: int = 12) -> Audit:
    """Solve the LP, with at most so many rounds of generated options; `prices` say where to begin."""
    if np.isfinite(problem.alone).any():
        raise ValueError("the audit is for rounds without home rows")
    members, counts = _classes(problem)
    small = _some(problem, members)
    c = columns(small)
    priced = sums(small, prices)
    floor, regret = look(c, priced)
    reach = floor + np.maximum(np.median(regret), 1e-6)
    options = _below(c, priced, reach)
    best_bound, best_prices, value, turn = -np.inf, prices, np.inf, 0
    for turn in range(1, rounds + 1):  # noqa: B007
        value, found, of_class = _lp(small, c, counts, options)
        bound = climb(problem, columns(problem), found, 1)[0]
        if bound > best_bound:
            best_bound, best_prices = bound, found
        if value - best_bound <= CLOSE * max(abs(value), 1e-9):
            break
        more = _below(c, sums(small, found), of_class + 1e-9 * np.abs(of_class))
        options = np.unique(np.concatenate([options, more]), axis=0)
    return Audit(
        value=value,
        bound=best_bound,
        prices=best_prices,
        classes=len(members),
        options=len(options) + len(members),
        rounds=turn,
    )


def every_option(problem: Problem, c: Columns) -> Ints:
    """All options [n, 4] (task, pool, path, bucket) that cost less than being deferred: what an exact solver chooses from."""
    found: Ints = _below(c, sums(problem, no_prices(problem)), problem.defer_cost)
    return found


def _classes(problem: Problem) -> tuple[Order, Floats]:
    """The first task of each class, and how many there are of it."""
    p = problem
    parts = [p.cost, p.demand, p.duration, p.lead, p.window, p.due]
    parts += [column[:, None] for column in (p.volume, p.source, p.delay_cost, p.late_cost, p.defer_cost)]
    rows = np.ascontiguousarray(np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, count = np.unique(keys, return_index=True, return_counts=True)
    return first, count.astype(np.float64)


def _some(problem: Problem, which: Order) -> Problem:
    p = problem
    return Problem(
        cost=p.cost[which],
        demand=p.demand[which],
        capacity=p.capacity,
        duration=p.duration[which],
        lead=p.lead[which],
        window=p.window[which],
        volume=p.volume[which],
        source=p.source[which],
        paths=p.paths,
        link_capacity=p.link_capacity,
        delay_cost=p.delay_cost[which],
        due=p.due[which],
        late_cost=p.late_cost[which],
        defer_cost=p.defer_cost[which],
        home=p.home[which],
        alone=p.alone,
    )


@njit(cache=True)
def _below(c, sums, reach):  # type: ignore[no-untyped-def]
    """Options [n, 4] (task, pool, path, bucket) whose reduced cost is below the task's reach."""
    buckets = sums.pools.shape[1] - 1
    found = np.empty((1024, 4), np.int32)
    count = 0
    for t in range(len(reach)):
        weight = weight_of(t, c, sums.homes)
        paths = c.path_cost.shape[2] if c.source[t] >= 0 else 1
        for j in range(c.order.shape[1]):
            s = c.order[t, j]
            if s < 0 or c.least[t, j] * weight >= reach[t]:
                break
            for b in range(buckets - c.lead[t, s]):
                for k in range(paths):
                    value = weight * option_cost(t, s, k, b, c)
                    if value >= reach[t] or value + scarce_worth(t, s, k, b, c, sums) >= reach[t]:
                        continue
                    if count == len(found):
                        larger = np.empty((2 * count, 4), np.int32)
                        larger[:count] = found
                        found = larger
                    found[count, 0], found[count, 1], found[count, 2], found[count, 3] = t, s, k, b
                    count += 1
    return found[:count].copy()


@njit(cache=True)
def matrix(c, options, buckets, kinds, first_row, first_link):  # type: ignore[no-untyped-def]
    """What options use, column by column in CSC: (start, row, figure, cost); a column's first entry is its task's row."""
    start = np.zeros(len(options) + 1, np.int64)
    costs = np.empty(len(options))
    rows, figures = np.empty(1024, np.int32), np.empty(1024)
    count = 0
    for o in range(len(options)):
        t, s, k, b = options[o]
        costs[o] = option_cost(t, s, k, b, c)
        n = c.source[t]
        which = (n * c.order.shape[1] + s) * c.path_cost.shape[2] + k
        hops = c.path_start[which + 1] - c.path_start[which] if n >= 0 else 0
        if count + 1 + (kinds + hops) * buckets > len(rows):
            more = 2 * len(rows) + (kinds + hops) * buckets
            wider, larger = np.empty(more, np.int32), np.empty(more)
            wider[:count], larger[:count] = rows[:count], figures[:count]
            rows, figures = wider, larger
        rows[count], figures[count] = t, 1.0
        count += 1
        begin = b + c.lead[t, s]
        for r in range(kinds):
            if c.demand[t, r] > 0.0:
                for i in range(begin, min(buckets, begin + c.duration[t, s])):
                    rows[count], figures[count] = first_row + (s * kinds + r) * buckets + i, c.demand[t, r]
                    count += 1
        if n >= 0:
            for j in range(c.path_start[which], c.path_start[which + 1]):
                for i in range(b, min(buckets, b + c.window[t, s])):
                    rows[count] = first_link + c.path_links[j] * buckets + i
                    figures[count] = c.volume[t] / c.window[t, s]
                    count += 1
        start[o + 1] = count
    return start, rows[:count].copy(), figures[:count].copy(), costs


def model(problem: Problem, c: Columns, counts: Floats, options: Ints, *, whole: bool) -> highspy.HighsLp:
    """The relaxation (or, `whole`, the integer program) over some options, and being deferred, as HiGHS reads it."""
    pools, kinds, buckets = problem.capacity.shape
    classes, taken = len(counts), len(options)
    first_link = classes + pools * kinds * buckets
    start, row, figure, cost = matrix(c, options, buckets, kinds, classes, first_link)
    capacity = np.concatenate([problem.capacity.ravel(), problem.link_capacity.ravel()])
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = taken + classes, classes + len(capacity)
    lp.col_cost_ = np.concatenate([cost, problem.defer_cost])
    lp.col_lower_ = np.zeros(lp.num_col_)
    lp.col_upper_ = np.concatenate([counts[options[:, 0]], counts])
    lp.row_lower_ = np.concatenate([counts, np.full(len(capacity), -highspy.kHighsInf)])
    lp.row_upper_ = np.concatenate([counts, capacity])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.concatenate([start, start[-1] + np.arange(1, classes + 1)]).astype(np.int32)
    lp.a_matrix_.index_ = np.concatenate([row, np.arange(classes, dtype=np.int32)])
    lp.a_matrix_.value_ = np.concatenate([figure, np.ones(classes)])
    if whole:
        lp.integrality_ = [highspy.HighsVarType.kInteger] * lp.num_col_
    return lp


def _lp(problem: Problem, c: Columns, counts: Floats, options: Ints) -> tuple[float, Prices, Floats]:
    """Value, prices, and what one more task of each class would cost."""
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 1)
    solver.passModel(model(problem, c, counts, options, whole=False))
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ended with {solver.getModelStatus()}")
    dual = np.array(solver.getSolution().row_dual)
    classes, rows = len(counts), problem.capacity.size
    prices = np.maximum(0.0, -dual[classes:])
    found = Prices(
        pools=prices[:rows].reshape(problem.capacity.shape),
        links=prices[rows:].reshape(problem.link_capacity.shape),
        homes=np.zeros(problem.alone.shape),
    )
    return float(solver.getObjectiveValue()), found, dual[:classes]
