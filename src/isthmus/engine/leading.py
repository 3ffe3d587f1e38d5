"""Leads the packets of a transfer over the path that it was planned for, or else over the best one that routers can be told of, or through a
relay.

A transfer wants a policy before it is ordered, is ordered with the marks of that policy once the routers have it, and gives it up when
it stops. Where no router obeys, or the routers are slow to, it goes as packets go by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import Labels, OrderWay, TransferState
from isthmus.domain.errors import Busy, Invalid
from isthmus.domain.network import NetworkView
from isthmus.domain.roads import Reserved
from isthmus.engine import steering, waystaken
from isthmus.engine.leases import Lease, guard
from isthmus.engine.networkview import read_network
from isthmus.engine.relaying import choose, promised, read_servers
from isthmus.engine.reserving import read_reserved
from isthmus.engine.seen import LimitedBy, seen_rate
from isthmus.engine.slicing import dscp_of
from isthmus.store import tables

PATIENCE_SECONDS = 10.0  # for the routers to have a policy, before a transfer goes without
_LEAST_BYTES = 16 * 1024**2  # smaller ones are over before a path is programmed
_LEAST_SPLIT_BYTES = 256 * 1024**2  # smaller ones have one way
_LEAST_SHARE = 0.2  # of what the first way can have; a second with less is not worth its policies
_LEAST_SEEN_BYTES, _LEAST_SEEN_SECONDS = 8 * 1024**2, 1.0  # to tell a rate from


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """The ways of a transfer, over the `paths` of its policies; `is_set`: the routers send packets with such marks over them. `relay`: the
    site whose relay at `relay_address` (HOST:PORT) carries it; `multipath`: both ends have MPTCP."""

    paths: tuple[tuple[str, ...], ...] = ()
    ways: tuple[OrderWay, ...] = ()
    is_set: bool = True
    relay: str = ""
    relay_address: str = ""
    multipath: bool = False


BY_ITSELF = Lead()


def lead(connection: sa.Connection, now: float, lease: Lease, row: Any, source: str) -> Lead:
    """The lead of a transfer that is about to go from a source: wanted here when it is not yet. `is_set` is false while the routers are
    waited for. Where nothing can be set, or was not in time, it goes through a relay if that is better, or by itself, with the mark of its
    project's slice."""
    guard(connection, lease)
    slice_dscp, servers = (
        dscp_of(connection, row.project),
        read_servers(connection, now, Labels(regions=tuple(orjson.loads(row.regions)))),
    )
    # The kernel paces and marks no MPTCP: what has a promised rate or a slice goes over TCP.
    free = not slice_dscp and not row.most_bytes_per_second and row.stretches == "[]"
    marked = (OrderWay(dscp=slice_dscp),) if slice_dscp else ()
    by_itself = Lead(ways=marked, multipath=free and {source, row.target} <= servers.multipath)

    def through(relay: str) -> Lead:
        return Lead(ways=marked, relay=relay, relay_address=servers.relays[relay])

    if (relay := promised(row, source, servers.relays)) != "":
        return through(relay)
    found = _policies(connection, now, row, source, slice_dscp) if row.size_bytes >= _LEAST_BYTES else []
    if found:
        return _of(found)
    if servers.relays:
        relay = choose(read_network(connection, now), row, source, servers.relays)
        return through(relay) if relay else by_itself
    return by_itself


def _policies(
    connection: sa.Connection, now: float, row: Any, source: str, slice_dscp: int
) -> list[tuple[steering.Wanted, float]]:
    """The policies of a transfer with the shares of its ways, wanted now when they are not yet; none where it has to do without."""
    known = [one for one in steering.policies(connection) if _transfer(one.name) == row.id and one.owner == "transfer"]
    if known and all(one.source == source and one.wanted for one in known):
        if any(one.programmed_at is None and now - one.created_at > PATIENCE_SECONDS for one in known):
            let_go(connection, row.id)
            return []
        return [(one, _share(one.name)) for one in known]
    if known or connection.execute(sa.select(tables.net_nodes.c.name).limit(1)).first() is None:
        return []  # of an earlier order, and not forgotten yet; or nothing is declared
    view = read_network(connection, now)
    made: list[tuple[steering.Wanted, float]] = []
    for nodes, share in _paths(view, row, source, read_reserved(connection, now, project=row.project)):
        name = _name(row.id, len(made), share)
        try:
            policy = steering.want(
                connection, view, name=name, nodes=nodes, owner="transfer", now=now, slice_dscp=slice_dscp
            )
        except (Invalid, Busy):
            continue
        made.append((policy, share))
    return made


def moved(connection: sa.Connection, view: NetworkView, policy: str, nodes: Sequence[str]) -> None:
    """A failure took the policy of a transfer to another path: what it was promised is held of that one's links from now on."""
    t = tables.transfers
    of = sa.and_(t.c.id == _transfer(policy), t.c.links != "[]", t.c.source == nodes[0])
    by_ends = {(link.source, link.target): f"{link.link.name}>{link.target}" for link in view.links}
    links = [by_ends[pair] for pair in pairwise(nodes)]
    connection.execute(t.update().where(of).values(links=orjson.dumps(links).decode()))
    row = connection.execute(sa.select(t.c.ways).where(t.c.id == _transfer(policy)).with_for_update()).first()
    if row is not None:
        ways = waystaken.moved(row.ways, 1 if "." in policy else 0, nodes)
        connection.execute(t.update().where(t.c.id == _transfer(policy)).values(ways=ways))


def let_go(connection: sa.Connection, transfer: str) -> None:
    """A transfer stopped: its packets need no path of their own any more."""
    p = tables.net_policies
    names = connection.scalars(sa.select(p.c.name).where(p.c.owner == "transfer", p.c.wanted)).all()
    for name in names:
        if _transfer(name) == transfer:
            steering.give_up(connection, name)


def left_behind(connection: sa.Connection) -> list[str]:
    """The policies of transfers that are over: their end was not told, as through a crash."""
    p, t = tables.net_policies.c, tables.transfers.c
    names = connection.scalars(sa.select(p.name).where(p.owner == "transfer", p.wanted)).all()
    if not names:
        return []
    live = (TransferState.PLANNED.value, TransferState.MOVING.value)
    query = sa.select(t.id).where(t.id.in_(sorted({_transfer(name) for name in names})), t.state.in_(live))
    alive = set(connection.scalars(query))
    return sorted(name for name in names if _transfer(name) not in alive)


def give_up(connection: sa.Connection, lease: Lease, names: Sequence[str]) -> None:
    """The routers are to forget these policies."""
    guard(connection, lease)
    for name in names:
        steering.give_up(connection, name)


def note_rate(connection: sa.Connection, now: float, row: Any) -> None:
    """What a transfer between two sites that just ended tells of the network between them."""
    if row.through == "service" or row.started_at is None or row.size_bytes < _LEAST_SEEN_BYTES:
        return
    seconds = now - row.started_at
    if seconds >= _LEAST_SEEN_SECONDS:
        note_running_rate(connection, now, row, row.size_bytes / seconds)


def note_running_rate(connection: sa.Connection, now: float, row: Any, bytes_per_second: float) -> None:
    """What a transfer tells of the network as it runs: so much was free for it on each leg, at least."""
    if row.through not in ("direct", "relay") or bytes_per_second <= 0:
        return
    bounded: LimitedBy = "rate" if orjson.loads(row.stretches) or row.most_bytes_per_second else "unknown"
    stops = [row.source, *([row.relay] if row.relay else []), row.target]
    for source, target in pairwise(stops):
        seen_rate(connection, source, target, bytes_per_second, now, bounded)


def _paths(view: NetworkView, row: Any, source: str, reserved: Reserved) -> list[tuple[Sequence[str], float]]:
    """The planned path where the source is the planned one, else the one that moves it soonest of those that routers can be told of, and for
    a large one a second that shares no link with it but the first and the last; each with its share."""
    links = orjson.loads(row.links)
    if links and row.source == source and all(">" in link for link in links):
        return [((source, *(link.rpartition(">")[2] for link in links)), 1.0)]
    if view.node(source) is None or view.node(row.target) is None:
        return []
    from isthmus.network.candidates import candidate_paths

    found = candidate_paths(view, source, row.target, size_bytes=float(row.size_bytes), reserved=reserved, count=8)
    able = [one for one in found if one.up and one.programmable]
    if not able:
        return []
    first, most = able[0], able[0].promisable_bits_per_second or 0.0
    second = next(
        (
            one
            for one in able[1:]
            if set(first.links[1:-1]).isdisjoint(one.links)
            and (one.promisable_bits_per_second or 0.0) >= _LEAST_SHARE * most > 0
        ),
        None,
    )
    if second is None or row.size_bytes < _LEAST_SPLIT_BYTES or row.most_bytes_per_second:
        return [(first.nodes, 1.0)]
    return [(first.nodes, 1.0), (second.nodes, round((second.promisable_bits_per_second or 0.0) / most, 2))]


def _of(found: Sequence[tuple[steering.Wanted, float]]) -> Lead:
    return Lead(
        paths=tuple(policy.nodes for policy, _ in found),
        ways=tuple(
            OrderWay(dscp=policy.match.dscp or 0, flow_label=policy.match.flow_label or 0, share=share)
            for policy, share in found
        ),
        is_set=all(policy.programmed_at is not None for policy, _ in found),
    )


def _name(transfer: str, place: int, share: float) -> str:
    """`transfer-ID`; of the second way `transfer-ID.SHARE`, in per cent of the first."""
    return f"transfer-{transfer}" if not place else f"transfer-{transfer}.{round(100 * share)}"


def _transfer(name: str) -> str:
    return name.removeprefix("transfer-").partition(".")[0]


def _share(name: str) -> float:
    per_cent = name.partition(".")[2]
    return float(per_cent) / 100 if per_cent else 1.0
