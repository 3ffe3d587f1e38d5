"""The links of a contested round as rows of the joint problem: what each task would move, over which ways, in what is left of them.

A task counts with its largest piece of data. A piece that several tasks of the round need moves once to a site, so each of
them counts with its share. Imported only with `pricing`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.domain.placement import Candidate, Snapshot, WaitingTask
from isthmus.domain.roads import HOME, Piece
from isthmus.placement import estimates
from isthmus.placement.carrying import UPLOADS, Traffic, needed, way_price
from isthmus.placement.joint.problem import Floats, Ints, Paths, Shorts, no_paths
from isthmus.placement.preference import Yardstick, way_preference

WAYS = 4  # of one piece to one site


@dataclass(frozen=True, eq=False, kw_only=True)
class LinkRows:
    """The columns of a `Problem` that are of data: `names` [L] of links; the others as there."""

    names: tuple[str, ...]
    capacity: Floats
    paths: Paths
    source: Ints
    volume: Floats
    window: Shorts
    lead: Shorts


def link_rows(
    snapshot: Snapshot,
    tasks: Sequence[WaitingTask],
    plans: Sequence[Sequence[Candidate | None]],
    yardsticks: Sequence[Yardstick],
    bucket_seconds: float,
    buckets: int,
) -> LinkRows:
    """`plans` [task][pool] as in `pricing.price`."""
    shape = (len(tasks), len(snapshot.pools))
    source, volume = np.full(len(tasks), -1, np.int32), np.zeros(len(tasks))
    window, lead = np.ones(shape, np.int16), np.zeros(shape, np.int16)
    pieces = [_moved(snapshot, task) for task in tasks]
    if not any(pieces):
        return LinkRows(
            names=(),
            capacity=np.zeros((0, buckets)),
            paths=no_paths(shape[1]),
            source=source,
            volume=volume,
            window=window,
            lead=lead,
        )
    traffic = Traffic(snapshot.roads, snapshot.now)
    names = tuple(sorted(snapshot.roads.links))
    table = _Table(snapshot, traffic, {name: number for number, name in enumerate(names)})
    wanted = Counter(piece.name for piece in pieces if piece is not None and piece.name != UPLOADS)
    for t, (task, piece, by) in enumerate(zip(tasks, pieces, yardsticks, strict=True)):
        if piece is None:
            continue
        sharing = max(1, wanted[piece.name])
        volume[t] = piece.size_bytes * min(sharing, shape[1]) / sharing
        source[t] = table.row(task, piece, by, volume[t])
        for s, plan in enumerate(plans[t]):
            if plan is not None and plan.transfer is not None and plan.transfers:
                window[t, s] = min(buckets, max(1, math.ceil(plan.transfer.seconds / bucket_seconds)))
                lead[t, s] = min(buckets - 1, int(plan.transfer.seconds / bucket_seconds))
    free = traffic.free(snapshot.now, bucket_seconds, buckets)
    return LinkRows(
        names=names,
        capacity=np.array([free[name] for name in names]),
        paths=table.paths(),
        source=source,
        volume=volume,
        window=window,
        lead=lead,
    )


def _moved(snapshot: Snapshot, task: WaitingTask) -> Piece | None:
    """The largest piece whose way is known."""
    routes = snapshot.roads.routes
    if not routes or not (task.data or task.input_bytes):
        return None
    known = [piece for piece in needed(task) if any(pair[0] in piece.places for pair in routes)]
    if task.input_bytes and any(pair[0] == HOME for pair in routes):
        known.append(Piece(name=UPLOADS, size_bytes=task.input_bytes, places=frozenset({HOME})))
    return max(known, key=lambda piece: piece.size_bytes, default=None)


class _Table:
    """Rows of `Paths`: one for each piece and preference."""

    def __init__(self, snapshot: Snapshot, traffic: Traffic, index: Mapping[str, int]) -> None:
        self._snapshot, self._traffic, self._index = snapshot, traffic, index
        self._rows: dict[object, int] = {}
        self._cost: list[list[list[float]]] = []
        self._links: list[list[int]] = []

    def row(self, task: WaitingTask, piece: Piece, by: Yardstick, volume: float) -> int:
        key = (piece, volume, by)
        if key not in self._rows:
            self._rows[key] = len(self._cost)
            self._cost.append([self._to(task, piece, by, volume, view.site) for view in self._snapshot.pools])
        return self._rows[key]

    def _to(self, task: WaitingTask, piece: Piece, by: Yardstick, volume: float, site: str) -> list[float]:
        """Costs of a unit of volume above the best way's; their links go into the table."""
        ways = [] if site in piece.places else self._traffic.ways(piece, site)
        prefer = way_preference(task, by, estimates.run(task).seconds)
        values = []
        for route in ways:
            seconds = piece.size_bytes / self._traffic.rate(route) + route.latency_seconds
            price = float(way_price(piece.size_bytes, route))
            values.append(prefer.per_second * seconds + prefer.per_money * price)
        kept = sorted(range(len(ways)), key=lambda number: (values[number], number))[:WAYS]
        least = min(values, default=0.0)
        costs = [(values[number] - least) / max(volume, 1.0) for number in kept]
        links = [[self._index[link] for link in ways[number].links] for number in kept]
        if not kept:  # it is there, or comes over no link that is known
            costs, links = [0.0], [[]]
        self._links += links + [[]] * (WAYS - len(links))
        return costs + [math.inf] * (WAYS - len(costs))

    def paths(self) -> Paths:
        start = np.concatenate([[0], np.cumsum([len(links) for links in self._links])]).astype(np.int32)
        flat = np.array([link for links in self._links for link in links], np.int32)
        return Paths(cost=np.array(self._cost), start=start, links=flat)
