"""Local repair, before anything is known to have failed: for each router the way around each of its own links. Pure.

A router whose link fails loses the routes over it, and in that moment finds the repair beneath them: the packet is wrapped and goes to a
router from which routing leads on without the link (topology-independent loop-free alternates, RFC 9855, with whole shortest paths
compared, so that equal ones count as touched). Nothing is computed or told after the failure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.network import NetworkView, NodeKind
from isthmus.network.control.desired import MOST_REPAIRS, MOST_SEGMENTS_IN_A_PATH, Repair
from isthmus.network.topology import Floats

MOST_ROUTERS = 500
"""Of a network with more nothing is repaired beforehand: it would take too long at every look."""
_HOP_SECONDS = 1e-6
_SAME = 1e-9
_END, _DT6 = 0x1, 0xD6
_Cable = tuple[int, int]
_Before = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Routing:
    """Routers by number, what their links cost and how far they are, nothing having failed."""

    names: tuple[str, ...]
    cost: Floats
    far: Floats
    sids: Mapping[int, str]  # locators of those that obey

    def touches(self, one: int, other: int, cables: Collection[_Cable]) -> bool:
        """Whether a shortest path from one to another goes over one of these, in either direction."""
        whole = self.far[one, other] + _SAME
        return any(
            min(
                self.far[one, a] + self.cost[a, b] + self.far[b, other],
                self.far[one, b] + self.cost[b, a] + self.far[a, other],
            )
            <= whole
            for a, b in cables
        )


def repairs(view: NetworkView) -> dict[str, tuple[Repair, ...]]:
    """The repairs of each router that obeys, for locators of routers and IPv6 prefixes of sites behind one; as routing by declared delay
    leads, whatever is up now."""
    routers = [node for node in view.nodes if node.kind is NodeKind.ROUTER]
    if len(routers) > MOST_ROUTERS:
        return {}
    number = {node.name: place for place, node in enumerate(routers)}
    cost = np.full((len(routers), len(routers)), np.inf)
    behind: dict[str, set[str]] = {}
    for link in view.links:
        if link.source in number and link.target in number:
            ends = number[link.source], number[link.target]
            cost[ends] = min(cost[ends], (link.link.delay_seconds or 0.0) + _HOP_SECONDS)
        elif link.target in number:
            behind.setdefault(link.source, set()).add(link.target)
    far = np.asarray(dijkstra(np.where(np.isfinite(cost), cost, 0.0)))
    obeying = {number[node.name]: node.locator for node in routers if node.locator and node.control is not None}
    routing = _Routing(tuple(number), cost, far, obeying)
    prefixes: dict[int, list[str]] = {number[node.name]: [node.locator] for node in routers if node.locator}
    for node in view.nodes:
        if len(at := behind.get(node.name, set())) == 1:
            prefixes.setdefault(number[min(at)], []).extend(prefix for prefix in node.prefixes if ":" in prefix)
    return {routing.names[router]: _of(routing, router, prefixes) for router in obeying}


def _of(routing: _Routing, router: int, prefixes: Mapping[int, list[str]]) -> tuple[Repair, ...]:
    """By the links that fail together: those over which the router may send what goes to a target."""
    by_links: dict[frozenset[int], list[int]] = {}
    for target in sorted(prefixes):
        if target == router or not np.isfinite(routing.far[router, target]):
            continue
        through = routing.cost[router] + routing.far[:, target]
        hops = frozenset(np.flatnonzero(through <= routing.far[router, target] + _SAME).tolist())
        by_links.setdefault(hops, []).append(target)
    found: list[Repair] = []
    for hops, targets in by_links.items():
        # Of equal ways all are avoided, so that the repair holds whichever fails; where that leaves none, the first one is: should routing have
        # taken another, the way to the first segment is repaired in turn.
        ways = [_around(routing, router, cables) for cables in _choices(router, hops)]
        for target in targets:
            tried = (_via(routing, _path(before, router, target), cables) for cables, before in ways)
            via = next((one for one in tried if one), [])
            if via:
                last = len(via) - 1
                segments = tuple(
                    str(ipaddress.IPv6Network(routing.sids[node])[_DT6 if place == last else _END])
                    for place, node in enumerate(via)
                )
                found += [Repair(destination=prefix, segments=segments) for prefix in prefixes[target]]
    return tuple(sorted(found, key=lambda one: one.destination)[:MOST_REPAIRS])


def _choices(router: int, hops: frozenset[int]) -> list[list[_Cable]]:
    every = [(router, hop) for hop in sorted(hops)]
    return [every] if len(every) == 1 else [every, every[:1]]


def _around(routing: _Routing, router: int, cables: list[_Cable]) -> tuple[list[_Cable], _Before]:
    """The tree of shortest paths of a router without some of its links."""
    cut = np.where(np.isfinite(routing.cost), routing.cost, 0.0)
    for a, b in cables:
        cut[a, b] = cut[b, a] = 0.0
    _, before = dijkstra(cut, indices=router, return_predecessors=True)
    return cables, np.asarray(before)


def _path(before: _Before, source: int, target: int) -> list[int]:
    path = [target]
    while path[-1] != source:
        step = int(before[path[-1]])
        if step < 0:
            return []
        path.append(step)
    return path[::-1]


def _via(routing: _Routing, path: list[int], cables: Collection[_Cable]) -> list[int]:
    """The fewest routers of the path that hold packets to some way without the cables; none where no choice does."""
    if not path:
        return []
    chosen: list[int] = []
    at = 0
    while routing.touches(path[at], path[-1], cables):
        reach = next(
            (
                place
                for place in range(len(path) - 2, at, -1)
                if path[place] in routing.sids and not routing.touches(path[at], path[place], cables)
            ),
            None,
        )
        if reach is None or len(chosen) == MOST_SEGMENTS_IN_A_PATH:
            return []
        chosen.append(path[reach])
        at = reach
    return chosen
