"""Events: a stream for all that a caller may see, a list for one task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from isthmus.api import answers
from isthmus.api.body import ID, NAME, Limit, TaskIdPath, answer, when
from isthmus.api.feed import EventRow, Filter, Subscription, history, read_events
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.domain.errors import IsthmusError, Unauthenticated
from isthmus.trust.access import Caller, OfTask, Scope, Signed

router = Router("events")
_ALL = 2**62


def shown(row: EventRow) -> dict[str, Any]:
    """An event as an answer."""
    return {
        "seq": row.seq,
        "at": when(row.at),
        "kind": row.kind,
        "project": row.project,
        "task_id": row.task_id,
        "attempt": row.attempt,
        "site": row.site,
        "body": orjson.loads(row.body),
    }


def visible_to(caller: Caller, project: str | None, task_id: str | None) -> Filter:
    """Which events a caller gets: of their projects, and of sites; those of no project and no site only when they rule all."""

    def wants(row: EventRow) -> bool:
        if project is not None and row.project != project:
            return False
        if task_id is not None and row.task_id != task_id:
            return False
        if caller.rules_all:
            return True
        if row.project:
            return row.project in caller.projects
        return bool(row.site) and not row.task_id

    return wants


@router.route("GET", "/v1/events", rule=Signed(Scope.TASKS_READ), media="text/event-stream")
async def stream_events(
    request: Request,
    service: Serving,
    caller: Calling,
    project: Annotated[str | None, Query(pattern=NAME)] = None,
    task_id: Annotated[str | None, Query(pattern=ID)] = None,
    follow: bool = True,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """Events as they happen (server-sent), after `Last-Event-ID` or from now on."""
    if project is not None:
        caller.need_project(project)
    wants = visible_to(caller, project, task_id)
    subscription, present = service.feed.subscribe(wants)
    after = present if last_event_id is None else int(last_event_id)
    stream = _stream(request, service, caller, subscription, after, present, task_id or "", follow)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _stream(
    request: Request,
    service: Service,
    caller: Caller,
    subscription: Subscription,
    after: int,
    present: int,
    task_id: str,
    follow: bool,
) -> AsyncIterator[bytes]:
    try:
        yield b"retry: 1000\n: welcome\n\n"
        if not follow:
            present = _ALL
        async for row in history(
            service.database, after=after, until=present, wants=subscription.wants, task_id=task_id
        ):
            yield _frame(row)
        loop = asyncio.get_running_loop()
        quiet_until = loop.time() + service.settings.keepalive_seconds
        while follow:
            batch, subscription.waiting = subscription.waiting, []
            subscription.news.clear()
            parts = [_frame(row) for row in batch if row.seq > after]
            if parts:
                yield b"".join(parts)
            if subscription.cut:
                yield _cut(subscription.cut, "The server ended the stream; resume after the last number.")
                return
            if loop.time() >= quiet_until:
                quiet_until = loop.time() + service.settings.keepalive_seconds
                try:
                    renewed = await service.gate.caller(request.headers.get("authorization"))
                except Unauthenticated as error:
                    yield _cut(error.code, error.cause)
                    return
                if (renewed.projects, renewed.rules_all) != (caller.projects, caller.rules_all):
                    yield _cut("access_changed", "What you may see has changed; connect again.")
                    return
                yield b": still here\n\n"
            try:
                async with asyncio.timeout_at(quiet_until):
                    await subscription.news.wait()
            except TimeoutError:
                continue
    except IsthmusError as error:
        yield _cut(error.code, error.cause)
    finally:
        service.feed.unsubscribe(subscription)


def _frame(row: EventRow) -> bytes:
    data = orjson.dumps(shown(row), option=orjson.OPT_UTC_Z)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row.seq, row.kind.encode(), data)


def _cut(code: str, cause: str) -> bytes:
    return b"event: cut\ndata: " + orjson.dumps({"code": code, "cause": cause}) + b"\n\n"


@router.route("GET", "/v1/tasks/{task_id}/events", rule=OfTask(Scope.TASKS_READ), answer=answers.Page[answers.Event])
async def list_task_events(
    service: Serving,
    task_id: TaskIdPath,
    limit: Limit = 1000,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """What happened to a task, oldest first."""
    rows = await service.database.read(read_events, after=int(cursor or 0), limit=limit + 1, task_id=task_id)
    following = str(rows[limit - 1].seq) if len(rows) > limit else None
    return answer({"items": [shown(row) for row in rows[:limit]], "next_cursor": following})
