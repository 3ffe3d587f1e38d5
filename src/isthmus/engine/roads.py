"""What the brain is told of data and the network: where data sets are, ways between places, and what is promised of the links.

Read only for a round in which some task reads a data set. A promise is a transfer that is not over: its path and window are in its
row, written in the transaction of the decision, and gone with the transfer's end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.dataset import DatasetRef, TransferState
from isthmus.domain.errors import IsthmusError
from isthmus.domain.lifecycle import TASK_ENDED
from isthmus.domain.network import Figure, LinkView, NetworkView, NodeKind
from isthmus.domain.network import Source as Whence
from isthmus.domain.placement import KeptOutput, Placement, WaitingTask
from isthmus.domain.roads import HOME, PROMISED_SHARE, Carriage, Held, Piece, Roads, Route, Way
from isthmus.domain.task import TaskSpec
from isthmus.engine.datasets import end_transfer, labels_of, plan_transfer
from isthmus.engine.leases import Lease, guard
from isthmus.engine.networkview import read_network
from isthmus.engine.slicing import Sliced, sum_rates
from isthmus.engine.slicing import slices as read_slices
from isthmus.engine.taskdata import kept_by, refs_of
from isthmus.placement.carrying import UPLOADS
from isthmus.store import datasets, tables

_UNKNOWN_BYTES_PER_SECOND = 50e6  # of a way that nobody declared or measured, as for uploads
_UNKNOWN_LINK = 100e9  # bits/s of a link of which nobody said anything: it is not what holds a transfer up
_BY_TIME, _BY_LATENCY, _BY_PRICE = 2, 2, 1  # paths of each kind that are looked at, for each pair of places
_TYPICAL_BYTES = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class DataView:
    """What a round's tasks read, by the name of the version as `DatasetRef.versioned` has it, and the ways to it."""

    pieces: Mapping[str, Piece]
    roads: Roads
    regions: Mapping[str, frozenset[str]] = field(
        default_factory=dict
    )  # of datasets that tasks make anew and leave where they run
    by_a_time: frozenset[str] = frozenset()  # transfers that hold links because they are to be over by a time

    def of(self, refs: Iterable[DatasetRef]) -> tuple[Piece, ...]:
        """The pieces of one task, each once; a version that is gone is a piece without a place."""
        names = dict.fromkeys(ref.versioned for ref in refs)
        lost = Piece(name="", size_bytes=0, places=frozenset())
        return tuple(self.pieces.get(name, replace(lost, name=name)) for name in names)


NOTHING = DataView(pieces={}, roads=Roads())


class RoadMap:
    """Reads `DataView`s; remembers paths as long as the network does not change."""

    def __init__(self, home_region: str) -> None:
        self._home_region = home_region
        self._known: object = None
        self._network: _Network | None = None

    def read(self, connection: sa.Connection, now: float, specs: Iterable[TaskSpec]) -> DataView:
        """For these tasks; nothing is read when none of them reads a data set, or leaves one where it runs."""
        specs = list(specs)
        regions = _regions(connection, {name for spec in specs for name in kept_by(spec)})
        refs = {ref for spec in specs for ref in refs_of(spec)}
        if not refs:
            return replace(NOTHING, regions=regions)
        pieces = _pieces(connection, refs)
        d = tables.data_servers.c
        servers = dict(connection.execute(sa.select(d.site, d.address)).tuples().all())
        slices, relays = _slices_and_relays(connection)
        network = self._of(read_network(connection, now), now, slices, relays)
        held, coming = promises(connection, now)
        by_a_time = held_by_a_time(connection)
        sources = sorted({place for piece in pieces.values() for place in piece.places if servers.get(place)})
        routes, links = {}, dict(network.links)
        for source in sources:
            for target in sorted(servers):
                if target != source:
                    routes[source, target] = network.between(source, target, links)
        projects = {piece.name.partition("/")[0] for piece in pieces.values()}
        sliced = network.sliced(set(routes), projects, links)
        roads = Roads(
            links=links, routes=routes, sliced=sliced, held=held, coming=coming, home_region=self._home_region
        )
        return DataView(pieces=pieces, roads=roads, regions=regions, by_a_time=by_a_time)

    def declared(
        self, connection: sa.Connection, now: float, project: str, pairs: Collection[tuple[str, str]]
    ) -> Roads:
        """The ways between pairs of sites over declared links whose rates are known, for data of a project; nothing of what is held."""
        slices, relays = _slices_and_relays(connection)
        network = self._of(read_network(connection, now), now, slices, relays)
        routes = {pair: found for pair in sorted(pairs) if (found := network.declared(*pair))}
        links = dict(network.links)
        sliced = network.sliced(set(routes), {project}, links)
        return Roads(links=links, routes=routes, sliced=sliced, home_region=self._home_region)

    def _of(self, view: NetworkView, now: float, slices: Sequence[Sliced], relays: Mapping[str, str]) -> _Network:
        known = (
            slices,
            relays,
            tuple(
                (one.link.name, one.source, one.up, one.link, _rounded(one.available_bits_per_second))
                for one in view.links
            ),
            tuple((pair.source, pair.target, _rounded(pair.available_bits_per_second)) for pair in view.pairs),
        )
        if self._network is None or known != self._known:
            self._known, self._network = known, _Network(view, now, slices, relays)
        return self._network


class _Network:
    """Paths over the links that are up, found when they are asked for."""

    def __init__(self, view: NetworkView, now: float, slices: Sequence[Sliced], relays: Mapping[str, str]) -> None:
        self._view = view
        self._relays = relays
        self._slices = {one.project: one for one in slices if one.project and one.programmed_at is not None}
        given = sum_rates(slices)
        self._ways = {_name(one): (one, _way(one, now, given)) for one in view.links if one.up}
        self.links = {name: way for name, (_, way) in self._ways.items()}
        self._unknown = {
            name
            for name, (one, _) in self._ways.items()
            if one.capacity_bits_per_second is None and one.available_bits_per_second is None
        }
        self._now = now
        self._paths: dict[tuple[str, str], tuple[Route, ...]] = {}
        self._in_slices: dict[tuple[str, str, str], tuple[Route, ...]] = {}

    def sliced(
        self, pairs: Iterable[tuple[str, str]], projects: Collection[str], links: dict[str, Way]
    ) -> dict[tuple[str, str, str], tuple[Route, ...]]:
        """Ways in the slices of projects between places; `links` gets the parts of links that the slices have."""
        found = {}
        for project in sorted(self._slices.keys() & projects):
            ways = self._with(self._slices[project])
            links |= {name: way for name, (_, way) in ways.items() if name not in self._ways}
            for source, target in pairs:
                key = project, source, target
                if key not in self._in_slices:
                    routes = self._search(source, target, ways)
                    self._in_slices[key] = tuple(one for one in routes if not self._ways.keys() >= set(one.links))
                if self._in_slices[key]:
                    found[key] = self._in_slices[key]
        return found

    def _with(self, slice_: Sliced) -> dict[str, tuple[LinkView, Way]]:
        """The links, those of a slice with its rate and under names of their own."""
        rate = PROMISED_SHARE * slice_.bits_per_second / 8
        return {
            f"{slice_.name}/{name}" if one.link.name in slice_.links else name: (
                (one, Way(bytes_per_second=rate)) if one.link.name in slice_.links else (one, way)
            )
            for name, (one, way) in self._ways.items()
        }

    def declared(self, source: str, target: str) -> tuple[Route, ...]:
        """Routes over declared links, the one first that brings a gigabyte soonest; of at least one link of each the rate is known."""
        if (source, target) not in self._paths:
            self._paths[source, target] = self._search(source, target, self._ways)
        return tuple(route for route in self._paths[source, target] if not self._unknown.issuperset(route.links))

    def between(self, source: str, target: str, links: dict[str, Way]) -> tuple[Route, ...]:
        """Routes, the one first that brings a gigabyte soonest; `links` gets a link of the pair's own where no path is declared."""
        if (source, target) not in self._paths:
            self._paths[source, target] = self._search(source, target, self._ways)
        found = self._paths[source, target]
        if found:
            return found
        stops: list[tuple[str, ...]] = [(source, target)]
        stops += [(source, relay, target) for relay in sorted(self._relays) if relay not in (source, target)]
        routes = [route for one in stops if (route := self._over(one, links)) is not None]
        return tuple(sorted(routes, key=lambda route: _TYPICAL_BYTES / route.bytes_per_second + route.latency_seconds))

    def _over(self, stops: Sequence[str], links: dict[str, Way]) -> Route | None:
        """From end to end, or through a relay, where only pairs of sites are known; None where something is down, or a leg of a relay was
        never measured."""
        latency = 0.0
        ways: dict[str, Way] = {}
        for one, other in pairwise(stops):
            pair = self._view.between(one, other)
            seen = pair.available_bits_per_second if pair is not None else None
            if (pair is not None and not pair.up) or (seen is None and len(stops) > 2):
                return None
            way = _as_way(seen, self._now) if seen is not None else Way(bytes_per_second=_UNKNOWN_BYTES_PER_SECOND)
            ways[f"{one}>{other}"] = way
            latency += pair.delay_seconds.value if pair is not None and pair.delay_seconds is not None else 0.0
        links |= ways
        return Route(
            links=tuple(ways),
            latency_seconds=latency,
            bytes_per_second=min(way.bytes_per_second for way in ways.values()),
            relays=frozenset(self._relays[stop] for stop in stops[1:-1]),
        )

    def _search(self, source: str, target: str, ways: Mapping[str, tuple[LinkView, Way]]) -> tuple[Route, ...]:
        names = {node.name for node in self._view.nodes}
        if source not in names or target not in names or not ways:
            return ()
        from isthmus.network.paths import Constraints, shortest_paths
        from isthmus.network.topology import Link, Topology

        rows = list(ways.values())
        keys = list(ways)
        topology = Topology.of(
            sorted(names),
            [
                Link(
                    source=one.source,
                    target=one.target,
                    capacity_bits_per_second=8 * way.bytes_per_second,
                    latency_seconds=one.delay_seconds.value if one.delay_seconds is not None else 0.0,
                    loss=min(one.loss.value, 0.99) if one.loss is not None else 0.0,
                    price_per_byte=float(one.price_per_gb) / 1e9,
                )
                for one, way in rows
            ],
        )
        ends = topology.node(source), topology.node(target)
        latency = topology.latency_seconds + 1e-6
        seconds = latency + 8 * _TYPICAL_BYTES / topology.capacity_bits_per_second
        avoid = Constraints(
            avoid_nodes=frozenset(
                topology.node(node.name)
                for node in self._view.nodes
                if node.kind is NodeKind.SITE and node.name not in (source, target) and node.name not in self._relays
            )
        )
        found = shortest_paths(topology, *ends, seconds, _BY_TIME, avoid)
        found += shortest_paths(topology, *ends, latency, _BY_LATENCY, avoid)
        if topology.price_per_byte.any():
            found += shortest_paths(topology, *ends, topology.price_per_byte + 1e-15 * seconds, _BY_PRICE, avoid)
        routes = {}
        for path in found:
            along = [rows[number] for number in path.links]
            routes[path.links] = Route(
                links=tuple(keys[number] for number in path.links),
                latency_seconds=path.latency_seconds,
                bytes_per_second=min(way.bytes_per_second for _, way in along),
                price_per_gigabyte=sum((one.price_per_gb for one, _ in along), start=type(along[0][0].price_per_gb)(0)),
                programmable=any(one.programmable for one, _ in along),
                relays=frozenset(self._relays[one.target] for one, _ in along[:-1] if one.target in self._relays),
            )
        return tuple(
            sorted(routes.values(), key=lambda route: _TYPICAL_BYTES / route.bytes_per_second + route.latency_seconds)
        )


def _slices_and_relays(connection: sa.Connection) -> tuple[list[Sliced], dict[str, str]]:
    """The slices that are wanted, and the sites that pass data on for others with their regions."""
    d, s = tables.data_servers.c, tables.sites.c
    query = sa.select(d.site, sa.func.coalesce(s.region, "")).outerjoin(tables.sites, s.name == d.site)
    relays = dict(connection.execute(query.where(d.relay != "")).tuples().all())
    return [one for one in read_slices(connection) if one.wanted], relays


def _name(one: LinkView) -> str:
    return f"{one.link.name}>{one.target}"


def _way(one: LinkView, now: float, sliced: Mapping[str, float]) -> Way:
    """What may be promised of a link: what was seen to be free, else what was declared, less what slices have."""
    seen = one.available_bits_per_second
    if seen is not None and not seen.is_stale(now) and seen.value > 0:
        way = _as_way(seen, now)
    else:
        way = Way(bytes_per_second=(one.capacity_bits_per_second or _UNKNOWN_LINK) * PROMISED_SHARE / 8)
    part = sliced.get(one.link.name, 0.0) / 8
    return replace(way, bytes_per_second=max(1.0, way.bytes_per_second - part)) if part else way


def _as_way(seen: Figure, now: float) -> Way:
    error = seen.error_at(now)
    rate = max(1.0, seen.value) * PROMISED_SHARE / 8
    part = min(0.9, error / max(seen.value, 1.0))
    return Way(
        bytes_per_second=rate,
        source="declared" if seen.source is Whence.DECLARED else "measured",
        low=rate * (1 - part),
        high=rate * (1 + part),
    )


def _rounded(figure: Figure | None) -> float | None:
    """To about a tenth, so that paths are not searched again for every packet that was measured."""
    return None if figure is None or figure.value <= 0 else round(math.log(figure.value) * 10)


def _pieces(connection: sa.Connection, refs: Iterable[DatasetRef]) -> dict[str, Piece]:
    rows = {ref: datasets.version(connection, ref) for ref in sorted(refs, key=str)}
    places = datasets.whole_places(
        connection, [replace(ref, version=row.version, path="") for ref, row in rows.items() if row is not None]
    )
    found = {}
    for ref, row in rows.items():
        if row is not None:
            name = f"{row.project}/{row.name}@{row.version}"
            found[ref.versioned] = Piece(
                name=name,
                size_bytes=int(row.size_bytes),
                places=places[name],
                regions=frozenset(labels_of(row).regions),
            )
    return found


def _regions(connection: sa.Connection, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """What datasets that are there already may not leave."""
    d = tables.datasets.c
    wanted = sorted({(ref.project, ref.name) for ref in map(DatasetRef.parse, names)})
    found: dict[str, frozenset[str]] = {}
    for start in range(0, len(wanted), datasets.CHUNK):
        query = tables.datasets.select().where(sa.tuple_(d.project, d.name).in_(wanted[start : start + datasets.CHUNK]))
        found.update(
            (f"{row.project}/{row.name}", frozenset(labels_of(row).regions)) for row in connection.execute(query)
        )
    return found


def promises(connection: sa.Connection, now: float) -> tuple[tuple[Held, ...], dict[tuple[str, str], float]]:
    """What transfers that are not over hold of links, and when each brings its data to its place. What was promised in a slice that is given up
    is held of the link itself."""
    given = {one.name for one in read_slices(connection) if one.wanted}
    t = tables.transfers.c
    held: list[Held] = []
    coming: dict[tuple[str, str], float] = {}
    query = sa.select(
        t.project,
        t.name,
        t.version,
        t.target,
        t.links,
        t.stretches,
        t.ends_at,
        t.size_bytes,
        t.done_bytes,
        t.state,
        t.bytes_per_second,
    ).where(datasets.OPEN)
    for row in connection.execute(query):
        links, stretches = [_still(link, given) for link in orjson.loads(row.links)], orjson.loads(row.stretches)
        last = max((part["ends"] for part in stretches), default=now)
        rate = row.bytes_per_second or _UNKNOWN_BYTES_PER_SECOND
        ends = row.ends_at or (last if stretches else now + (row.size_bytes - row.done_bytes) / rate)
        coming[f"{row.project}/{row.name}@{row.version}", row.target] = max(ends, now)
        parts = [(part["begins"], part["ends"], part["bytes_per_second"]) for part in stretches if part["ends"] > now]
        if row.state == "moving" and stretches and ends > max(last, now):  # it is late: it still uses its path
            parts.append((max(last, now), ends, min(rate, max(part["bytes_per_second"] for part in stretches))))
        held += [
            Held(link=link, begins=begins, ends=until, bytes_per_second=speed)
            for link in links
            for begins, until, speed in parts
        ]
    return tuple(held), coming


def held_by_a_time(connection: sa.Connection) -> frozenset[str]:
    """The transfers that hold links because they are to be over by a time: they are promised beside the placement round."""
    t = tables.transfers.c
    return frozenset(connection.scalars(sa.select(t.id).where(datasets.OPEN, t.wanted_by.is_not(None))))


def _still(link: str, slices: Collection[str]) -> str:
    slice_, _, inner = link.rpartition("/")
    return link if slice_ in slices else inner


def promise(connection: sa.Connection, now: float, user: str, task: str, placement: Placement, home_region: str) -> int:
    """Write the transfers that a placement plans, in its transaction; answers how many. One that cannot be any more is left to
    the staging of the attempt, which plans again or tells why not."""
    count = 0
    for one in placement.transfers:
        if not one.stretches or one.shared or one.name == UPLOADS or one.source == HOME:
            continue
        try:
            with connection.begin_nested():
                transfer = plan_transfer(
                    connection,
                    now=now,
                    user=user,
                    ref=DatasetRef.parse(one.name),
                    target=one.target,
                    home_region=home_region,
                    cached=True,
                    task_id=task,
                )
        except (IsthmusError, sa.exc.IntegrityError):  # another process planned the same at this moment
            continue
        if transfer:
            t = tables.transfers
            unpromised = sa.and_(t.c.id == transfer, t.c.state == "planned", t.c.links == "[]")
            connection.execute(t.update().where(unpromised).values(**as_promised(one)))
            count += 1
    return count


def as_promised(one: Carriage) -> dict[str, Any]:
    """What a transfer's row says of its promise."""
    stretches = [
        {"begins": part.begins, "ends": part.ends, "bytes_per_second": part.bytes_per_second} for part in one.stretches
    ]
    return {
        "source": one.source,
        "links": orjson.dumps(one.links).decode(),
        "stretches": orjson.dumps(stretches).decode(),
        "ends_at": one.ends,
    }


def sweep(connection: sa.Connection, now: float, lease: Lease) -> int:
    """End planned transfers that no task waits for any more, so that their links are free again; answers how many."""
    guard(connection, lease)
    t, a, x = tables.transfers.c, tables.tasks.c, tables.task_data.c
    wanted = (
        sa.select(x.task_id)
        .join(tables.tasks, a.id == x.task_id)
        .where(x.project == t.project, x.name == t.name, x.version == t.version)
        .where(a.site == t.target, a.state.not_in([state.value for state in TASK_ENDED]))
    )
    query = tables.transfers.select().where(
        t.state == "planned", t.cached.is_(True), t.task_id != "", t.target != HOME, ~wanted.exists()
    )
    rows = connection.execute(query.with_for_update(skip_locked=True)).all()
    for row in rows:
        end_transfer(connection, now, row, TransferState.CANCELLED, "No task waits for it any more.")
    return len(rows)


def with_data(task: WaitingTask, spec: TaskSpec, data: DataView) -> WaitingTask:
    """The task with what it reads, and what it leaves where it runs."""
    refs, kept = refs_of(spec), kept_by(spec)
    if not refs and not kept:
        return task
    keeps = tuple(KeptOutput(name=name, regions=data.regions.get(name, frozenset())) for name in kept)
    return replace(task, data=data.of(refs), keeps=keeps)
