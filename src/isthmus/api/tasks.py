"""Tasks: submitted one by one or in batches, listed, shown, cancelled, held, released, tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response
from pydantic import Field

from isthmus.api import answers, task_rows
from isthmus.api.body import (
    ID,
    NAME,
    IdempotencyKey,
    InProjectQuery,
    Limit,
    Since,
    TaskIdPath,
    answer,
    fingerprint,
    made,
    once,
    read_body,
)
from isthmus.api.manifests import manifests_of
from isthmus.api.routing import Router
from isthmus.api.schemas import IdText
from isthmus.api.service import Calling, Service, Serving
from isthmus.domain.dataset import DatasetRef
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.ids import is_id
from isthmus.domain.lifecycle import TaskState
from isthmus.domain.placement import Receipt
from isthmus.domain.task import FORBID_UNKNOWN, TaskSpec
from isthmus.engine import admission, intents
from isthmus.engine.failpoints import failpoint
from isthmus.store import tables
from isthmus.store.documents import dump
from isthmus.trust.access import DEFAULT_PROJECT, Caller, InProject, OfTask, Scope, Signed

MAX_BATCH = 10_000
MAX_IDS = 100_000
router = Router("tasks")
Intent = Callable[..., int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Many tasks, all or none."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    tasks: Annotated[tuple[TaskSpec, ...], Field(json_schema_extra={"minItems": 1, "maxItems": MAX_BATCH})]

    def __post_init__(self) -> None:
        if not 1 <= len(self.tasks) <= MAX_BATCH:
            raise Invalid("tasks", f"has {len(self.tasks)} entries.", remedy=f"Give 1 to {MAX_BATCH}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Tasks by id, or all of one array."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    ids: tuple[IdText, ...] = ()
    array_id: str = ""

    def __post_init__(self) -> None:
        if bool(self.ids) == bool(self.array_id):
            raise Invalid("ids", "must be given, or array_id.", remedy="Give one of the two.")
        if len(self.ids) > MAX_IDS:
            raise Invalid("ids", f"has {len(self.ids)} entries.", remedy=f"Give at most {MAX_IDS}.")
        for index, task_id in enumerate(self.ids):
            if not is_id(task_id):
                raise Invalid(f"ids.{index}", f"{task_id[:40]!r} is not an id.", remedy="Give ids of 26 characters.")


Unsent = Annotated[bool, Query(description="With dry_run: content that is not there yet would be sent before.")]


class _Rehearsed(Exception):
    """Rolls back a submission that was only tried."""


@router.route(
    "POST",
    "/v1/tasks",
    rule=InProject(Scope.TASKS_WRITE),
    body=TaskSpec,
    answer=answers.Task | answers.TaskArray,
    status=201,
    also={200: "A dry run: the plan (a Receipt)."},
    other_answers={200: Receipt},
    errors=[409],
)
async def submit_task(
    request: Request,
    service: Serving,
    caller: Calling,
    project: InProjectQuery = DEFAULT_PROJECT,
    dry_run: bool = False,
    unsent: Unsent = False,
    key: IdempotencyKey = None,
) -> Response:
    """Submit one task, or with `array`, or `together` without a name, many; `dry_run` checks all and answers the plan, storing nothing."""
    spec = await read_body(request, TaskSpec)
    try:
        manifests = await manifests_of(service, project, [spec])
    except Invalid as error:
        raise _of_one(error) from None
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> Any:
            ids = _submit(service, connection, now, caller, project, [spec], manifests, unsent=dry_run and unsent)[0]
            if spec.array is not None or len(ids) > 1:
                return {"array_id": ids[0], "ids": ids}
            return task_rows.one_task(connection, ids[0])

        if dry_run:
            make()
            raise _Rehearsed
        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    try:
        body = await service.database.write(store)
    except Invalid as error:
        raise _of_one(error) from None
    except _Rehearsed:
        sizes = await service.database.read(admission.input_bytes, project, [spec], manifests)
        (receipt,) = await service.engine.plan([spec], caller.user, project, sizes)
        return answer(orjson.Fragment(dump(receipt)))
    service.engine.wake()
    service.feed.prod()
    return made(body)


@router.route(
    "POST",
    "/v1/tasks:batch",
    rule=InProject(Scope.TASKS_WRITE),
    body=Batch,
    answer=answers.Submitted,
    status=201,
    also={200: "A dry run: the plans."},
    other_answers={200: answers.Plans},
    errors=[409],
)
async def submit_batch(
    request: Request,
    service: Serving,
    caller: Calling,
    project: InProjectQuery = DEFAULT_PROJECT,
    dry_run: bool = False,
    unsent: Unsent = False,
    key: IdempotencyKey = None,
) -> Response:
    """Submit many tasks, all or none; `dry_run` checks all and answers a plan for each, storing nothing."""
    batch = await read_body(request, Batch)
    manifests = await manifests_of(service, project, batch.tasks)
    request_hash = await fingerprint(request) if key is not None else ""
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        if dry_run:
            _submit(service, connection, now, caller, project, batch.tasks, manifests, unsent=unsent)
            raise _Rehearsed
        return once(
            connection,
            now=now,
            user=caller.user,
            key=key,
            request_hash=request_hash,
            make=lambda: {"ids": _submit(service, connection, now, caller, project, batch.tasks, manifests)},
        )

    try:
        body = await service.database.write(store)
    except _Rehearsed:
        sizes = await service.database.read(admission.input_bytes, project, batch.tasks, manifests)
        receipts = await service.engine.plan(batch.tasks, caller.user, project, sizes)
        return answer({"plans": [orjson.Fragment(dump(receipt)) for receipt in receipts]})
    failpoint("submit.stored")
    service.engine.wake()
    service.feed.prod()
    return made(body)


def _submit(
    service: Service,
    connection: sa.Connection,
    now: float,
    caller: Caller,
    project: str,
    specs: Any,
    manifests: dict[str, frozenset[str]],
    *,
    unsent: bool = False,
) -> list[list[str]]:
    _check_projects(caller, specs)
    sizes = admission.input_bytes(connection, project, specs, manifests)
    service.engine.check_possible(connection, specs, caller.user, sizes)
    return intents.submit(
        connection,
        now=now,
        user=caller.user,
        project=project,
        specs=specs,
        face="v1",
        manifests=manifests,
        unsent=unsent,
        home_region=service.settings.region,
    )


def _check_projects(caller: Caller, specs: Sequence[TaskSpec]) -> None:
    """A task takes and leaves datasets of its user's projects only."""
    for index, spec in enumerate(specs):
        named = [(f"inputs.{place}", item.data) for place, item in enumerate(spec.inputs) if item.data]
        named += [(f"outputs.{place}", item.data) for place, item in enumerate(spec.outputs) if item.data]
        for field, name in named:
            ref = DatasetRef.parse(name)
            if not caller.sees_project(ref.project):
                raise Invalid(
                    f"tasks.{index}.{field}.data",
                    f"there is no dataset {ref} for you.",
                    remedy="`isthmus data ls` shows yours.",
                )


def _of_one(error: Invalid) -> Invalid:
    """The error of a batch of one as the error of the one."""
    return Invalid(error.field.removeprefix("tasks.0."), error.cause, remedy=error.remedy)


@router.route("GET", "/v1/tasks", rule=Signed(Scope.TASKS_READ), answer=answers.Page[answers.TaskRow])
async def list_tasks(
    service: Serving,
    caller: Calling,
    project: Annotated[str | None, Query(pattern=NAME)] = None,
    state: Annotated[list[TaskState] | None, Query(description="May be given several times.")] = None,
    site: Annotated[str, Query(max_length=63)] = "",
    user: Annotated[str, Query(max_length=63)] = "",
    name: Annotated[str, Query(max_length=255)] = "",
    array_id: Annotated[str | None, Query(pattern=ID)] = None,
    tag: Annotated[
        list[Annotated[str, Query(pattern="^[^:]+:", max_length=4400)]] | None,
        Query(max_length=16, description="KEY:VALUE"),
    ] = None,
    since: Since = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """The tasks that one may see, newest first."""
    if project is not None:
        caller.need_project(project)
    projects = (project,) if project is not None else None if caller.rules_all else tuple(sorted(caller.projects))
    wanted = task_rows.TaskFilter(
        projects=projects,
        states=tuple(sorted({item.value for item in state or ()})),
        site=_clean("site", site),
        user=_clean("user", user),
        name=_clean("name", name),
        array_id=array_id or "",
        tags=tuple((key, value) for key, _, value in (_clean("tag", item).partition(":") for item in tag or ())),
        since=None if since is None else since.timestamp(),
    )
    items, following = await service.database.read(task_rows.page_of_tasks, wanted, cursor=cursor, limit=limit)
    return answer({"items": items, "next_cursor": following})


def _clean(field: str, text: str) -> str:
    if "\0" in text:
        raise Invalid(field, "holds a NUL character.", remedy="Remove it.")
    return text


@router.route("GET", "/v1/tasks/{task_id}", rule=OfTask(Scope.TASKS_READ), answer=answers.Task)
async def get_task(service: Serving, task_id: TaskIdPath) -> Response:
    """One task."""
    return answer(await service.database.read(task_rows.one_task, task_id))


@router.route(
    "GET", "/v1/tasks/{task_id}/attempts", rule=OfTask(Scope.TASKS_READ), answer=answers.Page[answers.Attempt]
)
async def list_attempts(
    service: Serving, task_id: TaskIdPath, limit: Limit = 100, cursor: Annotated[str | None, Query(pattern=ID)] = None
) -> Response:
    """A task's tries, oldest first."""
    rows = await service.database.read(task_rows.attempts_of, task_id, cursor, limit + 1)
    items = [task_rows.show(row, task_rows.ATTEMPT_FIELDS) for row in rows[:limit]]
    return answer({"items": items, "next_cursor": rows[limit - 1].key if len(rows) > limit else None})


@router.route("GET", "/v1/tasks/{task_id}/receipts", rule=OfTask(Scope.TASKS_READ), answer=answers.Page[Receipt])
async def list_receipts(service: Serving, task_id: TaskIdPath) -> Response:
    """A task's decisions, oldest first; the last may be of a round that found no place."""
    bodies = await service.database.read(task_rows.receipts_of, task_id)
    return answer({"items": [orjson.Fragment(body) for body in bodies], "next_cursor": None})


@router.route("GET", "/v1/tasks/{task_id}/outputs", rule=OfTask(Scope.TASKS_READ), answer=answers.Page[answers.Output])
async def list_outputs(
    service: Serving,
    task_id: TaskIdPath,
    limit: Limit = 1000,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,9}$")] = None,
) -> Response:
    """A task's files, by path; GET /v1/blobs/{sha256} has their content."""
    start = int(cursor or 0)
    rows = await service.database.read(task_rows.outputs_of, task_id, start, limit + 1)
    items = [task_rows.show(row, ("path", "sha256", "size_bytes", "executable", "url")) for row in rows[:limit]]
    return answer({"items": items, "next_cursor": str(start + limit) if len(rows) > limit else None})


@router.route("GET", "/v1/tasks/{task_id}/usage", rule=OfTask(Scope.TASKS_READ), answer=answers.Page[answers.Usage])
async def list_task_usage(service: Serving, task_id: TaskIdPath) -> Response:
    """A task's usage records, one for each attempt."""
    rows = await service.database.read(task_rows.usage_of, task_id)
    return answer({"items": [task_rows.show(row, task_rows.USAGE_SHOWN) for row in rows], "next_cursor": None})


async def _one(service: Service, caller: Caller, task_id: str, intent: Intent) -> Response:
    now = service.clock()

    def change(connection: sa.Connection) -> dict[str, Any]:
        intent(connection, now=now, task_ids=[task_id], by=caller.user)
        return task_rows.one_task(connection, task_id)

    shown = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return answer(shown)


_CHANGE = OfTask(Scope.TASKS_WRITE, change=True)


@router.route("POST", "/v1/tasks/{task_id}:cancel", rule=_CHANGE, answer=answers.Task)
async def cancel_task(service: Serving, caller: Calling, task_id: TaskIdPath) -> Response:
    """Cancel a task; what already ended stays as it is."""
    return await _one(service, caller, task_id, intents.cancel)


@router.route("POST", "/v1/tasks/{task_id}:hold", rule=_CHANGE, answer=answers.Task, errors=[409])
async def hold_task(service: Serving, caller: Calling, task_id: TaskIdPath) -> Response:
    """Keep a task that waits from being placed."""
    return await _one(service, caller, task_id, intents.hold)


@router.route("POST", "/v1/tasks/{task_id}:release", rule=_CHANGE, answer=answers.Task, errors=[409])
async def release_task(service: Serving, caller: Calling, task_id: TaskIdPath) -> Response:
    """Let a held task go on."""
    return await _one(service, caller, task_id, intents.release)


@router.route("POST", "/v1/tasks/{task_id}:retry", rule=_CHANGE, answer=answers.Task, errors=[409])
async def retry_task(service: Serving, caller: Calling, task_id: TaskIdPath) -> Response:
    """Try a failed or cancelled task once more."""
    return await _one(service, caller, task_id, intents.retry)


@router.route(
    "POST", "/v1/tasks:cancel", rule=Signed(Scope.TASKS_WRITE), body=Selection, answer=answers.Changed, errors=[404]
)
async def cancel_tasks(request: Request, service: Serving, caller: Calling) -> Response:
    """Cancel many tasks, or all of an array; all of them must be the caller's to cancel."""
    selection = await read_body(request, Selection)
    now = service.clock()

    def change(connection: sa.Connection) -> int:
        ids = _selected(connection, selection, caller)
        return intents.cancel(connection, now=now, task_ids=ids, by=caller.user)

    changed = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return answer({"changed": changed})


def _selected(connection: sa.Connection, selection: Selection, caller: Caller) -> list[str]:
    t = tables.tasks
    columns = sa.select(t.c.id, t.c.project, t.c.user)
    rows: list[Any] = []
    if selection.array_id:
        rows.extend(connection.execute(columns.where(t.c.array_id == selection.array_id, sa.text("array_id <> ''"))))
    for start in range(0, len(selection.ids), 500):
        rows.extend(connection.execute(columns.where(t.c.id.in_(selection.ids[start : start + 500]))))
    if not rows or len({row.id for row in rows}) < len(set(selection.ids)):
        raise NotFound(
            "There is no such task for you.", remedy="Name only tasks of your projects; nothing was changed."
        )
    for row in rows:
        caller.need_task(row.project, row.user, change=True)
    return [row.id for row in rows]
