"""Reads tasks that came in as TES documents: pages of them, and each with all that its views show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from isthmus.api.tes.models import TesState
from isthmus.api.tes.states import in_state
from isthmus.store import tables

FACE = "tes"
_T = tables.tasks
_SHOWN = (
    _T.c.id,
    _T.c.state,
    _T.c.reason,
    _T.c.message,
    _T.c.project,
    _T.c.user,
    _T.c.attempt,
    _T.c.created_at,
    _T.c.started_at,
    _T.c.ended_at,
    _T.c.cancel_requested_at,
)
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is asked for. `projects` None: all; of `tags` every one must match, an empty value any value."""

    projects: tuple[str, ...] | None
    name_prefix: str = ""
    state: TesState | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, kw_only=True)
class Record:
    """A task's row and, for the views beyond MINIMAL, what belongs to it."""

    row: Any
    document: str = ""
    warnings: str = "[]"
    attempts: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def page(
    connection: sa.Connection, wanted: Wanted, *, before: str | None, limit: int, whole: bool
) -> tuple[list[Record], str | None]:
    """Tasks, newest first, and the id after which the next page begins (None: there is none)."""
    query = sa.select(*_SHOWN).where(_T.c.face == FACE)
    if wanted.projects is not None:
        query = query.where(_T.c.project.in_(wanted.projects))
    if before is not None:
        query = query.where(_T.c.id < before)
    if wanted.name_prefix:
        length = len(wanted.name_prefix)
        query = query.where(sa.func.substr(_T.c.name, 1, length) == wanted.name_prefix)
    if wanted.state is not None:
        query = query.where(in_state(wanted.state))
    g = tables.task_tags
    for key, value in wanted.tags:
        tag = sa.select(sa.literal(1)).where(g.c.task_id == _T.c.id, g.c.key == key)
        query = query.where(sa.exists(tag if not value else tag.where(g.c.value == value)))
    rows = connection.execute(query.order_by(_T.c.id.desc()).limit(limit + 1)).all()
    records = [Record(row=row) for row in rows[:limit]]
    if whole:
        _complete(connection, records)
    return records, rows[limit - 1].id if len(rows) > limit else None


def one(connection: sa.Connection, task_id: str, *, whole: bool) -> Record | None:
    """One task that came in as a TES document."""
    row = connection.execute(sa.select(*_SHOWN).where(_T.c.id == task_id, _T.c.face == FACE)).first()
    if row is None:
        return None
    record = Record(row=row)
    if whole:
        _complete(connection, [record])
    return record


def images_of(connection: sa.Connection, sites: Sequence[str]) -> dict[str, str]:
    """The configuration of each site, as JSON, for what it says about container images."""
    s = tables.sites
    query = sa.select(s.c.name, s.c.config).where(s.c.name.in_(sites))
    return {row.name: row.config for row in connection.execute(query)}


def _complete(connection: sa.Connection, records: Sequence[Record]) -> None:
    by_id = {record.row.id: record for record in records}
    d, a, o = tables.tes_documents, tables.attempts, tables.outputs
    for part in _chunks(list(by_id)):
        for row in connection.execute(sa.select(d).where(d.c.task_id.in_(part))):
            by_id[row.task_id].document = row.document
            by_id[row.task_id].warnings = row.warnings
        for row in connection.execute(sa.select(a).where(a.c.task_id.in_(part)).order_by(a.c.key)):
            by_id[row.task_id].attempts.append(row)
        for row in connection.execute(sa.select(o).where(o.c.task_id.in_(part)).order_by(o.c.path)):
            by_id[row.task_id].outputs.append(row)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
