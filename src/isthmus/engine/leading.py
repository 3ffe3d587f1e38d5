"""Leads the packets of a transfer over the path that it was planned for, or else over the best one that routers can be told of, or through a
relay.

A transfer wants a policy before it is ordered, is ordered with the marks of that policy once the routers have it, and gives it up when
it stops. Where no router obeys, or the routers are slow to, it goes as packets go by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import TransferState
from isthmus.domain.errors import Busy, Invalid
from isthmus.domain.network import NetworkView
from isthmus.domain.roads import Reserved
from isthmus.engine import steering
from isthmus.engine.leases import Lease, guard
from isthmus.engine.networkview import read_network
from isthmus.engine.relaying import choose, promised, read_servers
from isthmus.engine.reserving import read_reserved
from isthmus.engine.seen import LimitedBy, seen_rate
from isthmus.engine.slicing import dscp_of
from isthmus.store import tables

PATIENCE_SECONDS = 10.0  # for the routers to have a policy, before a transfer goes without
_LEAST_BYTES = 16 * 1024**2  # smaller ones are over before a path is programmed
_LEAST_SEEN_BYTES, _LEAST_SEEN_SECONDS = 8 * 1024**2, 1.0  # to tell a rate from


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """The marks of a transfer's packets, 0 = none; `is_set`: the routers send such packets over the path. `relay`: the site whose relay
    at `relay_address` (HOST:PORT) carries it; `multipath`: both ends have MPTCP."""

    nodes: tuple[str, ...] = ()
    dscp: int = 0
    flow_label: int = 0
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
    slice_dscp, servers = dscp_of(connection, row.project), read_servers(connection, now)
    # The kernel paces and marks no MPTCP: what has a promised rate or a slice goes over TCP.
    free = not slice_dscp and not row.most_bytes_per_second and row.stretches == "[]"
    by_itself = replace(BY_ITSELF, dscp=slice_dscp, multipath=free and {source, row.target} <= servers.multipath)

    def through(relay: str) -> Lead:
        return replace(BY_ITSELF, dscp=slice_dscp, relay=relay, relay_address=servers.relays[relay])

    if (relay := promised(row, source, servers.relays)) != "":
        return through(relay)
    policy = _policy(connection, now, row, source, slice_dscp) if row.size_bytes >= _LEAST_BYTES else None
    if policy is not None:
        return _of(policy)
    if servers.relays:
        relay = choose(read_network(connection, now), row, source, servers.relays)
        return through(relay) if relay else by_itself
    return by_itself


def _policy(connection: sa.Connection, now: float, row: Any, source: str, slice_dscp: int) -> steering.Wanted | None:
    """The policy of a transfer, wanted now when it is not yet; None where it has to do without."""
    name = _name(row.id)
    known = connection.execute(tables.net_policies.select().where(tables.net_policies.c.name == name)).first()
    if known is not None and known.source == source and known.wanted:
        (policy,) = (one for one in steering.policies(connection) if one.name == name)
        if policy.programmed_at is None and now - policy.created_at > PATIENCE_SECONDS:
            steering.give_up(connection, name)
            return None
        return policy
    if known is not None:
        return None  # of an earlier order, and not forgotten yet
    if connection.execute(sa.select(tables.net_nodes.c.name).limit(1)).first() is None:
        return None
    view = read_network(connection, now)
    for nodes in _paths(view, row, source, read_reserved(connection, now)):
        try:
            return steering.want(
                connection, view, name=name, nodes=nodes, owner="transfer", now=now, slice_dscp=slice_dscp
            )
        except (Invalid, Busy):
            continue
    return None


def let_go(connection: sa.Connection, transfer: str) -> None:
    """A transfer stopped: its packets need no path of their own any more."""
    steering.give_up(connection, _name(transfer))


def left_behind(connection: sa.Connection) -> list[str]:
    """The policies of transfers that are over: their end was not told, as through a crash."""
    p, t = tables.net_policies.c, tables.transfers.c
    names = connection.scalars(sa.select(p.name).where(p.owner == "transfer", p.wanted)).all()
    if not names:
        return []
    ids = {_transfer(name): name for name in names}
    live = (TransferState.PLANNED.value, TransferState.MOVING.value)
    query = sa.select(t.id).where(t.id.in_(sorted(ids)), t.state.in_(live))
    return [ids[transfer] for transfer in sorted(ids.keys() - set(connection.scalars(query)))]


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
        bounded: LimitedBy = "rate" if orjson.loads(row.stretches) or row.most_bytes_per_second else "unknown"
        stops = [row.source, *([row.relay] if row.relay else []), row.target]
        for source, target in pairwise(stops):
            seen_rate(connection, source, target, row.size_bytes / seconds, now, bounded)


def _paths(view: NetworkView, row: Any, source: str, reserved: Reserved) -> list[Sequence[str]]:
    """The planned path where the source is the planned one, else all that routers can be told of, the soonest first."""
    links = orjson.loads(row.links)
    if links and row.source == source and all(">" in link for link in links):
        return [(source, *(link.rpartition(">")[2] for link in links))]
    if view.node(source) is None or view.node(row.target) is None:
        return []
    from isthmus.network.candidates import candidate_paths

    found = candidate_paths(view, source, row.target, size_bytes=float(row.size_bytes), reserved=reserved)
    return [one.nodes for one in found if one.up and one.programmable]


def _of(policy: steering.Wanted) -> Lead:
    return Lead(
        nodes=policy.nodes,
        dscp=policy.match.dscp or 0,
        flow_label=policy.match.flow_label or 0,
        is_set=policy.programmed_at is not None,
    )


def _name(transfer: str) -> str:
    return f"transfer-{transfer}"


def _transfer(name: str) -> str:
    return name.removeprefix("transfer-")
