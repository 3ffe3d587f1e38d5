"""SRv6 traffic engineering with at most one waypoint segment for each share of a demand (RFC 8986 End; RFC 9256 weighted lists).

IGP weights stay as they are: a share travels on equal-cost shortest paths to its waypoint, then on such paths to its target.
Which shares go over which waypoints is a linear programme over n^3 columns, solved by column generation (Bhatia et al., INFOCOM
2015): a master over the columns that ever paid, and a pricing step over all of them that also proves a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from isthmus.network.ecmp import distances, link_loads, reachable, split_ratios
from isthmus.network.linear import INFINITY, LinearProgramme
from isthmus.network.topology import Floats, Integers, Topology


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steering:
    """Row r sends `share[r]` of the demand from `source[r]` to `target[r]` over `waypoint[r]`; what no row names goes direct.

    `loads` [M] in bits/s. `bound` is a proven lower bound on the maximum utilisation over all one-waypoint splits.
    """

    source: Integers
    target: Integers
    waypoint: Integers
    share: Floats
    loads: Floats
    utilisation: float
    bound: float


def steer(
    topology: Topology,
    demands: Floats,
    *,
    good_enough: float = 0.0,
    gap: float = 1e-3,
    rounds: int = 200,
    ratios: Floats | None = None,
) -> Steering:
    """Weighted splits over one waypoint that minimise the maximum utilisation of `demands` [N, N] in bits/s.

    Stops when within `gap` of its own bound, at or under the utilisation `good_enough` (such as 1.001 times the
    multicommodity optimum), or after `rounds`. `ratios` are `split_ratios(topology)`, where the caller has them.
    Refused when a demand has no path.
    """
    wanted = topology.checked_demands(demands)
    reachable(topology, wanted, distances(topology, topology.weight))
    table = split_ratios(topology) if ratios is None else ratios
    direct = link_loads(topology, wanted) / topology.capacity_bits_per_second
    master = _Master(topology, wanted, table, direct)
    bound, best = 0.0, float(direct.max(initial=0.0))
    values = np.empty(0)
    for _ in range(rounds):
        theta, values, prices = master.solve()
        best = min(best, theta)
        gains, waypoints, proven = _price(topology, wanted, table, prices)
        bound = max(bound, proven)
        if best <= max(good_enough, bound * (1 + gap)) or not master.extend(gains, waypoints):
            break
    return master.steering(values, bound)


def _price(topology: Topology, demands: Floats, table: Floats, prices: Floats) -> tuple[Floats, Integers, float]:
    lengths = table @ (prices / topology.capacity_bits_per_second)
    lengths = np.where(np.isfinite(distances(topology, topology.weight)), lengths, np.inf)
    shortest, waypoint = lengths.copy(), np.tile(np.arange(len(lengths)), (len(lengths), 1))
    for middle in range(len(lengths)):
        over = lengths[:, middle, None] + lengths[None, middle, :]
        better = over < shortest - 1e-15
        shortest[better], waypoint[better] = over[better], middle
    used = demands > 0
    gains = np.zeros_like(demands)
    gains[used] = demands[used] * (lengths[used] - shortest[used])
    return gains, waypoint, float((demands[used] * shortest[used]).sum())


class _Master:
    """Columns are moves of a whole demand from its direct paths to one waypoint; a row for each demand that has moves."""

    def __init__(self, topology: Topology, demands: Floats, table: Floats, direct: Floats) -> None:
        self._topology, self._demands, self._table, self._direct = topology, demands, table, direct
        self._links = topology.link_count
        self._row_of: dict[tuple[int, int], int] = {}
        self._moves: list[tuple[int, int, int]] = []
        self._known: set[tuple[int, int, int]] = set()
        self._duals = np.empty(0)
        one = np.ones(1)
        rows = csc_array(-np.ones((self._links, 1)))
        lower = np.full(self._links, -INFINITY)
        self._programme = LinearProgramme(one, np.zeros(1), one * INFINITY, rows, lower, -direct)
        self._programme.option("solver", "simplex")

    def solve(self) -> tuple[float, Floats, Floats]:
        """Utilisation, share of each move, and the prices of links, which sum to one."""
        found = self._programme.solve()
        self._duals = found.duals[self._links :]
        prices = np.maximum(-found.duals[: self._links], 0.0)
        return found.objective, found.values[1:], prices / max(prices.sum(), 1e-300)

    def extend(self, gains: Floats, waypoints: Integers) -> bool:
        """Adds, for the demands that gain most, the move over their best waypoint; False when none gains."""
        net = gains.copy()
        for (source, target), row in self._row_of.items():
            net[source, target] += self._duals[row]
        order = np.argsort(-net, axis=None, kind="stable")[: max(100, 4 * self._links)]
        fresh = []
        for flat in order:
            source, target = divmod(int(flat), len(gains))
            move = (source, target, int(waypoints[source, target]))
            if net[source, target] <= 1e-9:
                break
            if move not in self._known and move[2] not in (source, target):
                fresh.append(move)
        if fresh:
            self._add(fresh)
        return bool(fresh)

    def _add(self, moves: list[tuple[int, int, int]]) -> None:
        rows = [move[:2] for move in moves if move[:2] not in self._row_of]
        for pair in rows:
            self._row_of[pair] = len(self._row_of)
        empty = csr_array((len(rows), 1 + len(self._moves)))
        self._programme.add_rows(np.full(len(rows), -INFINITY), np.ones(len(rows)), empty)
        source, target, middle = np.array(moves).T
        change = self._table[source, middle] + self._table[middle, target] - self._table[source, target]
        change *= self._demands[source, target][:, None] / self._topology.capacity_bits_per_second
        at = np.array([self._row_of[move[:2]] for move in moves])
        share = csc_array((np.ones(len(moves)), (at, np.arange(len(moves)))), shape=(len(self._row_of), len(moves)))
        columns = _stack(csc_array(np.where(np.abs(change.T) > 1e-12, change.T, 0.0)), share)
        count = len(moves)
        self._programme.add_columns(np.zeros(count), np.zeros(count), np.full(count, INFINITY), columns)
        self._moves += moves
        self._known.update(moves)

    def steering(self, values: Floats, bound: float) -> Steering:
        """What the last solution means, with loads computed afresh from the shares."""
        used: NDArray[np.intp] = np.flatnonzero(values > 1e-9)
        source, target, waypoint = np.array([self._moves[row] for row in used], dtype=np.int64).reshape(-1, 3).T
        share = np.minimum(values[used], 1.0)
        moved = self._table[source, waypoint] + self._table[waypoint, target] - self._table[source, target]
        capacity = self._topology.capacity_bits_per_second
        loads = self._direct * capacity + (share * self._demands[source, target]) @ moved
        loads = np.maximum(loads, 0.0)
        return Steering(
            source=source,
            target=target,
            waypoint=waypoint,
            share=share,
            loads=loads,
            utilisation=float((loads / capacity).max(initial=0.0)),
            bound=bound,
        )


def _stack(upper: csc_array, lower: csc_array) -> csc_array:
    height = upper.shape[0]
    both = upper.tocoo(), lower.tocoo()
    data = np.r_[both[0].data, both[1].data]
    row = np.r_[both[0].row, both[1].row + height]
    column = np.r_[both[0].col, both[1].col]
    return csc_array((data, (row, column)), shape=(height + lower.shape[0], upper.shape[1]))
