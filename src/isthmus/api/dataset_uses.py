"""Who used a dataset for what: the tasks that read a version of it or made one, and what they made of it."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import dataset_answers as answers
from isthmus.api.answers import Page
from isthmus.api.body import ID, Limit, ProjectPath, answer, when
from isthmus.api.datasets import DatasetPath
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.dataset import DatasetRef
from isthmus.engine.datasets import need_version
from isthmus.store import tables
from isthmus.trust.access import Caller, InProject, Scope

router = Router("data")


@router.route(
    "GET",
    "/v1/datasets/{project}/{name}/uses",
    rule=InProject(Scope.TASKS_READ),
    answer=Page[answers.DatasetUse],
)
async def list_dataset_uses(
    service: Serving,
    caller: Calling,
    project: ProjectPath,
    name: DatasetPath,
    version: Annotated[int, Query(ge=0, le=10**9, description="0: every version.")] = 0,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """The tasks that read a version of a dataset or made it, newest first; only tasks of projects that the caller may see."""
    ref = DatasetRef(project=project, name=name, version=version)

    def read(connection: sa.Connection) -> list[dict[str, Any]]:
        need_version(connection, ref)
        return uses(connection, ref, caller, before=cursor or "", limit=limit + 1)

    rows = await service.database.read(read)
    following = rows[limit - 1]["task_id"] if len(rows) > limit else None
    return answer({"items": rows[:limit], "next_cursor": following})


def uses(
    connection: sa.Connection, ref: DatasetRef, caller: Caller, *, before: str, limit: int
) -> list[dict[str, Any]]:
    """A line for each task: the versions that it read and that it made, newest task first."""
    x, v, t = tables.task_data.c, tables.dataset_versions.c, tables.tasks
    reading = sa.select(x.task_id).where(x.project == ref.project, x.name == ref.name)
    making = sa.select(v.task_id).where(v.project == ref.project, v.name == ref.name, v.task_id != "")
    if ref.version:
        reading, making = reading.where(x.version == ref.version), making.where(v.version == ref.version)
    query = (
        sa.select(t.c.id, t.c.name, t.c.project, t.c.user, t.c.state, t.c.site, t.c.created_at, t.c.ended_at)
        .where(sa.or_(t.c.id.in_(reading), t.c.id.in_(making)))
        .order_by(t.c.id.desc())
        .limit(limit)
    )
    if before:
        query = query.where(t.c.id < before)
    if not caller.rules_all:
        query = query.where(t.c.project.in_(sorted(caller.projects)))
    rows = connection.execute(query).all()
    ids = [row.id for row in rows]
    read: dict[str, list[int]] = {}
    of_it = sa.select(x.task_id, x.version).where(x.project == ref.project, x.name == ref.name, x.task_id.in_(ids))
    for row in connection.execute(of_it.order_by(x.version)):
        read.setdefault(row.task_id, []).append(row.version)
    made: dict[str, list[str]] = {}
    of_them = sa.select(v.task_id, v.project, v.name, v.version).where(v.task_id.in_(ids))
    for row in connection.execute(of_them.order_by(v.project, v.name, v.version)):
        if caller.sees_project(row.project):
            made.setdefault(row.task_id, []).append(f"{row.project}/{row.name}@{row.version}")
    return [
        {
            "task_id": row.id,
            "name": row.name,
            "project": row.project,
            "user": row.user,
            "state": row.state,
            "site": row.site,
            "read": read.get(row.id, []),
            "made": made.get(row.id, []),
            "created_at": when(row.created_at),
            "ended_at": when(row.ended_at),
        }
        for row in rows
    ]
