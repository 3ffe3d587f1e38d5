"""What a task printed: from its site while it is there, from the blob that was kept of it afterwards."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api.body import ID, TaskIdPath
from isthmus.api.routing import Router
from isthmus.api.service import Service, Serving
from isthmus.domain.errors import NotFound
from isthmus.domain.lifecycle import ATTEMPT_ENDED, TASK_ENDED, AttemptState, TaskState
from isthmus.sites.port import JobRef, LogStream
from isthmus.store import tables
from isthmus.trust.access import OfTask, Scope

MAX_LOG_PART = 8 * 1024**2
_BEFORE_SITE = frozenset({AttemptState.PLACED, AttemptState.STAGING})
router = Router("tasks")


@router.route(
    "GET",
    "/v1/tasks/{task_id}/logs",
    rule=OfTask(Scope.TASKS_READ),
    media="application/octet-stream",
    headers=["X-Next-Offset", "X-Log-Complete", "X-Attempt"],
)
async def read_logs(
    service: Serving,
    task_id: TaskIdPath,
    stream: LogStream = LogStream.STDOUT,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LOG_PART)] = 1024**2,
    attempt: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """A part of a stream from `offset` on; ask again at `X-Next-Offset` until `X-Log-Complete` is true."""
    task_state, row = await service.database.read(_which, task_id, attempt)
    content, complete = b"", row is None and task_state in TASK_ENDED
    if row is not None:
        state = AttemptState(row.state)
        blob = row.stdout_blob if stream is LogStream.STDOUT else row.stderr_blob
        if blob:
            content, complete = await _from_blob(service, blob, offset, limit)
        elif state in ATTEMPT_ENDED:
            complete = True  # it ended and nothing was kept
        elif state not in _BEFORE_SITE:
            reference = JobRef(
                key=row.key,
                account=row.account,
                pool=row.pool,
                native_id=row.native_id,
                submitted_at=row.submitted_at or 0.0,
                fence=row.fence,
            )
            content = await service.engine.site(row.site).logs(reference, stream, offset, limit)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={
            "X-Next-Offset": str(offset + len(content)),
            "X-Log-Complete": "true" if complete else "false",
            "X-Attempt": row.key if row is not None else "",
            "Cache-Control": "no-store",
        },
    )


async def _from_blob(service: Service, blob: str, offset: int, limit: int) -> tuple[bytes, bool]:
    size = await service.blobs.size(blob)
    content = bytearray()
    if offset < size:
        async for chunk in service.blobs.read(blob, offset):
            content += chunk
            if len(content) >= limit:
                break
    part = bytes(content[:limit])
    return part, offset + len(part) >= size


def _which(connection: sa.Connection, task_id: str, key: str | None) -> tuple[TaskState, sa.Row[Any] | None]:
    t, a = tables.tasks, tables.attempts
    task = connection.execute(sa.select(t.c.state, t.c.attempt).where(t.c.id == task_id)).first()
    if task is None:
        raise NotFound("There is no such task for you.")
    wanted = key or task.attempt
    row = None
    if wanted:
        row = connection.execute(sa.select(a).where(a.c.key == wanted, a.c.task_id == task_id)).first()
        if row is None:
            raise NotFound("The task has no such attempt.", remedy="`isthmus show TASK` lists them.")
    return TaskState(task.state), row
