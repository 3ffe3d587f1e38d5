"""Datasets, replicas and transfers as the REST face shows them, read from the store."""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.api.body import when
from isthmus.domain.dataset import DatasetRef
from isthmus.engine import waystaken
from isthmus.engine.datasets import need_version
from isthmus.store import datasets, tables

_d, _v, _r, _t = tables.datasets.c, tables.dataset_versions.c, tables.replicas.c, tables.transfers.c


def page(connection: sa.Connection, project: str, after: str, limit: int) -> list[dict[str, Any]]:
    """Datasets of a project by name, each with its newest version and where all of that lies."""
    query = (
        sa.select(tables.datasets, _v.files, _v.size_bytes, _v.created_at.label("made_at"))
        .join(
            tables.dataset_versions,
            sa.and_(_v.project == _d.project, _v.name == _d.name, _v.version == _d.newest),
        )
        .where(_d.project == project, _d.name > after)
        .order_by(_d.name)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    refs = [DatasetRef(project=project, name=row.name, version=row.newest) for row in rows]
    places = datasets.whole_places(connection, refs)
    return [_line(row, sorted(places[ref.versioned])) for row, ref in zip(rows, refs, strict=True)]


def _line(row: Any, places: list[str]) -> dict[str, Any]:
    return {
        "project": row.project,
        "name": row.name,
        "version": row.newest,
        "owner": row.owner,
        "sensitivity": row.sensitivity,
        "regions": orjson.loads(row.regions),
        "files": row.files,
        "size_bytes": row.size_bytes,
        "places": places,
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
    }


def one(connection: sa.Connection, ref: DatasetRef) -> dict[str, Any]:
    """One version of a dataset with its copies, all versions, and which task made it out of what."""
    row = need_version(connection, ref)
    versions = connection.execute(
        sa.select(_v.version, _v.files, _v.size_bytes, _v.created_by, _v.task_id, _v.created_at)
        .where(_v.project == ref.project, _v.name == ref.name)
        .order_by(_v.version.desc())
        .limit(100)
    ).all()
    copies = datasets.replicas(connection, row.project, row.name, row.version)
    return {
        "project": row.project,
        "name": row.name,
        "version": row.version,
        "owner": row.owner,
        "sensitivity": row.sensitivity,
        "regions": orjson.loads(row.regions),
        "files": row.files,
        "size_bytes": row.size_bytes,
        "manifest": row.manifest,
        "manifest_sha256": row.manifest_sha256,
        "created_by": row.created_by,
        "created_at": when(row.created_at),
        "made_by": row.task_id,
        "made_from": _inputs(connection, row.task_id),
        "versions": [
            {
                "version": item.version,
                "files": item.files,
                "size_bytes": item.size_bytes,
                "created_by": item.created_by,
                "made_by": item.task_id,
                "created_at": when(item.created_at),
            }
            for item in versions
        ],
        "replicas": [_copy(copy) for copy in copies],
    }


def _inputs(connection: sa.Connection, task_id: str) -> list[str]:
    if not task_id:
        return []
    x = tables.task_data.c
    query = sa.select(x.project, x.name, x.version).where(x.task_id == task_id).order_by(x.project, x.name)
    return [f"{row.project}/{row.name}@{row.version}" for row in connection.execute(query)]


def _copy(row: Any) -> dict[str, Any]:
    return {
        "site": row.site,
        "state": row.state,
        "tier": row.tier,
        "pinned": row.pinned,
        "cached": row.cached,
        "in_place": row.in_place,
        "size_bytes": row.size_bytes,
        "uses": row.uses,
        "heat": row.heat,
        "used_at": when(row.used_at),
        "whole_at": when(row.whole_at),
    }


def transfers(
    connection: sa.Connection, project: str, *, dataset: str, task: str, open_only: bool, before: str, limit: int
) -> list[dict[str, Any]]:
    """Transfers of a project's datasets, newest first."""
    query = tables.transfers.select().where(_t.project == project).order_by(_t.id.desc()).limit(limit)
    if dataset:
        query = query.where(_t.name == dataset)
    if task:
        query = query.where(_t.task_id == task)
    if open_only:
        query = query.where(datasets.OPEN)
    if before:
        query = query.where(_t.id < before)
    return [show_transfer(row) for row in connection.execute(query)]


def one_transfer(connection: sa.Connection, project: str, transfer_id: str) -> dict[str, Any] | None:
    """One transfer of a project's dataset; None when there is none."""
    row = connection.execute(tables.transfers.select().where(_t.id == transfer_id, _t.project == project)).first()
    return None if row is None else show_transfer(row)


def _is_late(row: Any) -> bool:
    """Whether it was, or is to be, over after the time that was promised; not known to end: as of the last news of it."""
    if row.wanted_by is None:
        return False
    ends = row.ended_at or max(row.ends_at or 0.0, row.updated_at)
    return bool(ends > row.wanted_by)


def show_transfer(row: Any) -> dict[str, Any]:
    """A row of `transfers` as an answer."""
    return {
        "id": row.id,
        "project": row.project,
        "dataset": row.name,
        "version": row.version,
        "source": row.source,
        "target": row.target,
        "state": row.state,
        "through": row.through,
        "relay": row.relay,
        "multipath": row.multipath,
        "ways": waystaken.read(row.ways),
        "links": orjson.loads(row.links),
        "stretches": orjson.loads(row.stretches),
        "size_bytes": row.size_bytes,
        "done_bytes": row.done_bytes,
        "bytes_per_second": row.bytes_per_second,
        "ends_at": when(row.ends_at),
        "by": when(row.wanted_by),
        "late": _is_late(row),
        "task_id": row.task_id,
        "created_by": row.created_by,
        "message": row.message,
        "created_at": when(row.created_at),
        "started_at": when(row.started_at),
        "ended_at": when(row.ended_at),
    }
