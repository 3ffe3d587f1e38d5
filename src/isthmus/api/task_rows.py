"""Reads tasks from the store as the answers have them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.api.body import when
from isthmus.domain.dataset import HOME
from isthmus.domain.errors import NotFound
from isthmus.domain.ids import make_id
from isthmus.domain.lifecycle import TASK_ENDED, AttemptState, TaskState
from isthmus.engine import waystaken
from isthmus.store import tables

_T = tables.tasks
_SHOWN = [
    "id",
    "project",
    "user",
    "name",
    "state",
    "priority",
    "array_id",
    "array_index",
    "gang",
    "part",
    "attempts",
    "max_attempts",
    "attempt",
    "site",
    "pool",
    "exit_code",
    "reason",
    "message",
    "created_at",
    "updated_at",
    "started_at",
    "ended_at",
    "cancel_requested_at",
]
_TIMES = ("created_at", "updated_at", "started_at", "ended_at")
_BRANCHES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """What a list of tasks is asked for; empty: any. `projects` None: all of them."""

    projects: tuple[str, ...] | None = None
    states: tuple[str, ...] = ()
    site: str = ""
    user: str = ""
    name: str = ""
    array_id: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    since: float | None = None


def one_task(connection: sa.Connection, task_id: str) -> dict[str, Any]:
    """A task with its specification; NotFound when it is not there."""
    row = connection.execute(sa.select(*(_T.c[name] for name in _SHOWN), _T.c.spec).where(_T.c.id == task_id)).first()
    if row is None:
        raise NotFound("There is no such task for you.")
    shown = _complete(connection, [row])[0]
    shown["spec"] = orjson.Fragment(row.spec)
    return shown


def page_of_tasks(
    connection: sa.Connection, wanted: TaskFilter, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Tasks, newest first, and the cursor of the next page.

    One short range of an index for each project and state, merged here: the cost of a page does not grow with the table.
    """
    ids = _page_ids(connection, wanted, cursor, limit + 1)
    more = len(ids) > limit
    ids = ids[:limit]
    columns = [_T.c[name] for name in _SHOWN]
    rows: list[Any] = []
    for start in range(0, len(ids), 500):
        rows.extend(connection.execute(sa.select(*columns).where(_T.c.id.in_(ids[start : start + 500]))))
    rows.sort(key=lambda row: row.id, reverse=True)
    return _complete(connection, rows), ids[-1] if more else None


def _page_ids(connection: sa.Connection, wanted: TaskFilter, cursor: str | None, count: int) -> list[str]:
    conditions = _conditions(wanted, cursor)
    projects: Sequence[str] | None = wanted.projects
    if projects is not None and not projects:
        return []
    if projects is None and wanted.states and not (wanted.array_id or wanted.user or wanted.site):
        projects = list(connection.scalars(sa.select(tables.projects.c.name)))
    selects: list[sa.Select[Any]]
    narrow = (
        wanted.array_id or wanted.user or wanted.site
    )  # each has an index of its own, best for all projects at once
    if projects is None or narrow or len(projects) * max(1, len(wanted.states)) > _BRANCHES:
        extra = list(conditions)
        if projects is not None:
            extra.append(_T.c.project.in_(list(projects)))
        if wanted.states:
            extra.append(_T.c.state.in_(wanted.states))
        selects = [sa.select(_T.c.id).where(*extra)]
    elif wanted.states:
        selects = [
            sa.select(_T.c.id).where(_T.c.project == project, _T.c.state == state, *conditions)
            for project in projects
            for state in wanted.states
        ]
    else:
        selects = [sa.select(_T.c.id).where(_T.c.project == project, *conditions) for project in projects]
    found = [list(connection.scalars(select.order_by(_T.c.id.desc()).limit(count))) for select in selects]
    merged = found[0] if len(found) == 1 else list(heapq.merge(*found, reverse=True))
    return merged[:count]


def _conditions(wanted: TaskFilter, cursor: str | None) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if cursor:
        conditions.append(_T.c.id < cursor)
    if wanted.since is not None:
        # Ids begin with their time, so this is a range of the same index; the second condition is exact.
        conditions.append(_T.c.id >= make_id(max(0, int(wanted.since * 1000) - 1), bytes(10)))
        conditions.append(_T.c.created_at >= wanted.since)
    if wanted.site:
        conditions.append(_T.c.site == wanted.site)
        conditions.append(sa.literal_column("site <> ''", sa.Boolean))  # as the partial index says it
    if wanted.user:
        conditions.append(_T.c.user == wanted.user)
    if wanted.name:
        conditions.append(_T.c.name == wanted.name)
    if wanted.array_id:
        conditions.append(_T.c.array_id == wanted.array_id)
        conditions.append(sa.literal_column("array_id <> ''", sa.Boolean))  # as the partial index says it
    for key, value in wanted.tags:
        g = tables.task_tags
        conditions.append(
            sa.exists(sa.select(sa.literal(1)).where(g.c.task_id == _T.c.id, g.c.key == key, g.c.value == value))
        )
    return conditions


def _complete(connection: sa.Connection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows as answers, with tags, native ids and what they wait for."""
    ids = [row.id for row in rows]
    tags: dict[str, dict[str, str]] = {}
    tries: dict[str, Any] = {}
    waiting: dict[str, list[str]] = {}
    g, a, d = tables.task_tags, tables.attempts, tables.dependencies
    for part in _parts(ids):
        for row in connection.execute(sa.select(g.c.task_id, g.c.key, g.c.value).where(g.c.task_id.in_(part))):
            tags.setdefault(row.task_id, {})[row.key] = row.value
    for part in _parts([row.attempt for row in rows if row.attempt]):
        query = sa.select(a.c.key, a.c.state, a.c.native_id, a.c.message, a.c.observed).where(a.c.key.in_(part))
        tries.update({row.key: row for row in connection.execute(query)})
    for part in _parts([row.id for row in rows if row.state == TaskState.BLOCKED]):
        query = sa.select(d.c.task_id, d.c.on_task_id).where(d.c.task_id.in_(part), d.c.satisfied.is_(False))
        for row in connection.execute(query.order_by(d.c.on_task_id)):
            waiting.setdefault(row.task_id, []).append(row.on_task_id)
    shown = []
    for row in rows:
        item: dict[str, Any] = {name: getattr(row, name) for name in _SHOWN}
        item["cancel_requested"] = item.pop("cancel_requested_at") is not None
        for name in _TIMES:
            item[name] = when(item[name])
        item["tags"] = tags.get(row.id, {})
        attempt = tries.get(row.attempt)
        item["native_id"] = attempt.native_id if attempt else ""
        item["queue_position"] = queue_position(attempt) if attempt else None
        if attempt and not item["message"] and row.state not in TASK_ENDED:
            item["message"] = attempt.message  # why it does not get on, while it is tried again
        item["waiting_for"] = waiting.get(row.id, [])
        shown.append(item)
    return shown


def queue_position(attempt: Any) -> int | None:
    """The place of an attempt in the queue of its site, where that site said it and it still waits there."""
    if attempt.state != AttemptState.QUEUED:
        return None
    position: int | None = orjson.loads(attempt.observed or "{}").get("queue_position")
    return position


def _parts(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + 500] for start in range(0, len(values), 500)]


ATTEMPT_FIELDS = [
    "key",
    "number",
    "site",
    "pool",
    "account",
    "state",
    "native_id",
    "exit_code",
    "reason",
    "message",
    "created_at",
    "submitted_at",
    "started_at",
    "ended_at",
    "predicted_seconds",
    "nodes",
    "cpus",
]
USAGE_FIELDS = [str(column.name) for column in tables.usage_records.columns]
USAGE_SHOWN = [*USAGE_FIELDS, "submitted_at", "observed_start_at", "requested_seconds", "state", "moved_bytes"]


def show(row: sa.Row[Any], fields: Sequence[str]) -> dict[str, Any]:
    """These columns of a row, times as answers have them."""
    found = {name: getattr(row, name) for name in fields}
    return {name: when(value) if name.endswith("_at") else value for name, value in found.items()}


def attempts_of(connection: sa.Connection, task_id: str, after: str | None, limit: int) -> Sequence[sa.Row[Any]]:
    """A task's attempts, oldest first."""
    a = tables.attempts
    query = sa.select(a).where(a.c.task_id == task_id).order_by(a.c.key).limit(limit)
    if after:
        query = query.where(a.c.key > after)
    return connection.execute(query).all()


def receipts_of(connection: sa.Connection, task_id: str) -> list[str]:
    """A task's receipts, oldest first, those of attempts with what came of them."""
    r, a, u = tables.receipts, tables.attempts, tables.usage_records
    query = (
        sa.select(
            r.c.body,
            a.c.site,
            a.c.created_at,
            a.c.submitted_at,
            a.c.started_at,
            a.c.gang,
            a.c.held_seconds,
            u.c.elapsed_seconds,
        )
        .select_from(r.outerjoin(a, a.c.key == r.c.attempt).outerjoin(u, u.c.attempt == r.c.attempt))
        .where(r.c.task_id == task_id)
        .order_by(r.c.decided_at, r.c.attempt)
        .limit(1000)
    )
    rows = connection.execute(query).all()
    moved = _moved(connection, task_id) if rows else []
    return [_with_actuals(row, moved) for row in rows]


def _moved(connection: sa.Connection, task_id: str) -> list[dict[str, Any]]:
    """Transfers that brought what the task takes in, over a while ago or not, by their ends."""
    t, x = tables.transfers.c, tables.task_data.c
    query = (
        sa.select(tables.transfers)
        .join(tables.task_data, sa.and_(x.project == t.project, x.name == t.name, x.version == t.version))
        .where(x.task_id == task_id, t.state == "done", t.started_at.is_not(None))
        .order_by(t.ended_at, t.id)
    )
    return [
        {
            "transfer": row.id,
            "name": f"{row.project}/{row.name}@{row.version}",
            "source": row.source,
            "target": row.target,
            "through": row.through,
            "relay": row.relay,
            "multipath": row.multipath,
            "ways": waystaken.read(row.ways),
            "links": orjson.loads(row.links),
            "size_bytes": row.size_bytes,
            "started_at": row.started_at,
            "ended_at": row.ended_at,
        }
        for row in connection.execute(query)
    ]


def _with_actuals(row: sa.Row[Any], moved: Sequence[dict[str, Any]]) -> str:
    if row.submitted_at is None:
        return str(row.body)
    actual: dict[str, Any] = {"actual_transfer_seconds": max(0.0, row.submitted_at - row.created_at)}
    places = (row.site, HOME)  # through the service it goes there first
    own = [
        one
        for one in moved
        if one["target"] in places and one["ended_at"] >= row.created_at and one["started_at"] <= row.submitted_at
    ]
    if own:
        begins = max(row.created_at, min(one["started_at"] for one in own))
        actual["actual_transfer_seconds"] = max(0.0, max(one["ended_at"] for one in own) - begins)
        actual["actual_transfers"] = own
    if row.started_at is not None:
        actual["actual_wait_seconds"] = max(0.0, row.started_at - row.submitted_at)
    if row.elapsed_seconds is not None:
        held = min(row.held_seconds, float(row.elapsed_seconds))
        actual["actual_run_seconds"] = row.elapsed_seconds - held
        if row.gang:
            actual["actual_held_seconds"] = held
    return orjson.dumps(orjson.loads(row.body) | actual).decode()


def outputs_of(connection: sa.Connection, task_id: str, offset: int, limit: int) -> Sequence[sa.Row[Any]]:
    """A task's outputs by path, after the first `offset`."""
    o = tables.outputs
    query = sa.select(o).where(o.c.task_id == task_id).order_by(o.c.path).offset(offset).limit(limit)
    return connection.execute(query).all()


def usage_query() -> sa.Select[Any]:
    """Usage records with `USAGE_SHOWN`: what their attempts say too, null where the attempt is not there any more."""
    u, a, t = tables.usage_records, tables.attempts, tables.transfers.c
    moved = (
        sa.select(sa.func.coalesce(sa.func.sum(t.size_bytes), 0))
        .where(t.task_id == u.c.task_id, t.task_id != "", t.target.in_([u.c.site, HOME]), t.state == "done")
        .scalar_subquery()
    )
    return sa.select(
        u,
        moved.label("moved_bytes"),
        a.c.submitted_at,
        a.c.started_at.label("observed_start_at"),
        a.c.walltime_seconds.label("requested_seconds"),
        a.c.state,
    ).select_from(u.outerjoin(a, a.c.key == u.c.attempt))


def usage_of(connection: sa.Connection, task_id: str) -> Sequence[sa.Row[Any]]:
    """A task's usage records, one for each attempt that has one."""
    u = tables.usage_records.c
    return connection.execute(usage_query().where(u.task_id == task_id).order_by(u.attempt).limit(1000)).all()
