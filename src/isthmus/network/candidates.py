"""The paths that lead from one site to another in the network as it is known, best first, with what speaks for each. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.errors import NotFound
from isthmus.domain.network import LinkView, NetworkView, NodeKind
from isthmus.domain.roads import PROMISED_SHARE, Reserved
from isthmus.domain.units import show_duration
from isthmus.network.paths import Constraints, shortest_path, shortest_paths
from isthmus.network.topology import Link, Topology

_UNKNOWN_CAPACITY = 1e15
_HOP_SECONDS = 1e-6
_MOST_LOOKED_AT = 32
_NOTHING = Reserved()


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePath:
    """One path: the nodes in travelling order, the names of its links, and what they add up to: a link of which nobody knows a figure counts nothing."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    delay_seconds: float | None
    loss: float
    capacity_bits_per_second: float | None
    """Of its narrowest link, as declared."""
    free_bits_per_second: float | None
    """What its links have free now: as measured (for the way that packets take by themselves, also from end to end), else all of the capacity."""
    reserved_bits_per_second: float
    """The most that is promised, or in slices, of one of its links while the bytes that were asked about would move."""
    promisable_bits_per_second: float | None
    """What can still be promised of every link: `PROMISED_SHARE` of what is free, less what is given away."""
    price_per_gb: Decimal
    mtu_bytes: int
    up: bool
    taken_by_itself: bool
    """Whether it is the one that packets take without a policy, as far as routers go by declared delay."""
    programmable: bool
    """Whether a policy can put packets on it: its ends obey Isthmus, and some routers on it hold packets to it (see `waypoints`)."""
    seconds: float | None
    """How long it takes to move the bytes that were asked about over what is free."""
    why: str


def as_topology(view: NetworkView) -> tuple[Topology, tuple[LinkView, ...]]:
    """The links of a view as arrays, in the view's order. A capacity or delay
    that nobody knows is taken as very large or 0."""
    links = view.links
    return Topology.of(
        [node.name for node in view.nodes],
        [
            Link(
                source=one.source,
                target=one.target,
                capacity_bits_per_second=one.capacity_bits_per_second or _UNKNOWN_CAPACITY,
                latency_seconds=one.delay_seconds.value if one.delay_seconds else 0.0,
                loss=min(one.loss.value if one.loss else 0.0, 0.999),
                price_per_byte=float(one.price_per_gb) / 1e9,
                weight=_weight(one),
            )
            for one in links
        ],
    ), links


def candidate_paths(
    view: NetworkView,
    source: str,
    target: str,
    *,
    count: int = 4,
    size_bytes: float = 1e9,
    reserved: Reserved = _NOTHING,
) -> tuple[CandidatePath, ...]:
    """Up to `count` paths, that which moves `size_bytes` soonest over what nobody was promised first; those with a link that is down come last.

    NotFound when an end is no node of the network.
    """
    for name in (source, target):
        if view.node(name) is None:
            raise NotFound(f"The network has no node {name!r}.", remedy="`isthmus net show` shows the nodes.")
    topology, links = as_topology(view)
    start, end = topology.node(source), topology.node(target)
    found = shortest_paths(
        topology, start, end, topology.weight, _MOST_LOOKED_AT, Constraints(avoid_nodes=_others(view, source, target))
    )
    itself = next((path.links for path in found if all(links[link].up for link in path.links)), None)
    made = [
        _candidate(view, [links[link] for link in path.links], path.links == itself, size_bytes, reserved)
        for path in found
    ]
    ordered = sorted(made, key=_order)[:count]
    return tuple(_explained(one, ordered) for one in ordered)


def own_way(view: NetworkView, source: str, target: str) -> tuple[LinkView, ...] | None:
    """The links that packets take without a policy, as far as routers go by declared delay; None when an end is not there or no way is whole."""
    if view.node(source) is None or view.node(target) is None:
        return None
    topology, links = as_topology(view)
    down = frozenset(place for place, link in enumerate(links) if not link.up)
    avoid = Constraints(avoid_links=down, avoid_nodes=_others(view, source, target))
    found = shortest_path(topology, topology.node(source), topology.node(target), topology.weight, avoid)
    return None if found is None else tuple(links[link] for link in found.links)


def own_ways(
    view: NetworkView, sources: Collection[str], targets: Collection[str]
) -> dict[tuple[str, str], tuple[LinkView, ...]]:
    """`own_way` between many at once, by one search for each source; pairs without a way are not in it."""
    number = {node.name: place for place, node in enumerate(view.nodes)}
    leaving = {name: len(number) + place for place, name in enumerate(sorted({*sources} & number.keys()))}
    sites = {node.name for node in view.nodes if node.kind is NodeKind.SITE}
    best: dict[tuple[int, int], LinkView] = {}
    for link in view.links:
        starts = [leaving[link.source]] if link.source in leaving else []
        if link.source not in sites:
            starts.append(number[link.source])  # a site sends only what is its own
        for start in starts if link.up else ():
            held = best.get((start, number[link.target]))
            if held is None or _weight(link) < _weight(held):
                best[start, number[link.target]] = link
    if not leaving or not best:
        return {}
    rows, columns = zip(*best, strict=True)
    size = len(number) + len(leaving)
    graph = coo_array(([_weight(link) for link in best.values()], (rows, columns)), shape=(size, size)).tocsr()
    _, before = dijkstra(graph, indices=list(leaving.values()), return_predecessors=True)
    found: dict[tuple[str, str], tuple[LinkView, ...]] = {}
    for row, (source, start) in enumerate(leaving.items()):
        for target in targets:
            at, way = number.get(target, -1), list[LinkView]()
            while at >= 0 and target != source and int(before[row, at]) >= 0:
                parent = int(before[row, at])
                way.append(best[parent, at])
                at = parent
            if way and at == start:
                found[source, target] = tuple(reversed(way))
    return found


def _weight(link: LinkView) -> float:
    return (link.link.delay_seconds or 0.0) + _HOP_SECONDS


def waypoints(view: NetworkView, nodes: Sequence[str]) -> tuple[str, ...] | None:
    """The fewest routers between the first and the last of a path of routers that hold packets to it, where routing leads from each to the next
    by declared delay; None when no choice of routers with a locator does."""
    locators = {node.name for node in view.nodes if node.locator}
    if not nodes or not {nodes[0], nodes[-1]} <= locators:
        return None
    at, chosen = 0, list[str]()
    while at < len(nodes) - 1:
        reach = next(
            (
                end
                for end in range(len(nodes) - 1, at, -1)
                if nodes[end] in locators and _leads(view, nodes[at : end + 1])
            ),
            None,
        )
        if reach is None:
            return None
        chosen.append(nodes[reach])
        at = reach
    return tuple(chosen[:-1])


def _leads(view: NetworkView, nodes: Sequence[str]) -> bool:
    way = own_way(view, nodes[0], nodes[-1])
    return way is not None and [link.target for link in way] == list(nodes[1:])


def _others(view: NetworkView, source: str, target: str) -> frozenset[int]:
    """Sites that are neither end: they carry no traffic of others."""
    return frozenset(
        place
        for place, node in enumerate(view.nodes)
        if node.kind is NodeKind.SITE and node.name not in (source, target)
    )


def _candidate(
    view: NetworkView, links: Sequence[LinkView], itself: bool, size_bytes: float, reserved: Reserved
) -> CandidatePath:
    delays = [link.delay_seconds.value for link in links if link.delay_seconds is not None]
    delay = sum(delays) if delays else None
    capacities = [link.capacity_bits_per_second for link in links if link.capacity_bits_per_second is not None]
    free = [
        link.available_bits_per_second.value if link.available_bits_per_second else link.capacity_bits_per_second
        for link in links
    ]
    pair = view.between(links[0].source, links[-1].target) if itself else None
    if pair is not None and pair.available_bits_per_second is not None:
        free.append(pair.available_bits_per_second.value)
    known = [value for value in free if value is not None]
    least = min(known) if known else None
    nodes = (links[0].source, *(link.target for link in links))
    routers = [name for name in nodes if (node := view.node(name)) is not None and node.kind is NodeKind.ROUTER]
    until = view.now + (size_bytes * 8 / least if least else 0.0) + 1.0
    given = [reserved.bits_per_second(link.link.name, link.target, view.now, until) for link in links]
    left = [max(0.0, value - part) for value, part in zip(free, given, strict=False) if value is not None]
    rate = None if least is None else min([least, *left])
    promisable = [
        max(0.0, PROMISED_SHARE * value - part) for value, part in zip(free, given, strict=False) if value is not None
    ]
    if len(free) > len(given) and (end_to_end := free[-1]) is not None:
        promisable.append(PROMISED_SHARE * end_to_end)
    seconds = None if rate is None else (math.inf if rate <= 0 else size_bytes * 8 / rate + (delay or 0.0))
    return CandidatePath(
        nodes=nodes,
        links=tuple(link.link.name for link in links),
        delay_seconds=delay,
        loss=float(1 - np.prod([1 - (link.loss.value if link.loss else 0.0) for link in links])),
        capacity_bits_per_second=min(capacities) if capacities else None,
        free_bits_per_second=least,
        reserved_bits_per_second=max(given),
        promisable_bits_per_second=min(promisable) if promisable else None,
        price_per_gb=sum((link.price_per_gb for link in links), Decimal(0)),
        mtu_bytes=min(link.link.mtu_bytes for link in links),
        up=all(link.up for link in links),
        taken_by_itself=itself,
        programmable=waypoints(view, routers) is not None,
        seconds=seconds,
        why="",
    )


def _order(path: CandidatePath) -> tuple[bool, float, Decimal, float, tuple[str, ...]]:
    seconds = math.inf if path.seconds is None else path.seconds
    return (not path.up, round(seconds, 3), path.price_per_gb, path.delay_seconds or 0.0, path.nodes)


def _explained(path: CandidatePath, all_paths: Sequence[CandidatePath]) -> CandidatePath:
    best = all_paths[0]
    if not path.up:
        return replace(path, why="a link is down")
    if path.seconds == math.inf:
        return replace(path, why="promised to others")
    if path is best:
        others = [other for other in all_paths[1:] if other.up]
        if not others:
            why = "the only path that is whole"
        elif path.seconds is None:
            why = "shortest; nobody knows the capacities"
        elif others[0].seconds is not None and others[0].seconds > path.seconds * 1.001:
            why = f"moves it soonest, in {show_duration(path.seconds)}"
        elif others[0].price_per_gb > path.price_per_gb:
            why = "as soon as the next, and cheaper"
        else:
            why = "as soon as the next, and less delay"
        return replace(path, why=why)
    against = []
    if path.seconds is not None and best.seconds is not None and path.seconds > best.seconds * 1.001:
        against.append(f"{path.seconds / best.seconds:.1f} times as long")
    if path.price_per_gb > best.price_per_gb:
        against.append(f"dearer by {path.price_per_gb - best.price_per_gb} for a GB")
    elif path.price_per_gb < best.price_per_gb:
        against.append(f"but cheaper by {best.price_per_gb - path.price_per_gb} for a GB")
    if path.delay_seconds is not None and best.delay_seconds is not None and path.delay_seconds < best.delay_seconds:
        against.append(f"but {(best.delay_seconds - path.delay_seconds) * 1e3:.3g} ms less delay")
    return replace(path, why="; ".join(against) or "the same, and longer")
