"""Room at sites with a quota: what is there, what may leave, written as copies that leave or go cold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from isthmus.data.lifecycle import Copy, Room, faded, make_room
from isthmus.domain.dataset import Labels, ReplicaState, Tier
from isthmus.engine import datasets as intents
from isthmus.engine.leases import Lease, guard
from isthmus.store import datasets, events, tables

_r, _t, _s = tables.replicas.c, tables.transfers.c, tables.data_servers.c
_RATES = 20  # newest transfers that a site's rate is the median of


def room_for(
    connection: sa.Connection, now: float, lease: Lease, site: str, own: tuple[str, str, int], size_bytes: int
) -> tuple[int, list[Any]]:
    """Let copies go so that a version (`own`) that comes to a site, or back from its cold store, fits under the quota. Answers the bytes that
    are missing now (0: it may come; what leaves still takes its room), and the rows of copies to be moved to the cold store."""
    guard(connection, lease)
    connection.execute(sa.select(_r.version).where(_r.site == site).with_for_update()).all()
    rows, over, room = _look(connection, now, site, own, size_bytes)
    if room is None or room.missing_bytes:
        return over, []  # nothing leaves in vain: with all that may go it would still not fit
    stays = []
    for copy in sorted(room.drop, key=lambda one: one.key):
        intents.lock_version(connection, *copy.key)
        if intents.is_whole_elsewhere(connection, copy.key, site):
            intents.leave(connection, (*copy.key, site))
        else:  # the other copy was let go at this moment: it is looked at again with the next try
            stays.append(copy)
    room = replace(room, drop=tuple(copy for copy in room.drop if copy not in stays))
    _tell(connection, now, site, room)
    chilled = {copy.key for copy in room.chill}
    return over, [row for row in rows if (row.project, row.name, row.version) in chilled]


def missing_at(connection: sa.Connection, now: float, site: str, own: tuple[str, str, int], size_bytes: int) -> int:
    """The bytes by which a version would not fit at a site, whatever left; 0 where room is, or can be made."""
    _, _, room = _look(connection, now, site, own, size_bytes)
    return 0 if room is None else room.missing_bytes


def _look(
    connection: sa.Connection, now: float, site: str, own: tuple[str, str, int], size_bytes: int
) -> tuple[Sequence[Any], int, Room | None]:
    """What lies at a site, by how much `size_bytes` more is over its quota, and what would make room; None where nothing has to go."""
    server = connection.execute(tables.data_servers.select().where(_s.site == site)).first()
    if server is None or not server.quota_bytes:
        return (), 0, None
    rows = connection.execute(
        tables.replicas.select().where(_r.site == site, _r.state != ReplicaState.LOST.value)
    ).all()
    used = sum(
        row.size_bytes
        for row in rows
        if row.state in _TAKES_ROOM
        and row.tier == Tier.WARM
        and not row.in_place
        and (row.project, row.name, row.version) != own
    )
    leaving = sum(row.size_bytes for row in rows if row.state == ReplicaState.LEAVING and row.tier == Tier.WARM)
    over = used + size_bytes - server.quota_bytes
    if over <= leaving:
        return rows, max(0, over), None
    return rows, over, make_room(_copies(connection, now, site, rows), over - leaving, has_cold=bool(server.cold))


_TAKES_ROOM = frozenset({ReplicaState.ARRIVING.value, ReplicaState.WHOLE.value, ReplicaState.LEAVING.value})


def _copies(connection: sa.Connection, now: float, site: str, rows: Sequence[Any]) -> list[Copy]:
    in_use = datasets.in_use_at(connection, site)
    query = sa.select(_t.project, _t.name, _t.version).where(_t.source == site, datasets.OPEN)
    sending = {(row.project, row.name, row.version) for row in connection.execute(query)}
    others = tables.replicas.alias("others")
    elsewhere = {
        (row.project, row.name, row.version)
        for row in connection.execute(
            sa.select(others.c.project, others.c.name, others.c.version)
            .distinct()
            .where(others.c.site != site, others.c.state == ReplicaState.WHOLE.value)
        )
    }
    rate = _rate(connection, site)
    region = intents.cold_region_of(connection, site)
    bound = _bound(connection, site)
    found = []
    for row in rows:
        key = (row.project, row.name, row.version)
        if row.state == ReplicaState.WHOLE and row.tier == Tier.WARM and not row.in_place:
            found.append(
                Copy(
                    key=key,
                    size_bytes=row.size_bytes,
                    heat=faded(row.heat, row.heat_at, now),
                    pinned=row.pinned,
                    cached=row.cached,
                    busy=key in in_use or key in sending,
                    elsewhere=key in elsewhere,
                    bytes_per_second=rate,
                    may_chill=bound.get(key[:2], Labels()).allow(region),
                )
            )
    return found


def _bound(connection: sa.Connection, site: str) -> dict[tuple[str, str], Labels]:
    """The labels of datasets with copies at a site that are bound to regions."""
    d = tables.datasets.c
    query = (
        sa.select(d.project, d.name, d.sensitivity, d.regions)
        .distinct()
        .join(tables.replicas, sa.and_(d.project == _r.project, d.name == _r.name))
        .where(_r.site == site, d.regions != "[]")
    )
    return {(row.project, row.name): intents.labels_of(row) for row in connection.execute(query)}


def _rate(connection: sa.Connection, site: str) -> float:
    """The median rate of the newest transfers to the site; 0 where there were none."""
    query = (
        sa.select(_t.size_bytes, _t.started_at, _t.ended_at)
        .where(_t.target == site, _t.state == "done", _t.ended_at > _t.started_at)
        .order_by(_t.id.desc())
        .limit(_RATES)
    )
    rates = sorted(row.size_bytes / (row.ended_at - row.started_at) for row in connection.execute(query))
    return rates[len(rates) // 2] if rates else 0.0


def _tell(connection: sa.Connection, now: float, site: str, room: Room) -> None:
    rows = []
    for how, copies in (("evicted", room.drop), ("chilled", room.chill)):
        for copy in copies:
            project, name, number = copy.key
            body = {"dataset": f"{project}/{name}@{number}", "heat": round(copy.heat, 3), "size_bytes": copy.size_bytes}
            rows.append(events.event(now, f"replica.{how}", project=project, site=site, body=body))
    events.add(connection, rows)


def set_tier(connection: sa.Connection, lease: Lease, rows: Sequence[Any], tier: Tier) -> None:
    """Write how fast copies are at hand."""
    guard(connection, lease)
    for row in rows:
        where = (_r.project == row.project, _r.name == row.name, _r.version == row.version, _r.site == row.site)
        connection.execute(tables.replicas.update().where(*where).values(tier=tier.value))
