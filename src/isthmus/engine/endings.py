"""Ends tasks, and lets those that waited for them go on or fall with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import TASK_ENDED, EndReason, TaskState
from isthmus.domain.task import DependencyCondition
from isthmus.store import events, tables

_CHUNK = 500


def end_tasks(
    connection: sa.Connection,
    now: float,
    endings: Mapping[str, tuple[TaskState, EndReason]],
    details: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Move tasks to their end state, in this transaction, and settle whatever depends on them, however deep.

    `details` may add columns for a task (exit code, message). A task that has ended already is left alone.
    """
    details = details or {}
    todo = dict(endings)
    while todo:
        rows = _living(connection, todo)
        if rows:
            connection.execute(
                tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("key")),
                [
                    {
                        "exit_code": None,
                        "message": "",
                        **details.get(row.id, {}),
                        "key": row.id,
                        "state": todo[row.id][0].value,
                        "reason": todo[row.id][1].value,
                        "ended_at": now,
                        "updated_at": now,
                    }
                    for row in rows
                ],
            )
            events.add(
                connection,
                [
                    events.event(
                        now,
                        f"task.{todo[row.id][0].value}",
                        project=row.project,
                        task_id=row.id,
                        attempt=row.attempt,
                        site=row.site,
                        body={"reason": todo[row.id][1].value},
                    )
                    for row in rows
                ],
            )
        todo = _settle(connection, now, {row.id: todo[row.id][0] for row in rows})


def _living(connection: sa.Connection, ids: Mapping[str, Any]) -> list[Any]:
    ended = [state.value for state in TASK_ENDED]
    listed = sorted(ids)
    rows: list[Any] = []
    for start in range(0, len(listed), _CHUNK):
        query = (
            sa.select(tables.tasks.c.id, tables.tasks.c.project, tables.tasks.c.attempt, tables.tasks.c.site)
            .where(tables.tasks.c.id.in_(listed[start : start + _CHUNK]))
            .where(tables.tasks.c.state.notin_(ended))
            .order_by(tables.tasks.c.id)
        )
        rows.extend(connection.execute(query.with_for_update()))
    return rows


def _settle(
    connection: sa.Connection, now: float, ended: Mapping[str, TaskState]
) -> dict[str, tuple[TaskState, EndReason]]:
    """Count down the tasks that waited for these; answers those that can never run now."""
    links: list[Any] = []
    listed = sorted(ended)
    for start in range(0, len(listed), _CHUNK):
        query = (
            tables.dependencies.select()
            .where(tables.dependencies.c.on_task_id.in_(listed[start : start + _CHUNK]))
            .where(tables.dependencies.c.satisfied.is_(False))
        )
        links.extend(connection.execute(query))
    met: list[Any] = []
    hopeless: dict[str, tuple[TaskState, EndReason]] = {}
    for link in links:
        needs_success = link.condition == DependencyCondition.SUCCEEDED
        if needs_success and ended[link.on_task_id] is not TaskState.SUCCEEDED:
            hopeless[link.task_id] = (TaskState.CANCELLED, EndReason.DEPENDENCY_FAILED)
        else:
            met.append(link)
    if met:
        connection.execute(
            tables.dependencies.update()
            .where(tables.dependencies.c.task_id == sa.bindparam("one"))
            .where(tables.dependencies.c.on_task_id == sa.bindparam("other")),
            [{"one": link.task_id, "other": link.on_task_id, "satisfied": True} for link in met],
        )
        _count_down(connection, now, sorted({link.task_id for link in met}))
    return hopeless


def _count_down(connection: sa.Connection, now: float, task_ids: list[str]) -> None:
    """Set `blocked_by` from the rows themselves, so that counting twice changes nothing, and free what is at zero."""
    waiting = (
        sa.select(sa.func.count())
        .select_from(tables.dependencies)
        .where(tables.dependencies.c.task_id == tables.tasks.c.id)
        .where(tables.dependencies.c.satisfied.is_(False))
        .scalar_subquery()
    )
    for start in range(0, len(task_ids), _CHUNK):
        part = task_ids[start : start + _CHUNK]
        lock = sa.select(tables.tasks.c.id).where(tables.tasks.c.id.in_(part)).order_by(tables.tasks.c.id)
        connection.execute(lock.with_for_update()).all()
        connection.execute(tables.tasks.update().where(tables.tasks.c.id.in_(part)).values(blocked_by=waiting))
        freed = connection.execute(
            sa.select(tables.tasks.c.id, tables.tasks.c.project)
            .where(tables.tasks.c.id.in_(part))
            .where(tables.tasks.c.state == TaskState.BLOCKED)
            .where(tables.tasks.c.blocked_by == 0)
        ).all()
        if freed:
            connection.execute(
                tables.tasks.update()
                .where(tables.tasks.c.id.in_([row.id for row in freed]))
                .values(state=TaskState.WAITING.value, updated_at=now)
            )
            events.add(
                connection, [events.event(now, "task.waiting", project=row.project, task_id=row.id) for row in freed]
            )
