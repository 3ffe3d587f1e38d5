"""The joint problem as arrays, the prices of what is scarce, and the answer with its certificate.

An option of a task is (pool, path, bucket): its data moves over the path during `window` buckets from the option's
bucket on, and it runs at the pool for `duration` buckets, `lead` buckets after the option's bucket. What reaches past
the last bucket is not counted here; the caller's next round counts it as a promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int32]
Shorts: TypeAlias = NDArray[np.int16]
Order: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Paths:
    """Candidate paths from each of N data sources to each of S pools, at most K each; links in CSR.

    `cost` [N, S, K]: cost of moving one unit of volume; inf where there is no such path. `start` [N*S*K + 1] and
    `links`: path (n, s, k) uses links[start[i]:start[i + 1]] with i = (n*S + s)*K + k; an empty path costs no capacity.
    """

    cost: Floats
    start: Ints
    links: Ints

    def of(self, source: int, pool: int, path: int) -> Ints:
        """The links of one path."""
        index = (source * self.cost.shape[1] + pool) * self.cost.shape[2] + path
        return self.links[self.start[index] : self.start[index + 1]]


def no_paths(pools: int) -> Paths:
    """The table of a round in which no data moves."""
    return Paths(cost=np.zeros((0, pools, 1)), start=np.zeros(1, np.int32), links=np.zeros(0, np.int32))


_WHOLE = dict.fromkeys(("source", "home"), "int32") | dict.fromkeys(("duration", "lead", "window", "due"), "int16")
_REAL = ("cost", "demand", "capacity", "volume", "link_capacity", "delay_cost", "late_cost", "defer_cost", "alone")
_KINDS = _WHOLE | dict.fromkeys(_REAL, "float64")


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """T tasks, S pools, R resources, B buckets of equal length, L links, H homes. Costs are in one unit of the caller.

    | field | shape | meaning |
    |---|---|---|
    | cost | [T, S] | cost of the task at the pool when it starts in bucket 0, without its data; inf = impossible |
    | demand | [T, R] | what the task holds of each resource while it runs (processors, bytes, devices) |
    | capacity | [S, R, B] | what the pool has of each resource in each bucket, promises taken off |
    | duration | [T, S] | buckets of running, 1 or more |
    | lead | [T, S] | buckets from the option's bucket to the start of running, 0 or more |
    | window | [T, S] | buckets during which data moves, 1 or more; each carries volume / window |
    | volume | [T] | data to move, in the unit of link_capacity |
    | source | [T] | row of `paths`, -1 = no data to move |
    | link_capacity | [L, B] | volume that the link carries in each bucket |
    | delay_cost | [T] | cost of each bucket of delay |
    | due | [T, S] | last bucket that meets the deadline; B - 1 or more = no deadline |
    | late_cost | [T] | cost of a later bucket; inf = may not be late |
    | defer_cost | [T] | cost of not being placed in this round; finite |
    | home | [T] | home of the task's user, -1 = none |
    | alone | [H] | what the home's tasks would cost together without the others: they must not cost more; inf = off |
    """

    cost: Floats
    demand: Floats
    capacity: Floats
    duration: Shorts
    lead: Shorts
    window: Shorts
    volume: Floats
    source: Ints
    paths: Paths
    link_capacity: Floats
    delay_cost: Floats
    due: Shorts
    late_cost: Floats
    defer_cost: Floats
    home: Ints
    alone: Floats

    def __post_init__(self) -> None:
        """ValueError names the first field whose shape or range is wrong."""
        tasks, pools = self.cost.shape
        kinds, buckets = self.demand.shape[1], self.capacity.shape[2]
        if not tasks or not pools or not buckets:
            raise ValueError(f"cost has shape {self.cost.shape}: a problem needs a task, a pool and a bucket")
        shapes: dict[str, tuple[int, ...]] = {
            "demand": (tasks, kinds),
            "capacity": (pools, kinds, buckets),
            "link_capacity": (self.link_capacity.shape[0], buckets),
            "alone": (self.alone.shape[0],),
        }
        shapes |= dict.fromkeys(("duration", "lead", "window", "due"), (tasks, pools))
        shapes |= dict.fromkeys(("volume", "source", "delay_cost", "late_cost", "defer_cost", "home"), (tasks,))
        for name, shape in shapes.items():
            found: Any = getattr(self, name)
            if found.shape != shape:
                raise ValueError(f"{name} has shape {found.shape}, not {shape}")
        for name, kind in _KINDS.items():
            found = getattr(self, name)
            if found.dtype != kind or not found.flags.c_contiguous:
                raise ValueError(f"{name} must be {kind} in C order, not {found.dtype}")
        if self.paths.cost.shape[1] != pools:
            raise ValueError(f"paths.cost is for {self.paths.cost.shape[1]} pools, not {pools}")
        for name in ("demand", "capacity", "volume", "link_capacity", "delay_cost", "late_cost", "lead"):
            found = getattr(self, name)
            if found.size and not found.min() >= 0:
                raise ValueError(f"{name} holds a figure below 0 or not a number")
        for name in ("duration", "window"):
            if getattr(self, name).min() < 1:
                raise ValueError(f"{name} holds a figure below 1")
        if not np.isfinite(self.defer_cost).all():
            raise ValueError("defer_cost must be finite")
        if np.isnan(self.cost).any() or np.isneginf(self.cost).any():
            raise ValueError("cost holds a figure that is not a number, or minus infinity")
        if self.source.max() >= self.paths.cost.shape[0] or self.home.max() >= len(self.alone):
            raise ValueError("source or home points past its table")

    @property
    def buckets(self) -> int:
        """B."""
        return int(self.capacity.shape[2])

    def cost_of(self, task: int, pool: int, path: int, bucket: int) -> float:
        """Cost of one option; pool -1 is to be deferred."""
        if pool < 0:
            return float(self.defer_cost[task])
        cost = float(self.cost[task, pool] + self.delay_cost[task] * bucket)
        if bucket > self.due[task, pool]:
            cost += float(self.late_cost[task])
        if self.source[task] >= 0:
            cost += float(self.volume[task] * self.paths.cost[self.source[task], pool, path])
        return cost


@dataclass(frozen=True, eq=False, kw_only=True)
class Prices:
    """What one unit costs: `pools` [S, R, B] of a resource, `links` [L, B] of volume, `homes` [H] without unit.

    All are 0 or more; 0 where there is enough.
    """

    pools: Floats
    links: Floats
    homes: Floats


def no_prices(problem: Problem) -> Prices:
    """Everything free: where a first round starts."""
    return Prices(
        pools=np.zeros(problem.capacity.shape),
        links=np.zeros(problem.link_capacity.shape),
        homes=np.zeros(problem.alone.shape),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much work a round may do, in counts, so that the same problem always gets the same answer.

    `sweeps` of prices over all tasks; so many `placings`, of which the best is kept; at most `passes` of moves and ejections, each of those tasks that lose most: 3 of a
    hundred, and 200. 0 sweeps and 0 passes is the greedy answer.
    """

    sweeps: int = 40
    placings: int = 5
    passes: int = 2

    def moved(self, tasks: int) -> int:
        """Tasks that one pass may move."""
        return 200 + tasks * 3 // 100


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """The assignment and its certificate: no answer within the capacities costs less than `dual`.

    `pool`, `path`, `bucket` [T]: -1 in `pool` is deferred. `primal` is the cost of the assignment, `gap` is
    (primal - dual) / |dual|. `home_excess` [H]: cost of each home above what it would be alone, 0 where it is kept.
    """

    pool: Ints
    path: Ints
    bucket: Ints
    primal: float
    dual: float
    prices: Prices
    home_excess: Floats

    @property
    def gap(self) -> float:
        """How far above the bound the assignment can be at most, relative to the bound."""
        return (self.primal - self.dual) / max(abs(self.dual), 1e-12)
