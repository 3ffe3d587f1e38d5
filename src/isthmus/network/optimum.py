"""The multicommodity optimum: the smallest maximum link utilisation that any routing of a traffic matrix can have.

Edge formulation with flows aggregated by destination; for a new matrix only the right-hand side changes, so the last basis
stays dual feasible and re-optimisation is warm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import block_diag, coo_array, csc_array, eye_array, hstack, vstack

from isthmus.network.ecmp import distances, reachable
from isthmus.network.linear import INFINITY, LinearProgramme
from isthmus.network.topology import Floats, Topology


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    """`flows` [N, M] bits/s for each destination on each link; `prices` [M], dual, such that sum(prices * capacity) = 1.

    `bound` is what the prices prove on their own: no routing has a smaller maximum utilisation.
    """

    utilisation: float
    bound: float
    flows: Floats
    prices: Floats


def minimum_utilisation(topology: Topology, demands: Floats) -> Optimum:
    """The smallest maximum utilisation for `demands` [N, N] in bits/s. Refused when a demand has no path."""
    return Optimiser(topology).solve(demands)


def price_bound(topology: Topology, demands: Floats, prices: Floats) -> float:
    """Lower bound on the maximum utilisation from any link `prices` [M] >= 0: LP duality, by shortest paths alone."""
    total = float(prices @ topology.capacity_bits_per_second)
    wanted = demands > 0
    return float((distances(topology, prices)[wanted] * demands[wanted]).sum()) / total


class Optimiser:
    """One topology, many matrices: the first solve is cold, each later one starts from the last basis."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._scale = float(topology.capacity_bits_per_second.mean())
        self._distance = distances(topology, topology.weight)
        self._programme: LinearProgramme | None = None
        self._destinations = np.empty(0, dtype=np.int64)

    def solve(self, demands: Floats) -> Optimum:
        """The optimum for `demands` [N, N] in bits/s. Refused when a demand has no path."""
        topology, wanted = self._topology, self._topology.checked_demands(demands)
        reachable(topology, wanted, self._distance)
        if not wanted.any():
            none = np.zeros(topology.link_count)
            flows = np.zeros((topology.node_count, topology.link_count))
            return Optimum(utilisation=0.0, bound=0.0, flows=flows, prices=none)
        destinations = np.flatnonzero(wanted.any(axis=0))
        fresh = self._programme is None or not np.isin(destinations, self._destinations).all()
        if fresh:
            self._destinations = destinations
        supply = np.concatenate([np.delete(wanted[:, node], node) for node in self._destinations]) / self._scale
        if fresh or self._programme is None:
            self._programme = self._model(supply)
        else:
            self._programme.bound_rows(np.arange(len(supply)), supply, supply)
        found = self._programme.solve()
        flows = np.zeros((topology.node_count, topology.link_count))
        flows[self._destinations] = found.values[:-1].reshape(len(self._destinations), -1) * self._scale
        prices = np.maximum(-found.duals[len(supply) :], 0.0) / self._scale
        prices /= prices @ topology.capacity_bits_per_second
        bound = price_bound(topology, wanted, prices)
        return Optimum(utilisation=found.objective, bound=bound, flows=flows, prices=prices)

    def _model(self, supply: Floats) -> LinearProgramme:
        topology = self._topology
        nodes, links, count = topology.node_count, topology.link_count, len(self._destinations)
        each = np.arange(links)
        ends, entries = np.r_[topology.source, topology.target], np.r_[np.ones(links), -np.ones(links)]
        incidence = coo_array((entries, (ends, np.r_[each, each])), shape=(nodes, links)).tocsr()
        balance = block_diag([incidence[np.delete(np.arange(nodes), node)] for node in self._destinations])
        share = csc_array(-(topology.capacity_bits_per_second / self._scale)[:, None])
        load = hstack([*[eye_array(links)] * count, share])
        rows = csc_array(vstack([hstack([balance, csc_array((balance.shape[0], 1))]), load]))
        columns = count * links + 1
        cost = np.zeros(columns)
        cost[-1] = 1.0
        nothing, most = np.zeros(columns), np.full(columns, INFINITY)
        row_lower = np.r_[supply, np.full(links, -INFINITY)]
        return LinearProgramme(cost, nothing, most, rows, row_lower, np.r_[supply, np.zeros(links)])
