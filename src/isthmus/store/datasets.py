"""Reads of datasets, their versions, replicas and transfers, shared by the engine and the faces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from isthmus.domain.dataset import HOME, TRANSFER_ENDED, DatasetRef, ReplicaState
from isthmus.domain.lifecycle import TASK_ENDED
from isthmus.store import tables

CHUNK = 500
OPEN = sa.text("transfers.state IN ('planned', 'moving')")
"""Of transfers that are not over, in the words of their index: SQLite does not use it for bound values."""
_SILENT_SECONDS = 300.0  # five times as long as between two announcements of what a site keeps
LONGEST_SECONDS = 300.0  # that a transfer without a window is put off; more is due to a clock that was set back
ABSENT_SECONDS = 90.0  # a site not seen for so long is told nothing
_d, _v, _r, _t = tables.datasets.c, tables.dataset_versions.c, tables.replicas.c, tables.transfers.c


def seen_lately(now: float) -> sa.ColumnElement[bool]:
    """Of sites: the agent was there a short while ago."""
    return tables.sites.c.last_seen_at > now - ABSENT_SECONDS


def version(connection: sa.Connection, ref: DatasetRef) -> Any | None:
    """The version that `ref` names (0: the newest), with its dataset's owner and labels; None when there is none."""
    query = (
        sa.select(tables.dataset_versions, _d.owner, _d.sensitivity, _d.regions, _d.newest)
        .join(tables.datasets, sa.and_(_d.project == _v.project, _d.name == _v.name))
        .where(_v.project == ref.project, _v.name == ref.name)
        .where(_v.version == (ref.version or _d.newest))
    )
    return connection.execute(query).first()


def replicas(connection: sa.Connection, project: str, name: str, number: int | None = None) -> list[Any]:
    """The replicas of a dataset (of one version), by version and place, with the region of each place."""
    query = (
        sa.select(tables.replicas, sa.func.coalesce(tables.sites.c.region, "").label("region"))
        .outerjoin(tables.sites, tables.sites.c.name == _r.site)
        .where(_r.project == project, _r.name == name)
        .order_by(_r.version, _r.site)
    )
    if number is not None:
        query = query.where(_r.version == number)
    return list(connection.execute(query))


def whole_places(connection: sa.Connection, refs: Iterable[DatasetRef]) -> dict[str, frozenset[str]]:
    """For each version (`PROJECT/NAME@VERSION`) the places that hold all of it."""
    wanted = sorted({(ref.project, ref.name, ref.version) for ref in refs})
    found: dict[str, set[str]] = {f"{p}/{n}@{v}": set() for p, n, v in wanted}
    for start in range(0, len(wanted), CHUNK):
        query = sa.select(_r.project, _r.name, _r.version, _r.site).where(
            sa.tuple_(_r.project, _r.name, _r.version).in_(wanted[start : start + CHUNK]),
            _r.state == ReplicaState.WHOLE.value,
        )
        for row in connection.execute(query):
            found[f"{row.project}/{row.name}@{row.version}"].add(row.site)
    return {name: frozenset(places) for name, places in found.items()}


def keeping_sites(connection: sa.Connection) -> dict[str, str]:
    """The sites that keep data, with their regions: those whose agent says so again and again. One that was started without is seen, and
    does not say it any more."""
    s, d = tables.sites.c, tables.data_servers.c
    query = sa.select(d.site, s.region).join(tables.sites, s.name == d.site)
    says = sa.or_(s.last_seen_at.is_(None), d.seen_at > s.last_seen_at - _SILENT_SECONDS)
    return {row.site: row.region for row in connection.execute(query.where(says, s.state != "left"))}


def open_transfer(connection: sa.Connection, project: str, name: str, number: int, target: str) -> Any | None:
    """The transfer that brings a version to a place now."""
    query = tables.transfers.select().where(
        _t.project == project, _t.name == name, _t.version == number, _t.target == target, OPEN
    )
    return connection.execute(query).first()


def failed_transfer(
    connection: sa.Connection, project: str, name: str, number: int, target: str, since: float
) -> str | None:
    """Why the newest transfer of a version to a place failed, when it ended so since then; None otherwise."""
    query = (
        sa.select(_t.state, _t.message, _t.ended_at)
        .where(_t.project == project, _t.name == name, _t.version == number, _t.target == target)
        .order_by(_t.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None or row.state != "failed" or row.ended_at is None or row.ended_at < since:
        return None
    return str(row.message) or "It failed."


def used_by_live_tasks(connection: sa.Connection, project: str, name: str, number: int | None = None) -> list[str]:
    """Ids of tasks that have not ended and take the dataset (the version) in; a few of them."""
    x, task = tables.task_data.c, tables.tasks.c
    query = (
        sa.select(task.id)
        .join(tables.task_data, x.task_id == task.id)
        .where(x.project == project, x.name == name, task.state.not_in([state.value for state in TASK_ENDED]))
        .limit(5)
    )
    if number is not None:
        query = query.where(x.version == number)
    return list(connection.scalars(query))


def in_use_at(connection: sa.Connection, site: str) -> set[tuple[str, str, int]]:
    """Versions that a live attempt at the site takes in."""
    x, a = tables.task_data.c, tables.attempts.c
    query = (
        sa.select(x.project, x.name, x.version)
        .distinct()
        .join(tables.attempts, a.task_id == x.task_id)
        .where(a.site == site, a.state.not_in(("succeeded", "failed", "cancelled", "lost")))
    )
    return {(row.project, row.name, row.version) for row in connection.execute(query)}


def is_still(connection: sa.Connection) -> bool:
    """Whether there is nothing to move, no copy at any site, and no path held by a transfer: one cheap question."""
    p, r = tables.net_policies.c, tables.replicas.c
    asked = (
        sa.exists().select_from(tables.transfers).where(OPEN),
        sa.exists().where(r.site != HOME),
        sa.exists().where(p.owner == "transfer", p.wanted),
    )
    return not any(connection.execute(sa.select(*(one.label(f"has{n}") for n, one in enumerate(asked)))).one())


def due_transfers(connection: sa.Connection, now: float, limit: int, without: Sequence[str]) -> list[Any]:
    """Open transfers that are to be looked at, oldest first, with manifest and labels of their version."""
    query = (
        sa.select(tables.transfers, _v.manifest, _v.manifest_sha256, _v.files, _d.regions)
        .join(
            tables.dataset_versions,
            sa.and_(_v.project == _t.project, _v.name == _t.name, _v.version == _t.version),
        )
        .join(tables.datasets, sa.and_(_d.project == _t.project, _d.name == _t.name))
        .where(OPEN, sa.or_(_t.due_at <= now, sa.and_(_t.due_at > now + LONGEST_SECONDS, _t.stretches == "[]")))
        .order_by(_t.due_at, _t.id)
        .limit(limit + len(without))
    )
    return [row for row in connection.execute(query) if row.id not in without][:limit]


def is_over(state: str) -> bool:
    """Whether a transfer in this state moves no more."""
    return state in {ended.value for ended in TRANSFER_ENDED}
