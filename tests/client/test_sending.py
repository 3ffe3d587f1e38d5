"""What is sent again and what is not, and how errors come back, over a transport that is scripted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from isthmus.client import AsyncClient, Client, operations, wire
from isthmus.client.config import Profile
from isthmus.client.problems import read_problem
from isthmus.domain import errors

PROFILE = Profile(url="http://isthmus.test", token="secret-token")
TASK = {"id": "t", "state": "waiting"}


class Script:
    """Answers requests one after another, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Pauses are noted and not made."""
    made: list[float] = []

    async def note(seconds: float, result: Any = None) -> Any:
        made.append(seconds)
        return result

    monkeypatch.setattr(time, "sleep", made.append)
    monkeypatch.setattr(asyncio, "sleep", note)
    return made


def _sync(script: Script, make: Callable[[], wire.Steps[Any]]) -> Any:
    with Client(profile=PROFILE, transport=httpx.MockTransport(script)) as client:
        return client.run(make())


def _awaited(script: Script, make: Callable[[], wire.Steps[Any]]) -> Any:
    async def go() -> Any:
        async with AsyncClient(profile=PROFILE, transport=httpx.MockTransport(script)) as client:
            return await client.run(make())

    return asyncio.run(go())


both = pytest.mark.parametrize("perform", [_sync, _awaited])


def _problem(status: int, **fields: Any) -> httpx.Response:
    headers = {"Content-Type": "application/problem+json"}
    if "retry_after" in fields:
        headers["Retry-After"] = str(fields.pop("retry_after"))
    return httpx.Response(status, headers=headers, content=json.dumps({"status": status, **fields}))


@both
def test_a_read_is_repeated_through_faults(perform: Any, pauses: list[float]) -> None:
    """A lost connection, a 503 and a 429 are overcome; Retry-After is kept to the letter."""
    script = Script(
        httpx.ConnectError("refused"),
        _problem(503),
        _problem(429, code="busy", retry_after=7),
        httpx.Response(200, json=TASK),
    )
    assert perform(script, lambda: operations.task("t")).state == "waiting"
    assert len(script.requests) == 4
    assert pauses[-1] == 7
    assert all(request.headers["Authorization"] == "Bearer secret-token" for request in script.requests)


@both
def test_a_submission_is_repeated_under_one_key(perform: Any) -> None:
    """A POST whose answer is lost goes out again with the same Idempotency-Key."""
    script = Script(httpx.ReadTimeout("late"), httpx.Response(201, json=TASK))
    assert perform(script, lambda: operations.submit({"command": ["x"]}, project="p")).ids == ["t"]
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert len(keys) == 1
    assert script.requests[0].url.params["project"] == "p"


@both
def test_what_may_not_be_repeated_is_not(perform: Any) -> None:
    """A lost `retry` of a task is told as such: it may have arrived."""
    script = Script(httpx.ReadError("cut"))
    with pytest.raises(errors.Unavailable, match="not known"):
        perform(script, lambda: operations.retry("t"))
    assert len(script.requests) == 1


@both
def test_it_gives_up_in_the_end(perform: Any) -> None:
    """After some tries the last error is told."""
    script = Script(*[_problem(503, code="unavailable", detail="No.", remedy="Wait.") for _ in range(wire.MAX_TRIES)])
    with pytest.raises(errors.Unavailable) as caught:
        perform(script, lambda: operations.task("t"))
    assert (caught.value.cause, caught.value.remedy) == ("No.", "Wait.")
    assert len(script.requests) == wire.MAX_TRIES


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", errors.Unauthenticated),
        (403, "forbidden", errors.Forbidden),
        (404, "not_found", errors.NotFound),
        (409, "conflict", errors.Conflict),
        (422, "refused", errors.Refused),
        (429, "busy", errors.Busy),
        (503, "unavailable", errors.Unavailable),
        (404, "", errors.NotFound),
        (413, "too_large", errors.Refused),
        (418, "", errors.IsthmusError),
    ],
)
def test_problems_become_the_tree_of_errors(status: int, code: str, kind: type[Exception]) -> None:
    """By code, else by status."""
    problem = read_problem(status, {}, json.dumps({"code": code, "detail": "D.", "remedy": "R."}).encode())
    assert type(problem) is kind
    assert (problem.cause, problem.remedy) == ("D.", "R.")
    assert not code or problem.code == code


def test_every_wrong_field_is_kept() -> None:
    """The first is the error, all are in `fields`."""
    items = [{"field": "a", "cause": "x", "remedy": "y"}, {"field": "b", "cause": "z", "remedy": ""}]
    problem = read_problem(422, {}, json.dumps({"code": "invalid", "errors": items}).encode())
    assert isinstance(problem, errors.Invalid)
    assert problem.field == "a"
    assert [item.field for item in problem.__dict__["fields"]] == ["a", "b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_a_page_that_is_no_problem_is_still_an_error(body: bytes) -> None:
    """A proxy's page does not break the reading."""
    assert read_problem(502, {}, body).cause


@both
def test_an_answer_that_is_not_json_is_told(perform: Any) -> None:
    """A login page with status 200 is not taken for an answer."""
    with pytest.raises(errors.Unavailable, match="not JSON"):
        perform(Script(httpx.Response(200, content=b"<html>")), lambda: operations.task("t"))


@both
def test_redirects_do_not_carry_the_token_away(perform: Any) -> None:
    """A redirect is not followed."""
    script = Script(httpx.Response(302, headers={"Location": "http://elsewhere.test/"}))
    with pytest.raises(errors.Unavailable):
        perform(script, lambda: operations.task("t"))
    assert [request.url.host for request in script.requests] == ["isthmus.test"]


def test_unknown_fields_and_nulls_of_a_newer_service_do_no_harm() -> None:
    """A field that is not known is ignored; a null is the default."""
    script = Script(httpx.Response(200, json={"id": "t", "state": "new-state", "name": None, "hologram": 1}))
    task = _sync(script, lambda: operations.task("t"))
    assert (task.state, task.name, task.ended) == ("new-state", "", False)


def test_all_pages_of_a_list_are_read() -> None:
    """The cursor is followed to the end."""
    script = Script(
        httpx.Response(200, json={"items": [{"id": "a"}], "next_cursor": "c"}),
        httpx.Response(200, json={"items": [{"id": "b"}], "next_cursor": None}),
    )
    with Client(profile=PROFILE, transport=httpx.MockTransport(script)) as client:
        assert [task.id for task in client.tasks(limit=None, state=["running", "queued"])] == ["a", "b"]
    assert script.requests[0].url.params.get_list("state") == ["running", "queued"]
    assert script.requests[1].url.params["cursor"] == "c"


def test_events_go_on_after_the_last_one(pauses: list[float]) -> None:
    """A cut stream is taken up again with Last-Event-ID; comments and unknown fields are skipped."""
    first = 'id: 7\nevent: task.running\ndata: {"seq": 7, "kind": "task.running", "task_id": "t"}\n\n: still here\n\n'
    cut = first + 'event: cut\ndata: {"code": "busy", "cause": "stop"}\n\n'
    second = 'id: 8\nevent: task.succeeded\ndata: {"kind": "task.succeeded",\ndata: "task_id": "t"}\n\n'
    script = Script(
        httpx.Response(200, text=cut),
        httpx.ReadError("cut"),
        httpx.Response(200, text=second),
    )
    with Client(profile=PROFILE, transport=httpx.MockTransport(script)) as client:
        stream = client.events(task_id="t")
        found = [next(stream), next(stream)]
        stream.close()  # type: ignore[attr-defined]
    assert [(event.seq, event.kind) for event in found] == [("7", "task.running"), ("8", "task.succeeded")]
    assert "Last-Event-ID" not in script.requests[0].headers
    assert [request.headers["Last-Event-ID"] for request in script.requests[1:]] == ["7", "7"]


def test_a_profile_does_not_show_its_token() -> None:
    """Neither the profile's nor the client's repr holds the token."""
    with Client(profile=PROFILE, transport=httpx.MockTransport(Script())) as client:
        assert "secret-token" not in repr(client) + repr(PROFILE)


@pytest.mark.parametrize(
    "body", [[], {}, {"id": "t", "created_at": "soon"}, {"id": "t", "priority": "high"}, "text", 3]
)
def test_an_answer_of_another_shape_is_told(body: Any) -> None:
    """JSON that is no task is an error of this tree, not a crash."""
    with pytest.raises(errors.Unavailable) as caught:
        _sync(Script(httpx.Response(200, json=body)), lambda: operations.task("t"))
    assert caught.value.code == "not_isthmus"
    with pytest.raises(errors.Unavailable):
        _sync(Script(httpx.Response(200, json=body)), operations.tasks)


def test_times_and_money_are_typed() -> None:
    """ISO 8601 becomes a datetime with zone, money a Decimal."""
    row = {"attempt": "a", "charge": "0.1", "started_at": "2026-11-26T14:00:00Z", "cpu_seconds": 1}
    script = Script(httpx.Response(200, json={"items": [row], "next_cursor": None}))
    (record,) = _sync(script, operations.usage).items
    assert record.charge == Decimal("0.1")
    assert record.started_at == datetime(2026, 11, 26, 14, tzinfo=UTC)
