"""The overlay: transfers through relays at sites, for places between which no router obeys.

A site's agent runs a relay where its operator lets it. A transfer goes through one when its promise says so, when nothing passes on the way
of its own, or when that is much slower by what was measured. TLS stays from end to end; the relay connects only where the ticket says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import Labels
from isthmus.domain.network import NetworkView
from isthmus.store import datasets, tables

WORTH = 1.3
"""Times as fast as the direct way a relay must promise to be: it is one more machine that can fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the ends of transfers, and the sites between, have: relays (site -> HOST:PORT) and MPTCP."""

    relays: Mapping[str, str]
    multipath: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leg:
    up: bool
    bits_per_second: float | None


def read_servers(connection: sa.Connection, now: float, labels: Labels) -> Servers:
    """Of sites that were seen lately; relays only where data with these labels may be: what a relay passes on it cannot read, and bound data
    is not led out of its regions all the same."""
    s, d = tables.sites.c, tables.data_servers.c
    rows = connection.execute(
        sa.select(d.site, d.relay, d.multipath, s.region)
        .join(tables.sites, s.name == d.site)
        .where(datasets.seen_lately(now))
    ).all()
    return Servers(
        relays={row.site: row.relay for row in rows if row.relay and labels.allow(row.region)},
        multipath=frozenset(row.site for row in rows if row.multipath),
    )


def promised(row: Any, source: str, relays: Mapping[str, str]) -> str:
    """The relay on the path that a transfer was promised from a source; empty where there is none."""
    stops = [link.rpartition(">")[2] for link in orjson.loads(row.links)] if row.source == source else []
    return next((name for name in stops[:-1] if name in relays), "")


def choose(view: NetworkView, row: Any, source: str, relays: Mapping[str, str]) -> str:
    """The site whose relay is to carry a transfer from a source; empty: it goes directly.

    A transfer that came to nothing directly is tried through a relay the next time.
    """
    target = row.target
    ways = {name: _through(view, source, name, target) for name in sorted(relays) if name not in (source, target)}
    whole = {name: leg.bits_per_second or 0.0 for name, leg in ways.items() if leg.up}
    if not whole:
        return ""
    best = max(sorted(whole), key=whole.__getitem__)
    direct = _leg(view, source, target)
    if not direct.up or row.tries % 2:
        return best
    if direct.bits_per_second is not None and whole[best] > WORTH * direct.bits_per_second:
        return best
    return ""


def _through(view: NetworkView, source: str, relay: str, target: str) -> _Leg:
    legs = _leg(view, source, relay), _leg(view, relay, target)
    rates = [leg.bits_per_second for leg in legs if leg.bits_per_second is not None]
    return _Leg(up=all(leg.up for leg in legs), bits_per_second=min(rates) if len(rates) == len(legs) else None)


def _leg(view: NetworkView, source: str, target: str) -> _Leg:
    """As measured between the two, else as the links say that packets take by themselves; what nobody knows is taken to be up."""
    pair = view.between(source, target)
    seen = pair.available_bits_per_second if pair is not None else None
    rate = None if seen is None or seen.is_stale(view.now) else seen.value
    known = view.node(source) is not None and view.node(target) is not None
    if rate is not None or not known or not view.links:
        return _Leg(up=pair is None or pair.up, bits_per_second=rate)
    from isthmus.network.candidates import own_way

    way = own_way(view, source, target)
    if way is None:
        return _Leg(up=pair is not None and pair.up, bits_per_second=None)
    rate = min((link.capacity_bits_per_second or math.inf for link in way), default=math.inf)
    return _Leg(up=pair is None or pair.up, bits_per_second=rate if math.isfinite(rate) else None)
