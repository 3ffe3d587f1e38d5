"""Everything the client asks for exists in the service's own description: path, method, parameters, header, body."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from isthmus.api.app import create_app
from isthmus.client import administration, datasets, operations, transfer
from isthmus.client.records import Output
from isthmus.client.wire import Answer, Pause, Request, Steps, Together, Work
from isthmus.client.workdir import hash_bytes
from isthmus.domain.dataset import DatasetRef

ID = "01m8c4fkm8gdn0n2jez2ppxzf4"
DATASET = DatasetRef(project="p", name="d", version=1)
CALLS: dict[str, Callable[[], Steps[Any]]] = {
    "submit": lambda: operations.submit({"command": ["true"]}, project="p"),
    "plan": lambda: operations.plan({"command": ["true"]}, project="p"),
    "plan_batch": lambda: operations.plan_batch([{"command": ["true"]}], project="p"),
    "submit_batch": lambda: operations.submit_batch([{"command": ["true"]}], project="p"),
    "tasks": lambda: operations.tasks(
        project="p", state=["running"], site="s", user="u", name="n", array_id=ID, tag=["a:b"],
        since="2026-11-26T00:00:00+00:00", limit=5, cursor="c",
    ),
    "find_task": lambda: operations.find_task("sweep", project="p"),
    "task": lambda: operations.task(ID),
    "attempts": lambda: operations.attempts(ID),
    "receipts": lambda: operations.receipts(ID),
    "outputs": lambda: operations.outputs(ID),
    "task_usage": lambda: operations.task_usage(ID),
    "task_events": lambda: operations.task_events(ID),
    "logs": lambda: operations.logs(ID, stream="stderr", offset=1, limit=2, attempt=ID),
    "cancel": lambda: operations.cancel(ID),
    "hold": lambda: operations.hold(ID),
    "release": lambda: operations.release(ID),
    "retry": lambda: operations.retry(ID),
    "cancel_many": lambda: operations.cancel_many(ids=[ID]),
    "cancel_array": lambda: operations.cancel_many(array_id=ID),
    "usage": lambda: operations.usage(project="p", site="s", user="u", since="2026-11-26T00:00:00+00:00", cursor="c"),
    "holding": lambda: operations.holding(project="p", array_id=ID, limit=3),
    "me": operations.me,
    "version": operations.version,
    "health": operations.health,
    "sites": administration.sites,
    "site": lambda: administration.site("s"),
    "join_site": lambda: administration.join_site(
        "ssh", "s", config={"host": "h"}, accounts={"*": "a"}, prices={"*": {"cpu_hour": "1"}}, region="r", trust="t"
    ),
    "change_site": lambda: administration.change_site("s", {"region": "r", "config": {}, "accounts": {}, "prices": {}}),
    "drain_site": lambda: administration.drain_site("s", preview=True),
    "resume_site": lambda: administration.resume_site("s"),
    "leave_site": lambda: administration.leave_site("s", force=True),
    "site_usage": lambda: administration.site_usage("s"),
    "site_tasks": lambda: administration.site_tasks("s", live=True),
    "site_load": lambda: administration.site_load("s"),
    "bench_site": lambda: administration.bench_site(
        "s", project="p", pools=["cpu"], nodes=2, seconds=5.0, python="python3"
    ),
    "site_benchmarks": lambda: administration.site_benchmarks("s"),
    "site_capabilities": lambda: administration.site_capabilities("s"),
    "site_forecasts": lambda: administration.site_forecasts("s"),
    "site_ahead": lambda: administration.site_ahead("s", hours=48),
    "site_carbon": lambda: administration.site_carbon("s"),
    "bring_carbon": lambda: administration.bring_carbon("s", "2026-12-01T00:00:00+00:00", [120.0]),
    "enrol_site": lambda: administration.enrol_site("s"),
    "users": administration.users,
    "add_user": lambda: administration.add_user("u", is_admin=True),
    "disable_user": lambda: administration.disable_user("u"),
    "projects": administration.projects,
    "project": lambda: administration.project("p"),
    "share_project": lambda: administration.share_project("p", 2.0),
    "home_project": lambda: administration.home_project("p", "s"),
    "add_project": lambda: administration.add_project("p", home="s"),
    "members": lambda: administration.members("p"),
    "add_member": lambda: administration.add_member("p", "u", role="manager"),
    "remove_member": lambda: administration.remove_member("p", "u"),
    "tokens": administration.tokens,
    "create_token": lambda: administration.create_token(
        description="d", scopes=["tasks:write"], expires_in_seconds=60, user="u"
    ),
    "revoke_token": lambda: administration.revoke_token(ID),
    "secrets": lambda: administration.secrets("p"),
    "set_secret": lambda: administration.set_secret("p", "n", "v"),
    "remove_secret": lambda: administration.remove_secret("p", "n"),
    "missing": lambda: transfer.missing(["0" * 64], project="p"),
    "upload_pack": lambda: transfer._upload_pack([hash_bytes(b"x")], "p", lambda _: None),
    "datasets": lambda: datasets.datasets(project="p"),
    "register": lambda: datasets.register("s", "/x", DATASET, sensitivity="w", regions=["r"]),
    "verify": lambda: datasets.verify(DATASET, site="s"),
    "copy": lambda: datasets.copy(DATASET, "s", pinned=True, bytes_per_second=1e6),
    "copies": lambda: datasets.copies(DATASET, ["s", "t"], by="+6h"),
    "files": lambda: datasets.files(DATASET),
    "pin": lambda: datasets.pin(DATASET, site="s"),
    "label": lambda: datasets.label(DATASET, regions=["r"]),
    "remove_data": lambda: datasets.remove(DATASET, site="s"),
    "transfers": lambda: datasets.transfers(project="p", dataset="d", open_only=True),
    "one_transfer": lambda: datasets.one_transfer(ID, project="p"),
    "cancel_transfer": lambda: datasets.cancel_transfer(ID, project="p"),
    "upload": lambda: transfer.upload([hash_bytes(b"x")], project="p"),
}  # fmt: skip


@cache
def _document() -> dict[str, Any]:
    return create_app(cast(Any, None)).openapi()


def _requests(steps: Steps[Any]) -> list[Request]:
    """The requests that an operation makes when each is answered as the upload of one byte would be."""
    found: list[Request] = []
    try:
        effect = next(steps)
        while True:
            outcome: Any = None
            if isinstance(effect, Request):
                found.append(effect)
                if not effect.path.startswith(("/v1/uploads", "/v1/blobs:missing")):
                    return found
                outcome = Answer(201 if effect.method == "PATCH" else 200, {}, b'{"missing": ["%s"]}' % _X)
            elif isinstance(effect, Work):
                outcome = effect.do()
            elif isinstance(effect, Together):
                for inner in effect.steps:
                    found += _requests(inner)
            else:
                assert isinstance(effect, Pause)
            effect = steps.send(outcome)
    except StopIteration:
        return found


_X = hash_bytes(b"x").sha256.encode()


def _operation(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    for template, item in _document()["paths"].items():
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/:]+", re.escape(template))
        if re.fullmatch(pattern, request.path) and request.method.lower() in item:
            return item, item[request.method.lower()]
    raise AssertionError(f"the service has no {request.method} {request.path}")


def test_the_service_knows_the_download(tmp_path: Path) -> None:
    """A download's calls, too."""
    output = Output(path="o", sha256="0" * 64, size_bytes=5)
    _check(_requests(transfer.download(output, tmp_path / "o", project="p")))


@pytest.mark.parametrize("name", CALLS)
def test_the_service_knows_the_call(name: str) -> None:
    """Path, method, every parameter and header, and a body that fits the schema."""
    _check(_requests(CALLS[name]()))


def _check(requests: list[Request]) -> None:
    assert requests
    for request in requests:
        item, operation = _operation(request)
        parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
        known = {(one["in"], one["name"].lower()) for one in parameters}
        unknown = {("query", key) for key, _ in request.params} - known
        unknown |= {
            ("header", key.lower())
            for key in request.headers
            if key.lower() not in ("content-type", "accept-encoding", "range", "upload-offset", "upload-length")
        } - known
        assert not unknown, f"{request.method} {request.path} has no {unknown}"
        if request.json is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            errors = list(
                Draft202012Validator({**schema, "components": _document()["components"]}).iter_errors(request.json)
            )
            assert not errors, errors


def test_every_operation_is_among_the_calls() -> None:
    """An operation that is added without a line in this test is noticed."""
    made = {
        name
        for module in (operations, administration)
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        and not isinstance(value, type)
    }  # fmt: skip
    assert made - set(CALLS) <= {"every", "read_event", "when", "ask"}


def test_events_have_their_parameters() -> None:
    """The stream's parameters are the service's."""
    known = {one["name"].lower() for one in _document()["paths"]["/v1/events"]["get"]["parameters"]}
    assert {"project", "task_id", "follow", "last-event-id"} <= known
