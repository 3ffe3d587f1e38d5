"""Tasks that need two pools at the same time: few, hard, and solved exactly with CP-SAT at the prices of the round.

They are placed first, against what is free, and pay the round's prices for it, so that they leave to the others what the
others need more. Needs the optional extra `exact` (ortools).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from isthmus.placement.joint.problem import Floats, Ints, Prices

PARTS = 1_000_000  # a resource that is not counted in whole numbers is, in parts of the largest; demands rounded up


@dataclass(frozen=True, eq=False, kw_only=True)
class Core:
    """C tasks, each over a pair of pools out of P pairs, for `duration` buckets from the same bucket on.

    `first`, `second` [P]: the pools of each pair. `cost` [C, P]: inf = impossible. `demand_first`, `demand_second` [C, R]: what
    the task holds at either. `capacity` [S, R, B], `duration` [C], `delay_cost` [C] per bucket, `defer_cost` [C].
    """

    first: Ints
    second: Ints
    cost: Floats
    demand_first: Floats
    demand_second: Floats
    capacity: Floats
    duration: Ints
    delay_cost: Floats
    defer_cost: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class CoreAnswer:
    """`pair` and `bucket` [C] (pair -1 = deferred); `value` at the prices; `proven`: no answer is better but for rounding."""

    pair: Ints
    bucket: Ints
    value: float
    proven: bool


def _unit(core: Core, kind: int) -> float:
    figures = np.concatenate([core.capacity[:, kind].ravel(), core.demand_first[:, kind], core.demand_second[:, kind]])
    if (figures == np.floor(figures)).all() and figures.max(initial=0.0) < 2.0**50:
        return 1.0
    return max(float(core.capacity[:, kind].max(initial=0.0)), 1e-300) / PARTS


def solve_core(core: Core, prices: Prices, work: float = 10.0) -> CoreAnswer:
    """The cheapest answer at the prices; `work` in CP-SAT's deterministic seconds, so that the answer does not depend on load."""
    tasks, pairs = core.cost.shape
    buckets = core.capacity.shape[2]
    until = np.concatenate([np.zeros((*prices.pools.shape[:2], 1)), prices.pools.cumsum(axis=2)], axis=2)
    unit = [_unit(core, r) for r in range(core.capacity.shape[1])]
    largest = max(float(np.abs(core.defer_cost).max(initial=0.0)), 1e-300)
    model = cp_model.CpModel()
    used: dict[tuple[int, int, int], list[tuple[cp_model.IntVar, int]]] = {}
    chosen: list[list[tuple[cp_model.IntVar, int, int, float]]] = []
    for t in range(tasks):
        options: list[tuple[cp_model.IntVar, int, int, float]] = []
        for p, b in ((p, b) for p in range(pairs) if np.isfinite(core.cost[t, p]) for b in range(buckets)):
            end = min(buckets, b + int(core.duration[t]))
            value = float(core.cost[t, p] + core.delay_cost[t] * b)
            parts = ((core.first[p], core.demand_first[t]), (core.second[p], core.demand_second[t]))
            value += sum(float(demand @ (until[s, :, end] - until[s, :, b])) for s, demand in parts)
            if value >= core.defer_cost[t]:
                continue
            taken = model.new_bool_var("")
            options.append((taken, p, b, value))
            for s, demand in parts:
                for r in np.flatnonzero(demand):
                    whole = int(np.ceil(demand[r] / unit[r] * (1 - 1e-9)))
                    for i in range(b, end):
                        used.setdefault((int(s), int(r), i), []).append((taken, whole))
        model.add_at_most_one([option[0] for option in options])
        chosen.append(options)
    for (pool, kind, i), terms in used.items():
        room = int(np.floor(core.capacity[pool, kind, i] / unit[kind] * (1 + 1e-9)))
        model.add(sum(var * figure for var, figure in terms) <= room)
    model.minimize(
        sum(
            var * round((value - float(core.defer_cost[t])) / largest * PARTS)
            for t, options in enumerate(chosen)
            for var, _, _, value in options
        )
    )
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = work
    status = solver.solve(model)
    pair, bucket = np.full(tasks, -1, np.int32), np.zeros(tasks, np.int32)
    total = float(core.defer_cost.sum())
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        for t, options in enumerate(chosen):
            for var, p, b, value in options:
                if solver.boolean_value(var):
                    pair[t], bucket[t] = p, b
                    total += value - float(core.defer_cost[t])
    return CoreAnswer(pair=pair, bucket=bucket, value=total, proven=status == cp_model.OPTIMAL)
