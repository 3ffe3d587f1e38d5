"""The most traffic that a network can carry of a matrix too large for it, for networks with hundreds of nodes.

Lagrangian prices of links, moved by multiplicative subgradient steps; each sweep routes every demand that pays its way whole on
its cheapest path. The last trees are averaged, thinned to what fits (which is feasible), and what is left is filled in. The
prices prove an upper bound, so each answer carries its own certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import block_diag, coo_array, csc_array, eye_array, hstack, vstack

from isthmus.domain.errors import Invalid
from isthmus.network.linear import INFINITY, LinearProgramme
from isthmus.network.sweep import fill, route_whole
from isthmus.network.topology import Floats, Topology

_FIRST_STEP, _STEP_RATIO = 0.5, 0.01
_FIRST_PRICE, _LEAST_PRICE = 0.02, 1e-6
_TREES, _TREE_EVERY = 60, 3
_LAST_FILLS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Throughput:
    """`served` [N, N] and `loads` [M] in bits/s; `prices` [M] of a bit/s on a link, where serving one is worth 1.

    No routing serves more than `bound` bits/s in all, as `prices` prove.
    """

    served: Floats
    loads: Floats
    prices: Floats
    bound: float

    @property
    def share(self) -> float:
        """Served of what is at most possible."""
        return float(self.served.sum()) / self.bound if self.bound else 1.0


def maximum_throughput(topology: Topology, demands: Floats, *, sweeps: int = 500) -> Throughput:
    """Serves as much as it can of `demands` [N, N] in bits/s over any paths, within all capacities. Deterministic.

    Invalid with more than 32,767 links.
    """
    if topology.link_count > np.iinfo(np.int16).max:
        raise Invalid("topology", "has more than 32,767 links.")
    wanted, capacity = topology.checked_demands(demands), topology.capacity_bits_per_second
    graph = topology.source, topology.target, topology.out_start, topology.out_links
    prices, best, bound = np.full(topology.link_count, _FIRST_PRICE), np.zeros(topology.link_count), np.inf
    tree = np.full(wanted.shape, -1, dtype=np.int16)
    trees, mean = list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]](), np.zeros(topology.link_count)
    for number in range(sweeps):
        loads, profit = route_whole(*graph, prices, wanted, tree)
        value = profit + float(capacity @ prices)
        if value < bound:
            bound, best = value, prices
        left = sweeps - 1 - number
        if left < _TREES * _TREE_EVERY and left % _TREE_EVERY == 0:
            trees.append(tree.copy())
            mean += loads
        step = _FIRST_STEP * _STEP_RATIO ** (number / sweeps)
        prices = np.clip(prices * np.exp(step * np.clip(loads / capacity - 1.0, -1.0, 2.0)), _LEAST_PRICE, 1.0)
    last = np.array(trees)
    mean /= max(len(trees), 1)
    keep = np.minimum(1.0, capacity / np.maximum(mean, 1e-200))
    rest, room, all_of_it = wanted.copy(), capacity.copy(), np.ones(topology.link_count)
    served = fill(topology.source, last, rest, room, keep, 1.0 / max(len(trees), 1))
    served += fill(topology.source, last[::-1].copy(), rest, room, all_of_it, 1.0)
    for _ in range(_LAST_FILLS):  # over whatever still has room, dear paths too
        open_links = np.where(room <= 1e-6 * capacity, 1.0, 0.3 * np.maximum(best, 1e-4))
        route_whole(*graph, open_links, rest, tree)
        served += fill(topology.source, tree[None], rest, room, all_of_it, 1.0)
    return Throughput(served=served, loads=capacity - room, prices=best, bound=min(bound, float(wanted.sum())))


def exact_throughput(topology: Topology, demands: Floats) -> float:
    """Bits/s that the full linear programme serves (edge formulation, by destination). For networks of up to ~200 nodes."""
    wanted, nodes, links = topology.checked_demands(demands), topology.node_count, topology.link_count
    scale, each, pairs = float(topology.capacity_bits_per_second.mean()), np.arange(links), nodes * (nodes - 1)
    entries, ends = np.r_[np.ones(links), -np.ones(links)], np.r_[topology.source, topology.target]
    incidence = coo_array((entries, (ends, np.r_[each, each])), shape=(nodes, links)).tocsr()
    balance = block_diag([incidence[np.delete(np.arange(nodes), node)] for node in range(nodes)])
    load = hstack([*[eye_array(links)] * nodes, csc_array((links, pairs))])
    rows = csc_array(vstack([hstack([balance, -eye_array(pairs)]), load]))
    most = np.concatenate([np.delete(wanted[:, node], node) for node in range(nodes)]) / scale
    capacity, none = topology.capacity_bits_per_second / scale, np.zeros(pairs)
    programme = LinearProgramme(
        np.r_[np.zeros(nodes * links), -np.ones(pairs)],
        np.zeros(nodes * links + pairs),
        np.r_[np.full(nodes * links, INFINITY), most],
        rows,
        np.r_[none, np.full(links, -INFINITY)],
        np.r_[none, capacity],
    )
    return -programme.solve().objective * scale
