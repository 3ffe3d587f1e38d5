"""The five operations of GA4GH TES 1.1 below /ga4gh/tes/v1.

What is wrong with a document or a parameter is answered with 400, as clients of TES expect.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response
from pydantic import ValidationError

from isthmus import __version__
from isthmus.api.body import answer
from isthmus.api.problems import InvalidBody, fields_of
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.api.tes import models, rows, showing, translation
from isthmus.api.tes.files import grants, take_in
from isthmus.api.tes.models import TesState, TesView
from isthmus.domain.errors import Invalid, IsthmusError, NotFound
from isthmus.domain.ids import is_id, is_name
from isthmus.engine import intents
from isthmus.engine.transitions import grant
from isthmus.store import tables
from isthmus.trust.access import DEFAULT_PROJECT, Anonymous, Caller, OfTask, Scope, Signed

BASE = "/ga4gh/tes/v1"
PAGE_SIZE, LONGEST_PAGE = 256, 2048
ONE_TAIL_BYTES, LIST_TAIL_BYTES = 65_536, 8_192  # of each stream of an executor, in the view FULL
MAX_TAGS = 64
Word = TypeVar("Word", bound=StrEnum)
ViewQuery = Annotated[str, Query(description="MINIMAL (also when not given), BASIC or FULL.")]
router = Router("ga4gh-tes")


class BadRequest(IsthmusError):
    """A parameter is wrong."""

    code = "bad_request"
    status = 400


class BadDocument(InvalidBody):
    """The task document is wrong."""

    code = "bad_document"
    status = 400


@router.route("GET", f"{BASE}/service-info", rule=Anonymous(), answer=models.TesServiceInfo)
async def tes_service_info(request: Request, service: Serving) -> Response:
    """What this service is and supports."""
    home = str(request.base_url)
    return answer(
        {
            "id": f"isthmus.{request.url.hostname or 'localhost'}",
            "name": "Isthmus",
            "type": {"group": "org.ga4gh", "artifact": "tes", "version": models.SPEC_VERSION},
            "description": "Runs tasks at many compute centres as if they were one.",
            "organization": {"name": "Isthmus", "url": home},
            "version": __version__,
            "storage": _storage(service),
            "tesResources_backend_parameters": list(translation.PARAMETERS),
        }
    )


@router.route("GET", f"{BASE}/tasks/service-info", rule=Anonymous(), answer=models.TesOlderServiceInfo)
async def tes_older_service_info(service: Serving) -> Response:
    """What clients of the drafts of TES 1.0 ask for, py-tes among them."""
    return answer({"name": "Isthmus", "doc": f"GA4GH TES {models.SPEC_VERSION}", "storage": _storage(service)})


def _storage(service: Service) -> list[str]:
    return ["s3://", "https://", "http://", *(f"file://{path}" for path in service.settings.tes_files)]


@router.route(
    "POST",
    f"{BASE}/tasks",
    rule=Signed(Scope.TASKS_WRITE),
    body=models.TesTask,
    answer=models.TesCreateTaskResponse,
    errors=[400, 404],
)
async def tes_create_task(request: Request, service: Serving, caller: Calling) -> Response:
    """Submit a task; its id is answered."""
    document = _document(await request.body())
    settings = service.settings
    try:
        taken = await take_in(service.blobs, document.inputs or (), settings.tes_files)
        meant = translation.translate(document, taken.inputs, walltime_seconds=settings.tes_walltime_seconds)
        project = _project(caller, meant.project)
    except Invalid as error:
        raise _bad(error) from None
    kept = meant.kept.model_dump_json(exclude_none=True)
    warnings = orjson.dumps(meant.warnings).decode()
    now = service.clock()

    def store(connection: sa.Connection) -> str:
        known = connection.execute(sa.select(tables.projects.c.name).where(tables.projects.c.name == project)).first()
        if known is None:
            raise NotFound(f"There is no project {project!r}.")
        grant(connection, now, grants(project, taken.contents))
        task_id = intents.submit(
            connection,
            now=now,
            user=caller.user,
            project=project,
            specs=[meant.spec],
            face=rows.FACE,
            manifests=taken.manifests,
        )[0][0]
        connection.execute(tables.tes_documents.insert().values(task_id=task_id, document=kept, warnings=warnings))
        return task_id

    try:
        task_id = await service.database.write(store)
    except Invalid as error:
        raise _bad(Invalid(error.field.removeprefix("tasks.0."), error.cause, remedy=error.remedy)) from None
    service.engine.wake()
    service.feed.prod()
    return answer({"id": task_id})


@router.route(
    "GET", f"{BASE}/tasks", rule=Signed(Scope.TASKS_READ), answer=models.TesListTasksResponse, errors=[400, 404]
)
async def tes_list_tasks(
    service: Serving,
    caller: Calling,
    name_prefix: str = "",
    state: str = "",
    tag_key: Annotated[list[str] | None, Query()] = None,
    tag_value: Annotated[list[str] | None, Query(description="One for each tag_key; none: any value.")] = None,
    page_size: Annotated[str, Query(description=f"1 to {LONGEST_PAGE}; {PAGE_SIZE} when not given.")] = "",
    page_token: str = "",
    view: ViewQuery = "",
) -> Response:
    """The TES tasks that one may see, newest first."""
    # The parameters are text, and looked at here: a wrong one is answered with 400, not with 422.
    shown_view = _word(view, TesView, "view") or TesView.MINIMAL
    keys, values = tag_key or [], tag_value or []
    if len(values) > len(keys) or len(keys) > MAX_TAGS:
        raise BadRequest(
            f"There are {len(keys)} tag_key and {len(values)} tag_value.", remedy="Give a key for each value."
        )
    if page_token and not is_id(page_token):
        raise BadRequest("page_token is none of this service.", remedy="Use next_page_token as it was answered.")
    wanted = rows.Wanted(
        projects=None if caller.rules_all else tuple(sorted(caller.projects)),
        name_prefix=_clean("name_prefix", name_prefix),
        state=_word(state, TesState, "state"),
        tags=tuple(
            (_clean("tag_key", key), _clean("tag_value", values[index]) if index < len(values) else "")
            for index, key in enumerate(keys)
        ),
    )
    records, following = await service.database.read(
        rows.page,
        wanted,
        before=page_token or None,
        limit=_page_size(page_size),
        whole=shown_view is not TesView.MINIMAL,
    )
    tasks = await _show_all(service, records, shown_view, LIST_TAIL_BYTES)
    return answer({"tasks": tasks, "next_page_token": following} if following else {"tasks": tasks})


@router.route(
    "GET", f"{BASE}/tasks/{{task_id}}", rule=OfTask(Scope.TASKS_READ), answer=models.TesTaskShown, errors=[400]
)
async def tes_get_task(service: Serving, task_id: str, view: ViewQuery = "") -> Response:
    """One task."""
    shown_view = _word(view, TesView, "view") or TesView.MINIMAL
    record = await service.database.read(rows.one, task_id, whole=shown_view is not TesView.MINIMAL)
    if record is None:
        raise NotFound("There is no such task for you.")
    return answer((await _show_all(service, [record], shown_view, ONE_TAIL_BYTES))[0])


@router.route(
    "POST",
    f"{BASE}/tasks/{{task_id}}:cancel",
    rule=OfTask(Scope.TASKS_WRITE, change=True),
    answer=models.TesCancelTaskResponse,
)
async def tes_cancel_task(service: Serving, caller: Calling, task_id: str) -> Response:
    """Cancel a task; what already ended stays as it is."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        if rows.one(connection, task_id, whole=False) is None:
            raise NotFound("There is no such task for you.")
        intents.cancel(connection, now=now, task_ids=[task_id], by=caller.user)

    await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return answer({})


async def _show_all(
    service: Service, records: list[rows.Record], view: TesView, tail_bytes: int
) -> list[dict[str, Any]]:
    shown = [showing.show(record, view) for record in records]
    if view is TesView.FULL:
        sites = sorted({attempt.site for record in records for attempt in record.attempts})
        configurations = await service.database.read(rows.images_of, sites)
        for record, item in zip(records, shown, strict=True):
            showing.note_images(item, record, configurations)
            await showing.add_output(service, record, item, tail_bytes)
    return shown


def _document(raw: bytes) -> models.TesTask:
    """The document of a request, whatever its Content-Type says: clients differ."""
    try:
        return models.TesTask.model_validate_json(raw)
    except ValidationError as error:
        raise BadDocument(fields_of(error)) from None


def _bad(error: Invalid) -> BadDocument:
    return BadDocument([{"field": error.field, "cause": error.cause, "remedy": error.remedy}])


def _project(caller: Caller, wanted: str) -> str:
    """The project that was asked for; else `default`, or the one that the caller is in."""
    if wanted:
        if not is_name(wanted):
            raise Invalid("resources.backend_parameters.project", f"{wanted[:80]!r} is not a name.")
        caller.need_project(wanted)
        return wanted
    if caller.sees_project(DEFAULT_PROJECT):
        return DEFAULT_PROJECT
    if len(caller.projects) != 1:
        raise Invalid(
            "resources.backend_parameters.project",
            "is not given, and there is no single project of yours.",
            remedy=f"Name one of {', '.join(sorted(caller.projects)) or '(none: ask an administrator)'}.",
        )
    return next(iter(caller.projects))


def _word(text: str, kind: type[Word], name: str) -> Word | None:
    if not text:
        return None
    try:
        return kind(text)
    except ValueError:
        raise BadRequest(f"{name} is {text[:80]!r}.", remedy=f"Use one of {', '.join(kind)}.") from None


def _page_size(text: str) -> int:
    if not text:
        return PAGE_SIZE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LONGEST_PAGE):
        raise BadRequest(f"page_size is {text[:80]!r}.", remedy=f"Give 1 to {LONGEST_PAGE}.")
    return int(text)


def _clean(name: str, text: str) -> str:
    if "\0" in text:
        raise BadRequest(f"{name} holds a NUL character.", remedy="Remove it.")
    return text
