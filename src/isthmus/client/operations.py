"""Every call of the REST face about tasks and content, as steps; nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from isthmus.client.records import (
    Attempt,
    Event,
    HoldingReason,
    LogChunk,
    Output,
    Page,
    Submitted,
    Task,
    UsageRecord,
    read,
    read_receipt,
)
from isthmus.client.wire import Answer, Steps, new_key, request, send
from isthmus.domain.errors import NotFound, Refused
from isthmus.domain.ids import is_id
from isthmus.domain.lifecycle import TASK_ENDED, TaskState
from isthmus.domain.placement import Receipt

T = TypeVar("T")
PAGE = 1000
LOG_BYTES = 1024 * 1024
_BEGINNING = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{5,24}")
SpecDocument = Mapping[str, Any]  # canonical TaskSpec as JSON


def _page(kind: type[T], answer: Answer) -> Page[T]:
    rows = [read(kind, row) for row in answer.items()]
    return Page(rows, answer.document().get("next_cursor"))


def submit(spec: SpecDocument, *, project: str, idempotency_key: str = "") -> Steps[Submitted]:
    """Hand in one task (or one array); answers its id, or the ids of the array."""
    call = request(
        "POST", "/v1/tasks", params={"project": project}, json=spec, idempotency_key=idempotency_key or new_key()
    )
    document = (yield from send(call)).document()
    if isinstance(document, dict) and "ids" in document:
        return Submitted(ids=list(document["ids"]), array_id=str(document.get("array_id") or ""))
    task = read(Task, document)
    return Submitted(ids=[task.id], task=task)


def plan(spec: SpecDocument, *, project: str, unsent: bool = False) -> Steps[Receipt]:
    """The plan for a task through the same validation as `submit`; nothing is stored. `unsent`: its content may be missing."""
    params = {"project": project, "dry_run": True, "unsent": unsent}
    call = request("POST", "/v1/tasks", params=params, json=spec, repeatable=True)
    return read_receipt((yield from send(call)).document())


def plan_batch(specs: Sequence[SpecDocument], *, project: str, unsent: bool = False) -> Steps[list[Receipt]]:
    """A plan for each task through the same validation as `submit_batch`; nothing is stored."""
    params = {"project": project, "dry_run": True, "unsent": unsent}
    call = request("POST", "/v1/tasks:batch", params=params, json={"tasks": list(specs)}, repeatable=True)
    return [read_receipt(one) for one in (yield from send(call)).field("plans")]


def submit_batch(specs: Sequence[SpecDocument], *, project: str, idempotency_key: str = "") -> Steps[list[list[str]]]:
    """Hand in many tasks, all or none; answers for each specification the ids that it became."""
    call = request(
        "POST",
        "/v1/tasks:batch",
        params={"project": project},
        json={"tasks": list(specs)},
        idempotency_key=idempotency_key or new_key(),
        timeout_seconds=300,
    )
    return [list(ids) for ids in (yield from send(call)).field("ids")]


def tasks(
    *,
    project: str = "",
    state: Sequence[str] = (),
    site: str = "",
    user: str = "",
    name: str = "",
    array_id: str = "",
    tag: Sequence[str] = (),
    since: str = "",
    limit: int = 100,
    cursor: str = "",
) -> Steps[Page[Task]]:
    """A page of tasks, newest first; `tag` entries are `K:V`, `since` is ISO 8601 with zone."""
    params = {
        "project": project,
        "state": tuple(state),
        "site": site,
        "user": user,
        "name": name,
        "array_id": array_id,
        "tag": tuple(tag),
        "since": since,
        "limit": limit,
        "cursor": cursor,
    }
    return _page(Task, (yield from send(request("GET", "/v1/tasks", params=params))))


def task(task_id: str) -> Steps[Task]:
    """One task with its specification."""
    return read(Task, (yield from send(request("GET", _task(task_id)))).document())


def find_task(text: str, *, project: str = "") -> Steps[str]:
    """The identifier of the task that is meant: by its identifier, the beginning of one (6 characters or more), or its name. Of
    several of a name the one that is not over, else the newest. NotFound; Refused where it may be more than one."""
    if is_id(text):
        return text
    named: list[Task] = []
    if 0 < len(text) <= 255 and "\0" not in text:
        named = (yield from tasks(project=project, name=text, state=sorted(set(TaskState) - TASK_ENDED), limit=4)).items
        named = named or (yield from tasks(project=project, name=text, limit=1)).items
    if not named and _BEGINNING.fullmatch(text):
        after = text + "z" * (26 - len(text))
        found = (yield from tasks(project=project, cursor=after, limit=4)).items
        named = [one for one in found if one.id.startswith(text)]
    if not named:
        raise NotFound(
            f"There is no task {text!r} for you.",
            remedy="Give an identifier, its beginning, or a name: `isthmus ls` shows them.",
        )
    if len(named) > 1:
        several = ", ".join(one.id for one in named[:3]) + (", ..." if len(named) > 3 else "")
        raise Refused(f"{text!r} may be {several}.", remedy="Give the identifier.", code="ambiguous")
    return named[0].id


def attempts(task_id: str) -> Steps[list[Attempt]]:
    """The tries of a task, oldest first."""
    return (yield from every(f"{_task(task_id)}/attempts", lambda row: read(Attempt, row)))


def receipts(task_id: str) -> Steps[list[Receipt]]:
    """The decisions about a task, oldest first; the last one of a waiting task says what it waits for."""
    return (yield from every(f"{_task(task_id)}/receipts", read_receipt, paged=False))


def outputs(task_id: str) -> Steps[list[Output]]:
    """The files that a task left."""
    return (yield from every(f"{_task(task_id)}/outputs", lambda row: read(Output, row)))


def task_usage(task_id: str) -> Steps[list[UsageRecord]]:
    """What a task's attempts used."""
    return (yield from every(f"{_task(task_id)}/usage", lambda row: read(UsageRecord, row), paged=False))


def task_events(task_id: str) -> Steps[list[Event]]:
    """What happened to a task, oldest first."""
    return (yield from every(f"{_task(task_id)}/events", read_event))


def logs(
    task_id: str, *, stream: str = "stdout", offset: int = 0, limit: int = LOG_BYTES, attempt: str = ""
) -> Steps[LogChunk]:
    """A piece of a task's stream from a byte offset on, of its live or last attempt or of the one named; empty when there is
    no more yet."""
    params = {"stream": stream, "offset": offset, "limit": limit, "attempt": attempt}
    answer = yield from send(request("GET", f"{_task(task_id)}/logs", params=params))
    following = answer.headers.get("x-next-offset", "")
    return LogChunk(
        data=answer.body,
        next_offset=int(following) if following.isdigit() else offset + len(answer.body),
        complete=answer.headers.get("x-log-complete", "").lower() == "true",
    )


def _intent(verb: str) -> Callable[[str], Steps[Task]]:
    def ask(task_id: str) -> Steps[Task]:
        call = request("POST", f"{_task(task_id)}:{verb}", repeatable=verb != "retry")
        return read(Task, (yield from send(call)).document())

    ask.__doc__ = f"Ask that a task is {verb}ed; answers the task as it is then."
    return ask


cancel = _intent("cancel")
hold = _intent("hold")
release = _intent("release")
retry = _intent("retry")


def cancel_many(*, ids: Sequence[str] = (), array_id: str = "") -> Steps[dict[str, Any]]:
    """Ask that many tasks, or a whole array, end."""
    body = {"array_id": array_id} if array_id else {"ids": list(ids)}
    document = (yield from send(request("POST", "/v1/tasks:cancel", json=body, repeatable=True))).document()
    return document if isinstance(document, dict) else {}


def usage(
    *, project: str = "", site: str = "", user: str = "", since: str = "", limit: int = PAGE, cursor: str = ""
) -> Steps[Page[UsageRecord]]:
    """A page of usage records with their charges."""
    params = {"project": project, "site": site, "user": user, "since": since, "limit": limit, "cursor": cursor}
    return _page(UsageRecord, (yield from send(request("GET", "/v1/usage", params=params))))


def holding(*, project: str = "", array_id: str = "", limit: int = 3) -> Steps[tuple[int, int, list[HoldingReason]]]:
    """How many tasks wait, for how many of them a decision was read, and the reasons that hold most of those."""
    params = {"project": project, "array_id": array_id, "limit": limit}
    document = (yield from send(request("GET", "/v1/tasks:holding", params=params))).document()
    reasons = [read(HoldingReason, row) for row in document["reasons"]]
    return document["waiting"], document["looked_at"], reasons


def me() -> Steps[dict[str, Any]]:
    """Who the caller is."""
    return (yield from _plain("/v1/me"))


def version() -> Steps[dict[str, Any]]:
    """The service's version."""
    return (yield from _plain("/v1/version"))


def health() -> Steps[dict[str, Any]]:
    """Whether the service works."""
    return (yield from _plain("/v1/health"))


def read_event(row: Mapping[str, Any]) -> Event:
    """An event from an answer or from the data of a server-sent event."""
    seq = row.get("seq", row.get("id", ""))
    return read(Event, {**row, "seq": str(seq)})


def when(value: str | datetime) -> str:
    """A time as the REST face takes it: ISO 8601 with zone."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    return value


def every(
    path: str, take: Callable[[Any], T], params: Mapping[str, object] | None = None, *, paged: bool = True
) -> Steps[list[T]]:
    """All items of a list; one that is not `paged` comes whole."""
    rows: list[T] = []
    cursor: str | None = ""
    while cursor is not None:
        call = request("GET", path, params={**(params or {}), **({"limit": PAGE, "cursor": cursor} if paged else {})})
        answer = yield from send(call)
        rows.extend(take(row) for row in answer.items())
        cursor = answer.document().get("next_cursor")
    return rows


def _plain(path: str) -> Steps[dict[str, Any]]:
    document = (yield from send(request("GET", path))).document()
    return document if isinstance(document, dict) else {}


def _task(task_id: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}"
