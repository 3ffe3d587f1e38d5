"""Copies that are to be at their sites by a time: promised over what links have left, or refused with the nearest offer.

The ways are looked for first, which takes a moment in a large network. What is held of links is read in the transaction that promises
more of them, and no other does meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from isthmus.domain.dataset import HOME, DatasetRef, ReplicaState, Tier
from isthmus.domain.errors import Conflict, IsthmusError, Refused
from isthmus.domain.roads import Carriage, Piece, Roads, Way
from isthmus.engine.datasets import labels_of, need_version, plan_transfer
from isthmus.engine.roads import RoadMap, as_promised, promises
from isthmus.placement.carrying import SLICE_FIRST, Blocked, Traffic
from isthmus.store import datasets, tables
from isthmus.store.database import promise_alone

SPARE_SECONDS = 5.0
"""Between the end of the last window and the time that is promised: for telling the routers and the site, and for the last hashes."""
_BOUND = "@most>"  # names a link of its own for a transfer that is to take less than its path has


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A version that is to be whole at some places by a time (seconds since 1970), each transfer with at most so many bytes a second
    (0: no bound)."""

    ref: DatasetRef
    targets: tuple[str, ...]
    by: float
    most_bytes_per_second: float = 0.0
    pinned: bool = False


def read_ways(connection: sa.Connection, now: float, wish: Wish, home_region: str) -> Roads:
    """The declared ways to the places from those that hold the version and answer; NotFound for a version that there is not."""
    sources = _piece(connection, now, need_version(connection, wish.ref)).places
    pairs = {(source, target) for source in sources for target in wish.targets if source != target}
    roads = RoadMap(home_region).declared(connection, now, wish.ref.project, pairs)
    return _bounded(roads, wish.most_bytes_per_second) if wish.most_bytes_per_second else roads


def admit(connection: sa.Connection, *, now: float, user: str, wish: Wish, roads: Roads, home_region: str) -> list[str]:
    """Store a transfer with its promise for each place; all, or with an error none. Answers their ids in the order of the places, empty for
    one that has the version.

    Refused as `plan_transfer` does, and with the codes `misses_deadline`, which names the soonest end that can be promised,
    `no_declared_path`, and `path_full`: links are promised for too long. Conflict when the version comes already, with no such promise.
    """
    promise_alone(connection)
    row = need_version(connection, wish.ref)
    piece = _piece(connection, now, row)
    held, _ = promises(connection, now)
    traffic = Traffic(roads, now, held)
    found: list[str] = []
    ends = now
    for target in wish.targets:
        moving = datasets.open_transfer(connection, row.project, row.name, row.version, target)
        transfer = plan_transfer(
            connection,
            now=now,
            user=user,
            ref=replace(wish.ref, version=row.version),
            target=target,
            home_region=home_region,
            pinned=wish.pinned,
            most_bytes_per_second=wish.most_bytes_per_second,
        )
        found.append(transfer)
        if not transfer:
            continue
        if moving is not None and (moving.state != "planned" or moving.links != "[]"):
            _need_promise(piece, moving, wish.by)
            earlier = min(moving.wanted_by or wish.by, wish.by)
            _change(connection, transfer, {"wanted_by": earlier})
            continue
        carriage = _planned(traffic, piece, target, wish.by)
        traffic.take([carriage])
        ends = max(ends, carriage.ends)
        promised = as_promised(replace(carriage, links=_without_bound(carriage.links)))
        most = wish.most_bytes_per_second
        _change(connection, transfer, {**promised, "wanted_by": wish.by, "most_bytes_per_second": most, "due_at": now})
    if ends + SPARE_SECONDS > wish.by:
        raise _too_late(piece, wish, ends + SPARE_SECONDS)
    return found


def _piece(connection: sa.Connection, now: float, row: Any) -> Piece:
    """The version with the sites from which it can be read: they hold it whole, at hand, and were there a short while ago."""
    s, d = tables.sites.c, tables.data_servers.c
    query = sa.select(d.site).join(tables.sites, s.name == d.site).where(datasets.seen_lately(now), d.address != "")
    servers = set(connection.scalars(query))
    return Piece(
        name=f"{row.project}/{row.name}@{row.version}",
        size_bytes=int(row.size_bytes),
        places=frozenset(
            copy.site
            for copy in datasets.replicas(connection, row.project, row.name, row.version)
            if copy.site in servers and copy.state == ReplicaState.WHOLE and copy.tier != Tier.COLD
        ),
        regions=frozenset(labels_of(row).regions),
    )


def _bounded(roads: Roads, most: float) -> Roads:
    """The same ways, each with a link more, which carries `most` bytes a second to each place."""
    links = {**roads.links, **{_BOUND + target: Way(bytes_per_second=most) for _, target in roads.routes}}

    def slower(target: str, ways: Any) -> Any:
        return tuple(
            replace(way, links=(*way.links, _BOUND + target), bytes_per_second=min(most, way.bytes_per_second or most))
            for way in ways
        )

    routes = {pair: slower(pair[1], ways) for pair, ways in roads.routes.items()}
    sliced = {key: slower(key[2], ways) for key, ways in roads.sliced.items()}
    return replace(roads, links=links, routes=routes, sliced=sliced)


def _without_bound(links: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(link for link in links if not link.startswith(_BOUND))


def _planned(traffic: Traffic, piece: Piece, target: str, by: float) -> Carriage:
    """The transfer to a place over what links have left, in time where any is: one in the slice of its project may be slower than others, and is
    taken only if it is not too late."""
    for slice_first in (SLICE_FIRST, 1.0):
        found = traffic.over_links(piece, target, slice_first=slice_first)
        if found is None:
            raise _no_path(piece, target)
        if isinstance(found, Blocked):
            raise Refused(
                f"{piece.name} cannot be promised at {target}: {found.offered}.",
                remedy="`isthmus net paths A B` shows what is promised. Have it copied without a time, or ask again later.",
                code="path_full",
            )
        carriage, _ = found
        if carriage.ends + SPARE_SECONDS <= by:
            break
    return carriage


def _no_path(piece: Piece, target: str) -> IsthmusError:
    if not piece.places:
        return Refused(
            f"No site that answers holds all of {piece.name}, and from elsewhere no time can be promised.",
            remedy="Have it copied to a site first, without a time.",
            code="no_declared_path",
        )
    to = "the service" if target == HOME else target
    return Refused(
        f"No path with a known rate is declared from {', '.join(sorted(piece.places))} to {to} for {piece.name}: no time can be promised.",
        remedy="An operator of the network declares the links with `isthmus net load`; without a time it is copied as well.",
        code="no_declared_path",
    )


def _need_promise(piece: Piece, moving: Any, by: float) -> None:
    """Conflict when a transfer that is under way, or promised, is not sure to end in time."""
    if moving.stretches == "[]" or moving.ends_at is None or moving.ends_at + SPARE_SECONDS > by:
        raise Conflict(
            f"{piece.name} is on its way to {moving.target} already, and not promised to be there by {_said(by)}.",
            remedy=f"Wait for it, or end it first: `isthmus data transfers --cancel {moving.id}`.",
        )


def _change(connection: sa.Connection, transfer: str, values: dict[str, Any]) -> None:
    """`cached`: it goes on when a task that it was planned for has ended."""
    where = tables.transfers.c.id == transfer
    connection.execute(tables.transfers.update().where(where).values(**values, cached=False))


def _too_late(piece: Piece, wish: Wish, soonest: float) -> Refused:
    return Refused(
        f"{piece.name} cannot be at {' and '.join(wish.targets)} by {_said(wish.by)}: the soonest end that can be promised is "
        f"{_said(soonest)}.",
        remedy="Ask for a minute later than that, or have it copied without a time.",
        code="misses_deadline",
    )


def _said(at: float) -> str:
    """To the second, no earlier, so that what is offered can be promised when it is asked for at once."""
    return datetime.fromtimestamp(-(-at // 1), UTC).isoformat(timespec="seconds")
