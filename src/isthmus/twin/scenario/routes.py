"""Paths of least latency between all sites, in the form that the federation's core takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.errors import Invalid
from isthmus.twin.scenario.model import Link, Site


def least_latency_paths(
    sites: tuple[Site, ...], links: tuple[Link, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(site x site x hop: numbers of links, -1 after the last; site x site: one-way seconds).

    Invalid where a site cannot be reached, or a pair has two links. Dijkstra 1959, by SciPy.
    """
    numbers = {site.name: number for number, site in enumerate(sites)}
    count = len(sites)
    by_ends: dict[tuple[int, int], int] = {}
    for index, link in enumerate(links):
        a, b = (numbers[end] for end in link.ends)
        if (a, b) in by_ends:
            raise Invalid(f"links.{index}", f"{' - '.join(link.ends)} has two links.", remedy="Give one of their sum.")
        by_ends[a, b] = by_ends[b, a] = index
    rows, columns = zip(*by_ends, strict=True)
    # A latency of zero would mean "no link" in a sparse matrix.
    weights = [max(links[index].latency_seconds, 1e-12) for index in by_ends.values()]
    graph = csr_array((weights, (rows, columns)), shape=(count, count))
    latency, before = dijkstra(graph, return_predecessors=True)
    if not np.isfinite(latency).all():
        a, b = np.argwhere(~np.isfinite(latency))[0]
        raise Invalid("links", f"There is no path from {sites[a].name} to {sites[b].name}.", remedy="Add a link.")
    found: dict[tuple[int, int], list[int]] = {}
    for a in range(count):
        for b in range(count):
            hops: list[int] = []
            at = b
            while at != a:
                hops.append(by_ends[int(before[a, at]), at])
                at = int(before[a, at])
            found[a, b] = hops[::-1]
    paths = np.full((count, count, max(1, *(len(hops) for hops in found.values()))), -1, dtype=np.int64)
    for (a, b), hops in found.items():
        paths[a, b, : len(hops)] = hops
    return paths, np.asarray(latency, dtype=np.float64)
