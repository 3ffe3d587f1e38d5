"""The cases of GA4GH's published compliance tests for TES 1.1 (ga4gh/compliance-tests-ga4gh-tes), in our own words: status codes,
the schema of every answer, views, paging, filters, cancelling, backend parameters.

Answers are checked against models that refuse what the standard does not know.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from isthmus.api.tes import models
from tests.api.tes.serving import ENDED, Http, wait_for

VIEWS = ["MINIMAL", "BASIC", "FULL"]
HELLO = {"image": "alpine", "command": ["echo", "hello"]}
SERVER_SIDE = {"url": "s3://my-object-store/file-1", "path": "/data/file1"}


def hello(**more: Any) -> dict[str, Any]:
    """The document that the compliance tests use most."""
    return {"name": "ComplianceTest", "description": "Compliance Test", "executors": [HELLO], **more}


def check(kind: type[BaseModel], body: Any) -> None:
    """Every required field is there, every field has its type, and nothing is there that the standard does not name."""
    kind.model_validate(body, strict=False, extra="forbid")


def listed(http: Http, **params: Any) -> list[dict[str, Any]]:
    """One page of tasks."""
    answer = http.get("/tasks", params)
    assert answer.status_code == 200, answer.text
    check(models.TesListTasksResponse, answer.json())
    tasks: list[dict[str, Any]] = answer.json()["tasks"]
    return tasks


@pytest.fixture(autouse=True)
def left_nothing_waiting(http: Http) -> Iterator[None]:
    """Tasks that no site can run are cancelled, so that the next test does not see them."""
    yield
    for state in ("QUEUED", "INITIALIZING", "RUNNING", "PAUSED"):
        for task in listed(http, state=state):
            http.post(f"/tasks/{task['id']}:cancel")


def test_service_info(http: Http) -> None:
    """service-info needs no token and has what GA4GH asks of every service."""
    answer = http.client.get(f"{http.server.base}/service-info", headers={"Authorization": ""})
    assert answer.status_code == 200
    check(models.TesServiceInfo, answer.json())
    assert answer.json()["type"] == {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"}
    assert answer.json()["organization"]["url"].startswith("http")
    assert "walltime_seconds" in answer.json()["tesResources_backend_parameters"]


def test_create_answers_an_id(http: Http) -> None:
    """POST /tasks answers 200 with the id and nothing else."""
    answer = http.post("/tasks", hello())
    assert answer.status_code == 200
    check(models.TesCreateTaskResponse, answer.json())


@pytest.mark.parametrize(
    "more",
    [
        {"inputs": [{**SERVER_SIDE, "type": "FILE"}]},
        {"inputs": [SERVER_SIDE], "outputs": [{"url": "s3://my-object-store/outfile-1", "path": "/data/outfile"}]},
        {"outputs": [{"url": "s3://my-object-store/outfile-1", "path": "/data/outfile", "type": "FILE"}]},
        {"inputs": [{"name": "a", "description": "b", **SERVER_SIDE, "streamable": True}]},
        {"outputs": [{"url": "https://store.example/b/", "path": "/in/*/*.?am", "path_prefix": "/in"}]},
        {"outputs": [{"url": "https://store.example/b/x", "path": "/with/wildc\\*rd_char\\?"}]},
        {"resources": {"cpu_cores": 4, "preemptible": False, "ram_gb": 8, "disk_gb": 40, "zones": ["us-west-1"]}},
        {"resources": {"backend_parameters": {"VmSize": "Standard_D64_v3"}, "backend_parameters_strict": False}},
        {"volumes": ["/vol/A/"], "tags": {"a": ""}, "unheard_of": 1, "inputs": None},
    ],
)
def test_documents_that_are_accepted(http: Http, more: dict[str, Any]) -> None:
    """Everything that the standard allows is accepted, and comes back as it was sent."""
    document = hello(**more)
    task_id = http.create(document)
    shown = http.task(task_id, "FULL")
    check(models.TesTaskShown, shown)
    for name in ("inputs", "outputs", "tags", "executors", "volumes"):
        if document.get(name) is not None:
            assert shown[name] == document[name]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "executors"),
        ({"executors": []}, "executors"),
        ({"executors": [{"command": ["true"]}]}, "executors.0.image"),
        ({"executors": [{"image": "alpine"}]}, "executors.0.command"),
        ({"executors": [{"image": "alpine", "command": []}]}, "executors.0.command"),
        ({"executors": [{"image": "alpine", "command": "true"}]}, "executors.0.command"),
        ({"executors": [{**HELLO, "stdout": "relative"}]}, "executors.0.stdout"),
        ({"executors": [{**HELLO, "env": {"1x": ""}}]}, "executors.0.env.1x"),
        (hello(inputs=[{"url": "s3://a/b"}]), "inputs.0.path"),
        (hello(inputs=[{"path": "/a/b"}]), "inputs.0.url"),
        (hello(inputs=[{"path": "a/b", "content": ""}]), "inputs.0.path"),
        (hello(inputs=[{"path": "/a/../b", "content": ""}]), "inputs.0.path"),
        (hello(inputs=[{"path": "/a/b", "url": "gopher://x"}]), "inputs.0.url"),
        (hello(inputs=[{"path": "/a/b", "url": "s3://a/b", "type": "SOCKET"}]), "inputs.0.type"),
        (hello(inputs=[{"path": "/a/b", "content": "x" * 131_073}]), "inputs.0.content"),
        (hello(outputs=[{"path": "/a/b"}]), "outputs.0.url"),
        (hello(outputs=[{"path": "/a/*", "url": "s3://a/b"}]), "outputs.0.path_prefix"),
        (hello(outputs=[{"path": "/a/b", "url": "gopher://x"}]), "outputs.0.url"),
        (hello(volumes=["relative"]), "volumes.0"),
        (hello(volumes=["/"]), "volumes.0"),
        (hello(outputs=[{"path": "/out", "url": "s3://b/c"}]), "outputs.0.path"),
        (hello(tags={"a": 1}), "tags.a"),
        (hello(resources={"cpu_cores": -1}), "resources.cpu_cores"),
        (hello(resources={"cpu_cores": "4"}), "resources.cpu_cores"),
        (
            hello(resources={"backend_parameters": {"walltime_seconds": "soon"}}),
            "resources.backend_parameters.walltime_seconds",
        ),
        (
            hello(resources={"backend_parameters": {"INVALID": "PARAMETER"}, "backend_parameters_strict": True}),
            "resources.backend_parameters.INVALID",
        ),
    ],
)
def test_documents_that_are_refused(http: Http, document: Any, field: str) -> None:
    """A document that is not right is answered with 400, and the field that is wrong is named."""
    answer = http.post("/tasks", document)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff"])
def test_bodies_that_are_no_document(http: Http, body: bytes) -> None:
    """What is not a JSON object is answered with 400."""
    assert http.client.post(f"{http.server.base}/tasks", content=body).status_code == 400


def test_unsupported_backend_parameters_are_told_and_not_kept(http: Http) -> None:
    """Without strict, unsupported keys are dropped and a system log says so; supported ones are kept, in any case."""
    parameters = {"VmSize": "Standard_D64_v3", "Walltime_Seconds": "600"}
    shown = http.ended(http.create(hello(resources={"backend_parameters": parameters})), "COMPLETE")
    assert shown["resources"]["backend_parameters"] == {"Walltime_Seconds": "600"}
    assert any("VmSize" in line for line in shown["logs"][0]["system_logs"])


@pytest.mark.parametrize("view", VIEWS)
def test_get_in_each_view(http: Http, view: str) -> None:
    """MINIMAL has id and state only, BASIC leaves out streams, contents and system logs, FULL has all."""
    document = hello(inputs=[{"path": "/data/x", "content": "secret words"}])
    task_id = http.create(document)
    http.ended(task_id, "COMPLETE")
    shown = http.task(task_id, view)
    check(models.TesTaskShown, shown)
    assert (shown["id"], shown["state"]) == (task_id, "COMPLETE")
    if view == "MINIMAL":
        assert shown.keys() == {"id", "state"}
        return
    assert (shown["name"], shown["description"], shown["executors"]) == ("ComplianceTest", "Compliance Test", [HELLO])
    assert shown["creation_time"].endswith("Z")
    log = shown["logs"][0]
    full = view == "FULL"
    assert ("content" in shown["inputs"][0], "system_logs" in log) == (full, full)
    assert ("stdout" in log["logs"][0], "stderr" in log["logs"][0]) == (full, full)
    assert log["logs"][0]["exit_code"] == 0


def test_default_view_is_minimal(http: Http) -> None:
    """Without a view, and with an empty one, only id and state are shown."""
    task_id = http.create(hello())
    for answer in (http.get(f"/tasks/{task_id}"), http.get(f"/tasks/{task_id}", {"view": ""})):
        assert answer.json().keys() == {"id", "state"}
    assert listed(http, page_size=1)[0].keys() == {"id", "state"}


@pytest.mark.parametrize("view", VIEWS)
def test_list_in_each_view(http: Http, view: str) -> None:
    """A list shows each task as GET does."""
    task_id = http.create(hello())
    http.ended(task_id)
    assert http.task(task_id, view) == next(task for task in listed(http, view=view) if task["id"] == task_id)


def test_unknown_words_are_refused(http: Http) -> None:
    """Views, states, page sizes and tokens that the standard does not know are answered with 400."""
    task_id = http.create(hello())
    assert http.get(f"/tasks/{task_id}", {"view": "full"}).status_code == 400
    for params in (
        {"view": "ALL"},
        {"state": "DONE"},
        {"page_size": 0},
        {"page_size": -1},
        {"page_size": 2049},
        {"page_size": "many"},
        {"page_token": "nonsense"},
        {"tag_value": "alone"},
    ):
        assert http.get("/tasks", params).status_code == 400, params


def test_page_size(http: Http) -> None:
    """As many tasks as were asked for are shown, newest first."""
    ids = [http.create(hello()) for _ in range(2)]
    assert [task["id"] for task in listed(http, page_size=1)] == ids[:0:-1]
    assert [task["id"] for task in listed(http, page_size=2)] == ids[::-1]
    assert len(listed(http, page_size=2048)) >= 2


def test_page_token(http: Http) -> None:
    """next_page_token leads on, without repeating or missing a task, and is not there on the last page."""
    prefix = uuid.uuid4().hex
    ids = [http.create(hello(name=f"{prefix}-{number}")) for number in range(3)]
    seen: list[str] = []
    params: dict[str, Any] = {"page_size": 2, "name_prefix": prefix}
    for more in (True, False):
        body = http.get("/tasks", params).json()
        seen += [task["id"] for task in body["tasks"]]
        assert ("next_page_token" in body) is more
        params["page_token"] = body.get("next_page_token")
    assert seen == ids[::-1]


def test_filter_by_name(http: Http) -> None:
    """name_prefix matches the beginning of a name, exactly: no wildcards, no other case, no middle."""
    prefix = uuid.uuid4().hex[:8]
    http.create(hello(name=f"{prefix}-Test"))
    http.create(hello(name=f"Test-{prefix}"))
    assert [task["name"] for task in listed(http, view="BASIC", name_prefix=f"{prefix}-Test")] == [f"{prefix}-Test"]
    assert [task["name"] for task in listed(http, view="BASIC", name_prefix=prefix)] == [f"{prefix}-Test"]
    for other in (f"{prefix}-test", f"{prefix[:-1]}_", f"{prefix[:-1]}%", f"-{prefix}"):
        assert listed(http, name_prefix=other) == []


def test_filter_by_state(http: Http) -> None:
    """Every state can be asked for, and only tasks in it are shown."""
    done = http.create(hello())
    failed = http.create(hello(executors=[{"image": "alpine", "command": ["false"]}]))
    waiting = http.create(hello(resources={"zones": ["nowhere"]}))
    http.ended(done, "COMPLETE")
    http.ended(failed, "EXECUTOR_ERROR")
    for state, task_id in (("COMPLETE", done), ("EXECUTOR_ERROR", failed), ("QUEUED", waiting)):
        found = listed(http, state=state)
        assert task_id in [task["id"] for task in found]
        assert {task["state"] for task in found} == {state}
    http.post(f"/tasks/{waiting}:cancel")
    assert waiting in [task["id"] for task in listed(http, state="CANCELED")]
    for state in models.TesState:
        assert {task["state"] for task in listed(http, state=state.value)} <= {state.value}


def test_filter_by_tags(http: Http) -> None:
    """All tags must match, in any order; a key without a value matches every value, the empty one too."""
    mark = uuid.uuid4().hex
    tags = {"foo": "bar", "baz": "bat", "lorem": "ipsum", "mark": mark}
    task_id = http.create(hello(tags=tags))
    empty = http.create(hello(tags={mark: ""}))

    def found(keys: list[str], values: list[str]) -> list[str]:
        return [task["id"] for task in listed(http, view="BASIC", tag_key=["mark", *keys], tag_value=[mark, *values])]

    assert found(["foo", "lorem", "baz"], ["bar", "ipsum", "bat"]) == [task_id]
    assert found(["lorem", "foo", "baz"], ["ipsum", "bar"]) == [task_id]
    assert found(["foo", "lorem", "extra"], ["bar", "ipsum"]) == []
    assert found(["foo"], ["wrong_value"]) == []
    assert found(["foo"], [""]) == [task_id]
    assert [task["id"] for task in listed(http, tag_key=mark)] == [empty]
    assert listed(http, tag_key="tag_key_not_defined", tag_value="tag_value_not_defined") == []


def test_cancel(http: Http) -> None:
    """A cancel is answered with 200 and an empty object, and the task is CANCELING or CANCELED from then on."""
    task_id = http.create(hello(executors=[{"image": "alpine", "command": ["sleep", "600"]}]))
    answer = http.post(f"/tasks/{task_id}:cancel")
    assert (answer.status_code, answer.json()) == (200, {})
    assert http.task(task_id, "MINIMAL")["state"] in ("CANCELING", "CANCELED")
    shown = http.ended(task_id, "CANCELED")
    check(models.TesTaskShown, shown)


def test_programs_that_are_not_there(http: Http) -> None:
    """An executor whose program cannot be found fails; without ignore_error it is the only one that is logged."""
    executors = [{"image": "alpine", "command": ["ERROR"], "ignore_error": False}, HELLO]
    shown = http.ended(http.create(hello(executors=executors)), "EXECUTOR_ERROR")
    assert len(shown["logs"][0]["logs"]) == 1
    executors[0]["ignore_error"] = True
    shown = http.ended(http.create(hello(executors=executors)), "COMPLETE")
    assert len(shown["logs"][0]["logs"]) == 2


def test_tasks_that_are_not_there(http: Http) -> None:
    """An id that is none, or nobody's, is answered with 404, by GET and by cancel."""
    for task_id in ("nonsense", "0" * 26, "7zzzzzzzzzzzzzzzzzzzzzzzzz"):
        assert http.get(f"/tasks/{task_id}").status_code == 404
        assert http.post(f"/tasks/{task_id}:cancel").status_code == 404


def test_tokens(http: Http) -> None:
    """Without a token, or with a wrong one, everything but service-info is answered with 401; HTTP basic with the token
    as password works too."""
    url = f"{http.server.base}/tasks"
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic !"}):
        assert http.client.get(url, headers=headers).status_code == 401
        assert http.client.post(url, headers=headers, json=hello()).status_code == 401
    assert http.client.get(url, auth=("anybody", http.server.token)).status_code == 200
    assert http.client.get(url, auth=("anybody", "nonsense")).status_code == 401


def test_functional_flow(http: Http) -> None:
    """Create, poll until it ends, and find it in the list: the compliance tests' whole run."""
    task_id = http.create(hello())

    def state() -> str:
        shown: str = http.task(task_id, "MINIMAL")["state"]
        return shown

    wait_for(lambda: state() in ENDED, "it ends")
    assert state() == "COMPLETE"
    assert task_id in [task["id"] for task in listed(http, state="COMPLETE", view="MINIMAL")]
