"""Paths of one pair of nodes: the shortest, the shortest within constraints, and the k shortest without loops."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isthmus.domain.errors import Invalid
from isthmus.network.topology import Floats, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a path must keep to; the default forbids nothing. Loss is the share of packets lost from end to end."""

    max_latency_seconds: float = math.inf
    max_loss: float = 1.0
    max_price_per_byte: float = math.inf
    max_hops: int | None = None
    min_capacity_bits_per_second: float = 0.0
    avoid_links: frozenset[int] = frozenset()
    avoid_nodes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Links in travelling order, the sum of the lengths asked for, and what the links add up to."""

    links: tuple[int, ...]
    length: float
    latency_seconds: float
    loss: float
    price_per_byte: float
    capacity_bits_per_second: float


_FREE = Constraints()


def shortest_path(
    topology: Topology, source: int, target: int, lengths: Floats, constraints: Constraints = _FREE
) -> Path | None:
    """The path of least summed `lengths` [M] > 0 within `constraints`, or None. Exact: labels that no other dominates."""
    found = _search(topology, _checked(topology, lengths), constraints, (source,), (), target, frozenset())
    return None if found is None else _path(topology, lengths, found)


def shortest_paths(
    topology: Topology, source: int, target: int, lengths: Floats, count: int, constraints: Constraints = _FREE
) -> list[Path]:
    """Up to `count` paths without loops in the order of their lengths (Yen, 1971), all within `constraints`.

    Parallel links make different paths.
    """
    checked = _checked(topology, lengths)
    first = _search(topology, checked, constraints, (source,), (), target, frozenset())
    if first is None or count < 1:
        return []
    found, waiting, seen = [first], list[tuple[float, tuple[int, ...]]](), {first}
    while len(found) < count:
        last = found[-1]
        for spur in range(len(last)):
            prefix = last[:spur]
            nodes = (source, *(int(topology.target[link]) for link in prefix))
            banned = frozenset(path[spur] for path in found if path[:spur] == prefix)
            path = _search(topology, checked, constraints, nodes, prefix, target, banned)
            if path is not None and path not in seen:
                seen.add(path)
                heapq.heappush(waiting, (float(checked[list(path)].sum()), path))
        if not waiting:
            break
        found.append(heapq.heappop(waiting)[1])
    return [_path(topology, lengths, links) for links in found]


def _checked(topology: Topology, lengths: Floats) -> Floats:
    if lengths.shape != (topology.link_count,) or not (lengths > 0).all():
        raise Invalid("lengths", "must have one positive entry a link.")
    return lengths


def _costs(topology: Topology, lengths: Floats, links: tuple[int, ...]) -> tuple[float, ...]:
    at = list(links)
    return (
        float(lengths[at].sum()),
        float(topology.latency_seconds[at].sum()),
        float(-np.log1p(-topology.loss[at]).sum()),
        float(topology.price_per_byte[at].sum()),
        float(len(links)),
    )


def _search(
    topology: Topology,
    lengths: Floats,
    constraints: Constraints,
    nodes: tuple[int, ...],
    prefix: tuple[int, ...],
    target: int,
    banned: frozenset[int],
) -> tuple[int, ...] | None:
    """Continues `prefix`, which passes `nodes` and ends at their last, to `target`, not over `banned` links first."""
    limits = (
        math.inf,
        constraints.max_latency_seconds,
        -math.log1p(-constraints.max_loss) if constraints.max_loss < 1 else math.inf,
        constraints.max_price_per_byte,
        math.inf if constraints.max_hops is None else float(constraints.max_hops),
    )
    binding = [place for place in range(5) if place == 0 or limits[place] < math.inf]
    slack = [limit * (1 + 1e-12) for limit in limits]
    closed = constraints.avoid_nodes | frozenset(nodes)
    labels: dict[int, list[tuple[float, ...]]] = {}
    heap = [(_costs(topology, lengths, prefix), prefix, nodes[-1])]
    while heap:
        costs, links, node = heapq.heappop(heap)
        if node == target:
            return links
        kept = labels.setdefault(node, [])
        if any(all(other[place] <= costs[place] for place in binding) for other in kept):
            continue
        kept.append(costs)
        for link in map(int, topology.links_out(node)):
            there = int(topology.target[link])
            if (
                there in closed
                or link in constraints.avoid_links
                or (len(links) == len(prefix) and link in banned)
                or topology.capacity_bits_per_second[link] < constraints.min_capacity_bits_per_second
            ):
                continue
            step = _costs(topology, lengths, (link,))
            total = tuple(one + other for one, other in zip(costs, step, strict=True))
            if all(total[place] <= slack[place] for place in binding):
                heapq.heappush(heap, (total, (*links, link), there))
    return None


def _path(topology: Topology, lengths: Floats, links: tuple[int, ...]) -> Path:
    length, latency, loss, price, _ = _costs(topology, lengths, links)
    assert all(topology.target[one] == topology.source[other] for one, other in pairwise(links))
    return Path(
        links=links,
        length=length,
        latency_seconds=latency,
        loss=-math.expm1(-loss),
        price_per_byte=price,
        capacity_bits_per_second=float(topology.capacity_bits_per_second[list(links)].min(initial=math.inf)),
    )
