"""Shortest-path routing with equal-cost multipath: what an IGP does with its weights, nothing programmed.

A node splits traffic for a destination evenly over all its next hops on a shortest path (RFC 2992, with ideal hashing). Parallel
links of one weight are one next hop, as an aggregated link is: they share in proportion to their capacities.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.errors import Invalid, Refused
from isthmus.network.topology import Floats, Integers, Topology

_MOST_RATIOS = 200_000_000


def distances(topology: Topology, lengths: Floats) -> Floats:
    """Lengths [N, N] of shortest paths from row to column for non-negative link `lengths` [M]; inf where there is none."""
    return np.asarray(dijkstra(matrix(topology, lengths), directed=True))


def matrix(topology: Topology, lengths: Floats) -> csr_array:
    """The sparse matrix [N, N] of the shortest of parallel links; a length of zero is kept as an entry."""
    order = np.lexsort((lengths, topology.target, topology.source))
    pair = topology.source[order] * topology.node_count + topology.target[order]
    first = order[np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])] if len(order) else order
    count = topology.node_count
    start = np.searchsorted(topology.source[first], np.arange(count + 1))
    return csr_array((lengths[first], topology.target[first], start), shape=(count, count))


def link_loads(topology: Topology, demands: Floats) -> Floats:
    """Bits/s on each link [M] when `demands` [N, N] (bits/s) follow equal-cost shortest paths.

    Refused when a demand has no path.
    """
    wanted = topology.checked_demands(demands)
    distance = distances(topology, topology.weight)
    reachable(topology, wanted, distance)
    columns = (topology.source, topology.target, topology.weight, topology.out_start, topology.out_links)
    return np.asarray(_loads(*columns, _bundle_share(topology), distance, wanted))


def split_ratios(topology: Topology) -> Floats:
    """Share [N, N, M] of a unit from row to column that each link carries; zero where there is no path.

    Invalid when N * N * M is over 200 million, which would not fit in memory.
    """
    if topology.node_count**2 * topology.link_count > _MOST_RATIOS:
        raise Invalid("topology", "is too large for a table of all split ratios.")
    columns = (topology.source, topology.target, topology.weight, topology.out_start, topology.out_links)
    return np.asarray(_ratios(*columns, _bundle_share(topology), distances(topology, topology.weight)))


def reachable(topology: Topology, demands: Floats, distance: Floats) -> None:
    """Refused when a positive demand has an infinite distance."""
    lost = np.argwhere((demands > 0) & ~np.isfinite(distance))
    if len(lost):
        source, target = (topology.nodes[int(node)] for node in lost[0])
        raise Refused(f"There is no path from {source} to {target}, nor for {len(lost) - 1} other demands.")


def _bundle_share(topology: Topology) -> Floats:
    pair = topology.source * topology.node_count + topology.target
    least = np.full(topology.node_count**2, np.inf)
    np.minimum.at(least, pair, topology.weight)
    usable = np.where(topology.weight <= least[pair], topology.capacity_bits_per_second, 0.0)
    return np.asarray(usable / np.bincount(pair, usable)[pair])


@njit(cache=True)
def _on_shortest(
    source: Integers, target: Integers, weight: Floats, distance: Floats, link: int, destination: int
) -> bool:
    here = distance[source[link], destination]
    there = distance[target[link], destination]
    return bool(np.isfinite(here)) and bool(abs(here - weight[link] - there) <= 1e-9 * max(1.0, here))


@njit(cache=True)
def _loads(
    source: Integers,
    target: Integers,
    weight: Floats,
    out_start: Integers,
    out_links: Integers,
    share: Floats,
    distance: Floats,
    demands: Floats,
) -> Floats:
    nodes = len(out_start) - 1
    loads = np.zeros(len(source))
    for destination in range(nodes):
        through = demands[:, destination].copy()
        for node in np.argsort(-distance[:, destination]):
            if node == destination or through[node] == 0.0:
                continue
            links = out_links[out_start[node] : out_start[node + 1]]
            hops = 0.0
            for link in links:
                hops += share[link] * _on_shortest(source, target, weight, distance, link, destination)
            for link in links:
                if _on_shortest(source, target, weight, distance, link, destination):
                    moved = through[node] * share[link] / hops
                    loads[link] += moved
                    through[target[link]] += moved
    return loads


@njit(cache=True)
def _ratios(
    source: Integers,
    target: Integers,
    weight: Floats,
    out_start: Integers,
    out_links: Integers,
    share: Floats,
    distance: Floats,
) -> Floats:
    nodes = len(out_start) - 1
    ratios = np.zeros((nodes, nodes, len(source)))
    for destination in range(nodes):
        for node in np.argsort(distance[:, destination]):
            if node == destination or not np.isfinite(distance[node, destination]):
                continue
            links = out_links[out_start[node] : out_start[node + 1]]
            hops = 0.0
            for link in links:
                hops += share[link] * _on_shortest(source, target, weight, distance, link, destination)
            for link in links:
                if _on_shortest(source, target, weight, distance, link, destination):
                    part = share[link] / hops
                    ratios[node, destination] += ratios[target[link], destination] * part
                    ratios[node, destination, link] += part
    return ratios
