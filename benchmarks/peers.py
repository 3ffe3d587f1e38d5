"""What joint placement is compared with: exact solvers under a time limit, greedy orders, and decisions split in two."""

from __future__ import annotations

import time
from dataclasses import dataclass

import highspy
import numpy as np
from ortools.sat.python import cp_model

from isthmus.placement.joint.assign import costs, look, no_sums, nothing_held, place
from isthmus.placement.joint.audit import every_option, matrix, model
from isthmus.placement.joint.columns import Columns, Holding, columns, sums
from isthmus.placement.joint.options import path_fits, pool_fits, take
from isthmus.placement.joint.problem import Floats, Ints, Order, Problem, no_prices


@dataclass(frozen=True)
class Outcome:
    """Cost of an assignment, seconds of one processor it took, and share of the tasks that meet their deadlines."""

    cost: float
    seconds: float
    in_time: float
    admitted: float


def outcome(problem: Problem, pool: Ints, path: Ints, bucket: Ints, seconds: float) -> Outcome:
    """The figures of an assignment; `admitted` is the share of all data whose task is placed."""
    c = columns(problem)
    held = Holding(pool, path, bucket, *nothing_held(problem)[3:])
    placed = pool >= 0
    due = problem.due[np.arange(len(pool)), np.maximum(pool, 0)]
    whole = max(float(problem.volume.sum()), 1e-12)
    return Outcome(
        cost=float(costs(c, held).sum()),
        seconds=seconds,
        in_time=float((placed & (bucket <= due)).mean()),
        admitted=float(problem.volume[placed].sum()) / whole,
    )


def in_order(problem: Problem, by_regret: bool) -> Outcome:
    """Each task takes the cheapest place (with its data's path) that has room: as they come, or the most regret first."""
    begun = time.process_time()
    c = columns(problem)
    free = sums(problem, no_prices(problem))
    sequence: Order = np.arange(len(problem.volume))
    if by_regret:
        _, regret = look(c, free)
        sequence = np.argsort(-regret, kind="stable")
    held = nothing_held(problem)
    place(sequence, c, no_sums(free), held)
    return outcome(problem, held.pool, held.path, held.bucket, time.process_time() - begun)


def split(problem: Problem, nearest: bool = False) -> Outcome:
    """Site first: the cheapest with room, its data ignored (or the one nearest to the data); then the first path with room.

    A task whose site cannot be reached over any path is deferred, as the two decisions do not see each other.
    """
    begun = time.process_time()
    c = columns(problem)
    held = nothing_held(problem)
    far = np.where(np.isfinite(problem.paths.cost), problem.paths.cost, np.inf).min(axis=2)
    for t in range(len(problem.volume)):
        n = problem.source[t]
        site_cost = far[n] if nearest and n >= 0 else problem.cost[t]
        site_cost = np.where(np.isfinite(problem.cost[t]), site_cost, np.inf)
        found = _earliest(t, np.argsort(site_cost, kind="stable"), site_cost, c, held)
        if found is None:
            continue
        s, b = found
        for k in np.argsort(problem.paths.cost[n, s], kind="stable") if n >= 0 else [0]:
            if n < 0 or (np.isfinite(problem.paths.cost[n, s, k]) and path_fits(t, s, k, b, c, held.link_free)):
                take(1, t, s, k, b, c, held.pool_free, held.link_free)
                held.pool[t], held.path[t], held.bucket[t] = s, k, b
                break
    return outcome(problem, held.pool, held.path, held.bucket, time.process_time() - begun)


def _earliest(t: int, pools: Order, site_cost: Floats, c: Columns, held: Holding) -> tuple[int, int] | None:
    """The first pool of the order that has room at some time, and its first such bucket."""
    for s in pools:
        if not np.isfinite(site_cost[s]):
            return None
        for b in range(held.pool_free.shape[1] - c.lead[t, s]):
            if pool_fits(t, s, b, c, held.pool_free):
                return int(s), b
    return None


def _from_options(problem: Problem, options: Ints, taken: Order, seconds: float) -> Outcome:
    tasks = len(problem.volume)
    pool, path, bucket = np.full(tasks, -1, np.int32), np.zeros(tasks, np.int32), np.zeros(tasks, np.int32)
    for t, s, k, b in options[taken]:
        pool[t], path[t], bucket[t] = s, k, b
    return outcome(problem, pool, path, bucket, seconds)


def integer_program(problem: Problem, seconds: float) -> Outcome:
    """HiGHS on the whole integer program, one thread, so many seconds by the clock; everything deferred if it finds nothing."""
    begun = time.process_time()
    c = columns(problem)
    options = every_option(problem, c)
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("time_limit", seconds)
    solver.passModel(model(problem, c, np.ones(len(problem.volume)), options, whole=True))
    solver.run()
    value = np.array(solver.getSolution().col_value)
    found = len(value) > 0 and solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    taken = np.flatnonzero(value[: len(options)] > 0.5) if found else np.zeros(0, np.int64)
    return _from_options(problem, options, taken, time.process_time() - begun)


def constraint_program(problem: Problem, seconds: float, pools: int = 8) -> Outcome:
    """CP-SAT, one worker, so many seconds by the clock, over each task's cheapest `pools` pools (all of them do not load)."""
    begun = time.process_time()
    c = columns(problem)
    options = every_option(problem, c)
    rank = np.full(problem.cost.shape, 10**6)
    rows = np.arange(len(rank))[:, None]
    known = c.order >= 0
    rank[np.broadcast_to(rows, known.shape)[known], c.order[known]] = np.broadcast_to(
        np.arange(rank.shape[1]), rank.shape
    )[known]
    options = np.ascontiguousarray(options[rank[options[:, 0], options[:, 1]] < pools])
    kinds, buckets = problem.demand.shape[1], problem.buckets
    tasks, first_link = len(problem.volume), len(problem.volume) + problem.capacity.size
    start, row, figure, cost = matrix(c, options, buckets, kinds, tasks, first_link)
    capacity = np.concatenate([problem.capacity.ravel(), problem.link_capacity.ravel()])
    unit = 1000.0
    program = cp_model.CpModel()
    taken = [program.new_bool_var("") for _ in range(len(options))]
    column = np.repeat(np.arange(len(options)), np.diff(start))
    for which in np.split(
        np.argsort(row, kind="stable"), np.cumsum(np.bincount(row, minlength=tasks + len(capacity)))[:-1]
    ):
        if not len(which):
            continue
        at = int(row[which[0]])
        of = [taken[j] for j in column[which]]
        if at < tasks:
            program.add_at_most_one(of)
        else:
            whole = np.ceil(figure[which] * unit - 1e-6).astype(int).tolist()
            program.add(cp_model.LinearExpr.weighted_sum(of, whole) <= int(capacity[at - tasks] * unit))
    gain = np.round((cost - problem.defer_cost[options[:, 0]]) * unit).astype(int).tolist()
    program.minimize(cp_model.LinearExpr.weighted_sum(taken, gain))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_time_in_seconds = seconds
    found = solver.solve(program) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    value = np.array([solver.boolean_value(var) for var in taken]) if found else np.zeros(len(options), bool)
    return _from_options(problem, options, np.flatnonzero(value), time.process_time() - begun)
