"""One version on its way to several sites: a tree, in which a site that still receives passes on what it has, so that each link carries it once.

The nearest site joins first, each by the way from the nearest place that has the version or is about to (Takahashi, Matsuyama, 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import HOME, TransferState
from isthmus.domain.network import NetworkView
from isthmus.engine.networkview import read_network
from isthmus.store import datasets, tables

_WAIT_SECONDS = 20.0  # for the site before in the tree to begin; then a transfer goes without it
_UNKNOWN_BITS_PER_SECOND = 4e8
_t = tables.transfers.c


@dataclass(frozen=True, slots=True)
class Before:
    """The place before a transfer's target in the tree. `waits`: it is not receiving yet, but about to."""

    site: str
    waits: bool


def before(
    connection: sa.Connection, row: Any, servers: Mapping[str, str], whole: Collection[str], now: float
) -> Before | None:
    """The receiving site that a planned transfer is to come from; None: from a place that has all of it. `servers` are all sites that can be
    dialled, with their addresses."""
    if orjson.loads(row.links) or row.tries or row.target == HOME:
        return None  # it was promised a path of its own, or this came to nothing
    same = (_t.project == row.project, _t.name == row.name, _t.version == row.version)
    others = connection.execute(tables.transfers.select().where(*same, datasets.OPEN, _t.id != row.id)).all()
    others = [one for one in others if servers.get(one.target) and not one.tries and one.through != "service"]
    sources = {place for place in whole if servers.get(place)}
    if not others or not sources:
        return None
    view = read_network(connection, now)
    far = {(one, other): _seconds(view, one, other, row.size_bytes) for one in (*sources, *(o.target for o in others)) for other in (row.target, *(o.target for o in others)) if one != other}  # fmt: skip
    parents = tree(
        sources, {row.target, *(one.target for one in others)}, lambda one, other: far.get((one, other), math.inf)
    )
    found = {one.target: one for one in others}
    parent = parents[row.target]
    if parent in sources or _leads_to(parent, row.target, found):
        return None
    if found[parent].state == TransferState.MOVING.value:
        return Before(parent, waits=False)
    return Before(parent, waits=True) if now - row.created_at < _WAIT_SECONDS else None


def tree(sources: Collection[str], targets: Collection[str], seconds: Callable[[str, str], float]) -> dict[str, str]:
    """Each target's place before it: a source, or another target; sources where it is as near."""
    reached, waiting = sorted(sources), set(targets) - set(sources)
    parents: dict[str, str] = {}
    while waiting:
        _, _, parent, target = min(
            (seconds(one, other), place, one, other) for place, one in enumerate(reached) for other in sorted(waiting)
        )
        parents[target] = parent
        reached.append(target)
        waiting.discard(target)
    return parents


def _leads_to(site: str, target: str, moving: Mapping[str, Any]) -> bool:
    """Whether what a site receives comes, over whatever others, from the target itself."""
    seen: set[str] = set()
    while site in moving and site not in seen:
        seen.add(site)
        site = moving[site].source
        if site == target:
            return True
    return False


def _seconds(view: NetworkView, source: str, target: str, size: int) -> float:
    """How long it takes alone, by what was measured, else as declared."""
    from isthmus.network.candidates import own_way

    pair = view.between(source, target)
    if pair is not None and not pair.up:
        return math.inf
    delay = pair.delay_seconds.value if pair is not None and pair.delay_seconds is not None else 0.0
    if pair is not None and pair.available_bits_per_second is not None:
        return 8 * size / max(1.0, pair.available_bits_per_second.value) + delay
    known = view.node(source) is not None and view.node(target) is not None
    way = own_way(view, source, target) if known else None
    rate = min((link.capacity_bits_per_second or math.inf for link in way or ()), default=_UNKNOWN_BITS_PER_SECOND)
    delay = sum(link.delay_seconds.value for link in way or () if link.delay_seconds is not None)
    return 8 * size / rate + delay + 1e-6 * len(way or ())
