"""Distribution trees from one node to many: data crosses each link of a tree once, however many targets lie behind it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.errors import Refused
from isthmus.network.ecmp import matrix
from isthmus.network.topology import Floats, Topology


def distribution_tree(
    topology: Topology, source: int, targets: Collection[int], lengths: Floats, avoid: Collection[int] = ()
) -> tuple[int, ...]:
    """Links of a tree from `source` that reaches all `targets`, of small summed `lengths` [M] > 0; sorted.

    The nearest target is joined first, each by its shortest path from the tree (Takahashi, Matsuyama, 1980). Refused when a target cannot be reached without the links to `avoid`.
    """
    usable = np.array(lengths, dtype=np.float64)
    usable[list(avoid)] = np.inf
    graph = matrix(topology, usable)
    reached, waiting, entry = {source}, set(targets) - {source}, dict[int, int]()
    while waiting:
        distance, before, _ = dijkstra(graph, indices=sorted(reached), return_predecessors=True, min_only=True)
        nearest = min(waiting, key=lambda node: (distance[node], node))
        if not np.isfinite(distance[nearest]):
            raise Refused(f"There is no path from {topology.nodes[source]} to {topology.nodes[nearest]}.")
        node = nearest
        while node not in reached:
            parent = int(before[node])
            between = topology.links_out(parent)
            between = between[topology.target[between] == node]
            entry[node] = int(between[np.argmin(usable[between])])
            reached.add(node)
            node = parent
        waiting -= reached
    return tuple(sorted(entry.values()))


def distribution_trees(
    topology: Topology, source: int, targets: Collection[int], lengths: Floats, count: int, avoid: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Up to `count` different trees: after each, its links count as three times as long, so that the next one differs."""
    found, stretched = list[tuple[int, ...]](), np.array(lengths, dtype=np.float64)
    for _ in range(count):
        tree = distribution_tree(topology, source, targets, stretched, avoid)
        if tree not in found:
            found.append(tree)
        stretched[list(tree)] *= 3.0
    return found
