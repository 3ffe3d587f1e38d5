"""Tasks through the REST face, on both stores."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import sqlalchemy as sa

from isthmus.domain.manifest import Manifest, ManifestFile
from isthmus.store import tables
from isthmus.trust.access import Scope
from tests.api.conftest import CONTENT, CONTENT_HASH, House, problem_of, upload


async def test_a_task_is_stored_and_shown_as_asked(each_admin: httpx.AsyncClient) -> None:
    """What POST answers is what GET answers, with the specification as it was sent."""
    spec = {"name": "first", "command": ["echo", "1"], "tags": {"run": "7"}, "priority": 3}
    made = await each_admin.post("/v1/tasks", json=spec)
    assert made.status_code == 201
    task = made.json()
    assert task["spec"] == spec
    assert (task["state"], task["user"], task["project"]) == ("waiting", "admin", "default")
    assert task["created_at"].endswith("Z")
    assert (await each_admin.get(f"/v1/tasks/{task['id']}")).json() == task


async def test_every_wrong_field_is_named_with_its_path(admin: httpx.AsyncClient) -> None:
    """Two wrong fields of a batch are both named, down to the leaf, each with cause and remedy."""
    answer = await admin.post(
        "/v1/tasks:batch",
        json={
            "tasks": [
                {"command": ["a"]},
                {"command": ["a"], "demand": {"cpus": 0}, "inputs": [{"path": "x", "blob": "1"}]},
            ]
        },
    )
    problem = problem_of(answer, 422)
    fields = {error["field"]: error for error in problem["errors"]}
    assert set(fields) == {"tasks.1.demand.cpus", "tasks.1.inputs.0.blob"}
    assert fields["tasks.1.demand.cpus"]["cause"] == "is 0."
    assert fields["tasks.1.demand.cpus"]["remedy"] == "It must be 1 or more."


async def test_a_site_that_is_not_joined_is_refused_by_name(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """A misspelt site is not waited for, nor does a misspelt denial let the task in; nothing is stored."""
    await each_admin.post("/v1/sites", json={"name": "alpha", "kind": "null", "accounts": {"*": ""}})
    for wrong, field, remedy in (
        ({"constraints": {"sites_allow": ["alpha", "alhpa"]}}, "constraints.sites_allow", "Did you mean alpha?"),
        ({"constraints": {"sites_deny": ["beta"]}}, "constraints.sites_deny", "Sites: alpha."),
        ({"inputs": [{"path": "x", "site_path": "beta:/x"}]}, "inputs.site_path", "Sites: alpha."),
    ):
        problem = problem_of(await each_admin.post("/v1/tasks", json={"command": ["a"], **wrong}), 422)
        assert [(error["field"], error["remedy"]) for error in problem["errors"]] == [(field, remedy)]
    assert each_house.rows(sa.select(tables.tasks)) == []
    right = {"constraints": {"sites_allow": ["alpha"]}, "inputs": [{"path": "x", "site_path": "alpha:/x"}]}
    assert (await each_admin.post("/v1/tasks", json={"command": ["a"], **right})).status_code == 201
    await each_admin.post("/v1/sites/alpha:leave", json={"force": True})
    denied = {"command": ["a"], "constraints": {"sites_deny": ["alpha"]}}
    assert (await each_admin.post("/v1/tasks", json=denied)).status_code == 201
    problem_of(
        await each_admin.post("/v1/tasks", json={"command": ["a"], "constraints": {"sites_allow": ["alpha"]}}), 422
    )


async def test_unknown_fields_are_refused_by_name(admin: httpx.AsyncClient) -> None:
    """A misspelt field is an error that names it, not a silent default."""
    problem = problem_of(await admin.post("/v1/tasks", json={"command": ["a"], "demand": {"cpu": 4}}), 422)
    assert [error["field"] for error in problem["errors"]] == ["demand.cpu"]


async def test_broken_json_is_a_problem(admin: httpx.AsyncClient) -> None:
    """A body that is no JSON answers 422, another media type 415."""
    headers = {"content-type": "application/json"}
    problem_of(await admin.post("/v1/tasks", content=b'{"command": [', headers=headers), 422)
    problem_of(await admin.post("/v1/tasks", content=b"command=a", headers={"content-type": "text/plain"}), 415)


async def test_a_batch_is_all_or_nothing(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """One task that names content which is not there keeps the whole batch out."""
    bad = {"command": ["cat", "x"], "inputs": [{"path": "x", "blob": CONTENT_HASH}]}
    answer = await each_admin.post("/v1/tasks:batch", json={"tasks": [{"command": ["a"]}, bad]})
    problem = problem_of(answer, 422)
    assert problem["errors"][0]["field"] == "tasks.1.inputs.0.blob"
    assert each_house.rows(sa.select(tables.tasks.c.id)) == []
    await upload(each_admin, CONTENT)
    good = await each_admin.post("/v1/tasks:batch", json={"tasks": [{"command": ["a"]}, bad]})
    assert good.status_code == 201
    assert [len(ids) for ids in good.json()["ids"]] == [1, 1]
    assert len(each_house.rows(sa.select(tables.tasks.c.id))) == 2


async def test_an_error_of_a_single_task_has_no_batch_in_its_path(admin: httpx.AsyncClient) -> None:
    """Missing content of a single task is named as the caller wrote it."""
    bad = {"command": ["cat", "x"], "inputs": [{"path": "x", "blob": CONTENT_HASH}]}
    problem = problem_of(await admin.post("/v1/tasks", json=bad), 422)
    assert problem["errors"][0]["field"] == "inputs.0.blob"


async def test_tasks_of_a_batch_may_wait_for_each_other_by_name(admin: httpx.AsyncClient) -> None:
    """A dependency by name inside a batch is shown as what the task waits for."""
    batch = {"tasks": [{"name": "a", "command": ["a"]}, {"command": ["b"], "depends_on": [{"task": "a"}]}]}
    (first,), (second,) = (await admin.post("/v1/tasks:batch", json=batch)).json()["ids"]
    shown = (await admin.get(f"/v1/tasks/{second}")).json()
    assert (shown["state"], shown["waiting_for"]) == ("blocked", [first])


async def test_an_array_answers_its_ids(each_admin: httpx.AsyncClient) -> None:
    """An array answers its id and one task for each index, and is listed and cancelled as one."""
    made = await each_admin.post(
        "/v1/tasks", json={"command": ["a"], "array": {"size": 3, "values": {"X": ["1", "2", "3"]}}}
    )
    assert made.status_code == 201
    array = made.json()
    assert len(array["ids"]) == 3
    listed = (await each_admin.get("/v1/tasks", params={"array_id": array["array_id"]})).json()["items"]
    assert sorted(item["array_index"] for item in listed) == [0, 1, 2]
    cancelled = await each_admin.post("/v1/tasks:cancel", json={"array_id": array["array_id"]})
    assert cancelled.json() == {"changed": 3}


async def test_a_dry_run_stores_nothing_and_checks_the_same(house: House, admin: httpx.AsyncClient) -> None:
    """A dry run refuses what a submission refuses, answers a plan otherwise, and leaves no row or event."""
    bad = {"command": ["a"], "secrets": {"KEY": "none"}}
    problem = problem_of(await admin.post("/v1/tasks", params={"dry_run": "true"}, json=bad), 422)
    assert problem["errors"][0]["field"] == "secrets"
    plan = await admin.post("/v1/tasks", params={"dry_run": "true"}, json={"command": ["a"]})
    assert plan.status_code == 200
    assert plan.json()["remedy"]
    assert house.rows(sa.select(tables.tasks.c.id)) == []
    assert house.rows(sa.select(tables.events.c.seq)) == []


async def test_a_directory_is_checked_to_its_last_file(admin: httpx.AsyncClient) -> None:
    """A manifest is not enough: each content that it names must be the project's."""
    manifest = Manifest(files=(ManifestFile(path="a", sha256=CONTENT_HASH, size_bytes=len(CONTENT)),)).dump()
    name = await upload(admin, manifest)
    spec = {"command": ["a"], "workdir_manifest": name}
    problem = problem_of(await admin.post("/v1/tasks", json=spec), 422)
    assert problem["errors"][0]["field"] == "workdir_manifest"
    assert CONTENT_HASH in problem["detail"]
    await upload(admin, CONTENT)
    assert (await admin.post("/v1/tasks", json=spec)).status_code == 201


async def test_content_that_is_no_manifest_is_refused(admin: httpx.AsyncClient) -> None:
    """A working directory must be a manifest."""
    name = await upload(admin, CONTENT)
    problem = problem_of(await admin.post("/v1/tasks", json={"command": ["a"], "workdir_manifest": name}), 422)
    assert problem["errors"][0]["field"] == "workdir_manifest"


async def test_pages_show_each_task_once_newest_first(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """Walking the cursors over two projects meets every task once, in order, while more are made."""
    each_house.person("ann", projects={"other": "member"})
    made: list[str] = []
    for number in range(11):
        project = "other" if number % 3 == 0 else "default"
        each_house.clock.now += 1
        made.append(
            (await each_admin.post("/v1/tasks", params={"project": project}, json={"command": ["a"]})).json()["id"]
        )
    each_house.execute(tables.members.insert().values(project="default", user="ann", role="member"))
    ann = each_house.client(each_house.person("ann"))
    for client in (each_admin, ann):
        seen: list[str] = []
        cursor = None
        while True:
            page = (await client.get("/v1/tasks", params={"limit": 4} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == made[::-1]


async def test_lists_are_filtered(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """Each filter leaves what it says; several are all meant."""
    bo = each_house.client(each_house.person("bo", projects={"other": "member"}))
    one = (await each_admin.post("/v1/tasks", json={"name": "x", "command": ["a"], "tags": {"k": "v:w"}})).json()["id"]
    each_house.clock.now += 10
    two = (await each_admin.post("/v1/tasks", json={"command": ["a"], "hold": True})).json()["id"]
    three = (await bo.post("/v1/tasks", params={"project": "other"}, json={"command": ["a"]})).json()["id"]
    each_house.execute(tables.tasks.update().where(tables.tasks.c.id == three).values(site="s1"))

    async def ids(client: httpx.AsyncClient, **filters: Any) -> set[str]:
        answer = await client.get("/v1/tasks", params=filters)
        assert answer.status_code == 200, answer.text
        return {item["id"] for item in answer.json()["items"]}

    assert await ids(each_admin) == {one, two, three}
    assert await ids(each_admin, state="held") == {two}
    assert await ids(each_admin, state=["held", "waiting"]) == {one, two, three}
    assert await ids(each_admin, project="other") == {three}
    assert await ids(each_admin, user="bo") == {three}
    assert await ids(each_admin, user="bo", state="held") == set()
    assert await ids(each_admin, site="s1") == {three}
    assert await ids(each_admin, name="x") == {one}
    assert await ids(each_admin, tag="k:v:w") == {one}
    assert await ids(each_admin, tag=["k:v:w", "k:w"]) == set()
    assert await ids(each_admin, since="2027-01-15T08:00:05Z") == {two, three}
    assert await ids(bo) == {three}
    assert await ids(bo, user="admin") == set()
    problem_of(await bo.get("/v1/tasks", params={"project": "default"}), 404)
    problem_of(await each_admin.get("/v1/tasks", params={"since": "2027-01-15T08:00:05"}), 422)


async def test_a_million_tasks_are_paged_by_index(house: House) -> None:
    """The plans of a page, whatever it is filtered by, search an index and sort nothing."""
    from isthmus.api.task_rows import TaskFilter, _page_ids

    seen: list[str] = []

    def plan(connection: sa.Connection, wanted: TaskFilter) -> list[str]:
        statements: list[str] = []

        def listen(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if not statement.startswith("EXPLAIN"):
                statements.append(statement)
                rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
                seen.extend(row.detail for row in rows)

        sa.event.listen(connection, "before_cursor_execute", listen)
        _page_ids(connection, wanted, "01m8c494fxg2w6a05ptvvey797", 100)
        sa.event.remove(connection, "before_cursor_execute", listen)
        return statements

    for wanted in (
        TaskFilter(),
        TaskFilter(projects=("a", "b")),
        TaskFilter(projects=("a",), states=("held", "waiting")),
        TaskFilter(user="ann"),
        TaskFilter(site="s"),
        TaskFilter(states=("waiting",)),
    ):
        house.service.database.read_now(plan, wanted)
    assert seen
    assert [line for line in seen if "SEARCH" not in line and "projects" not in line] == []


async def test_intents_answer_the_task(each_admin: httpx.AsyncClient) -> None:
    """Hold, release, cancel, retry change the state; one that makes no sense is a conflict."""
    task = (await each_admin.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    verbs = ("hold", "release", "cancel", "retry")
    states = [(await each_admin.post(f"/v1/tasks/{task}:{verb}")).json()["state"] for verb in verbs]
    assert states == ["held", "waiting", "cancelled", "waiting"]
    problem_of(await each_admin.post(f"/v1/tasks/{task}:release"), 409)


async def test_bulk_cancel_is_all_or_nothing(house: House, admin: httpx.AsyncClient) -> None:
    """One task that is not the caller's keeps all of them as they are."""
    house.person("bo", projects={"default": "member"})
    bo = house.client(house.person("bo"))
    theirs = (await admin.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    mine = (await bo.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    problem_of(await bo.post("/v1/tasks:cancel", json={"ids": [mine, theirs]}), 403)
    problem_of(await bo.post("/v1/tasks:cancel", json={"ids": [mine, "0" * 26]}), 404)
    assert (await bo.get(f"/v1/tasks/{mine}")).json()["state"] == "waiting"
    assert (await bo.post("/v1/tasks:cancel", json={"ids": [mine]})).json() == {"changed": 1}
    problem_of(await bo.post("/v1/tasks:cancel", json={}), 422)


async def test_a_repeated_request_gets_the_same_answer(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """The same key and body make one task; the same key with another body is a conflict; other users' keys are theirs."""
    key = {"Idempotency-Key": "abc"}
    first = await each_admin.post("/v1/tasks", json={"command": ["a"]}, headers=key)
    again = await each_admin.post("/v1/tasks", json={"command": ["a"]}, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    problem = problem_of(await each_admin.post("/v1/tasks", json={"command": ["b"]}, headers=key), 409)
    assert problem["code"] == "idempotency_conflict"
    each_house.person("bo", projects={"default": "member"})
    bo = each_house.client(each_house.person("bo"))
    assert (await bo.post("/v1/tasks", json={"command": ["b"]}, headers=key)).status_code == 201
    assert len(each_house.rows(sa.select(tables.tasks.c.id))) == 2
    each_house.clock.now += 90_000
    assert (await each_admin.post("/v1/tasks", json={"command": ["b"]}, headers=key)).status_code == 201


async def test_a_failed_request_does_not_use_up_its_key(admin: httpx.AsyncClient) -> None:
    """After a refusal the key is free: nothing was made."""
    key = {"Idempotency-Key": "abc"}
    bad = {"command": ["cat", "x"], "inputs": [{"path": "x", "blob": CONTENT_HASH}]}
    problem_of(await admin.post("/v1/tasks", json=bad, headers=key), 422)
    await upload(admin, CONTENT)
    assert (await admin.post("/v1/tasks", json=bad, headers=key)).status_code == 201


async def test_records_of_a_task_are_listed(house: House, admin: httpx.AsyncClient) -> None:
    """Attempts, receipts, outputs, usage and events have the fields of the page."""
    task = (await admin.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    key = "01m8c494g6gkqz73913ayh9nm6"
    at = house.clock()
    house.execute(
        tables.attempts.insert().values(
            key=key, task_id=task, project="default", user="admin", number=1, fence=1, site="s", pool="p", account="u",
            state="succeeded", created_at=at, updated_at=at, started_at=at, exit_code=0,
        )
    )  # fmt: skip
    house.execute(tables.tasks.update().where(tables.tasks.c.id == task).values(attempt=key))
    house.execute(
        tables.outputs.insert(),
        [{"task_id": task, "path": f"o{n}", "attempt": key, "sha256": CONTENT_HASH, "size_bytes": 1} for n in range(3)],
    )
    house.execute(
        tables.usage_records.insert().values(
            attempt=key, task_id=task, project="default", user="admin", site="s", pool="p", account="u", source="wrapper",
            native_id="1", native_state="done", elapsed_seconds=1, nodes=1, cpus=1, accelerators=0, cpu_seconds=0.5,
            allocated_cpu_seconds=1, max_rss_bytes=1, read_bytes=0, written_bytes=0, charge="0.01", created_at=at,
        )
    )  # fmt: skip
    attempts = (await admin.get(f"/v1/tasks/{task}/attempts")).json()["items"]
    assert [(a["key"], a["number"], a["account"], a["exit_code"]) for a in attempts] == [(key, 1, "u", 0)]
    first = (await admin.get(f"/v1/tasks/{task}/outputs", params={"limit": 2})).json()
    rest = (await admin.get(f"/v1/tasks/{task}/outputs", params={"cursor": first["next_cursor"]})).json()
    assert [item["path"] for item in first["items"] + rest["items"]] == ["o0", "o1", "o2"]
    assert rest["next_cursor"] is None
    assert (await admin.get(f"/v1/tasks/{task}/usage")).json()["items"][0]["charge"] == "0.01"
    for path in ("/v1/usage", "/v1/usage?project=default&user=admin", "/v1/usage?since=2020-01-01T00:00:00Z"):
        assert [item["attempt"] for item in (await admin.get(path)).json()["items"]] == [key]
    assert (await admin.get("/v1/usage", params={"user": "bo"})).json()["items"] == []
    events = (await admin.get(f"/v1/tasks/{task}/events")).json()["items"]
    assert [event["kind"] for event in events] == ["task.waiting"]


async def test_usage_pages_by_time(house: House, admin: httpx.AsyncClient) -> None:
    """Records of the same second are neither skipped nor repeated between pages."""
    keys = [f"01m8c494g6gkqz73913ayh9n{n:02d}" for n in range(5)]
    house.execute(
        tables.usage_records.insert(),
        [
            {
                "attempt": key, "task_id": key, "project": "default", "user": "admin", "site": "s", "pool": "p",
                "account": "u", "source": "wrapper", "native_id": "1", "native_state": "done", "elapsed_seconds": 1,
                "nodes": 1, "cpus": 1, "accelerators": 0, "cpu_seconds": 0.5, "allocated_cpu_seconds": 1,
                "max_rss_bytes": 1, "read_bytes": 0, "written_bytes": 0, "charge": "0.01",
                "created_at": house.clock() + (n // 3) * 0.123457,
            }
            for n, key in enumerate(keys)
        ],
    )  # fmt: skip
    seen: list[str] = []
    cursor = None
    for _ in range(5):
        page = (await admin.get("/v1/usage", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["attempt"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == keys[::-1]


async def test_logs_come_from_the_kept_blob(house: House, admin: httpx.AsyncClient) -> None:
    """After the end a stream is read in parts from its blob, and the last part says that it is complete."""
    task = (await admin.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    before = await admin.get(f"/v1/tasks/{task}/logs")
    assert (before.content, before.headers["x-log-complete"]) == (b"", "false")
    sha256 = await house.service.blobs.put_bytes(CONTENT)
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()
    key = "01m8c494g6gkqz73913ayh9nm6"
    at = house.clock()
    house.execute(
        tables.attempts.insert().values(
            key=key, task_id=task, project="default", user="admin", number=1, fence=1, site="s", pool="p",
            state="succeeded", created_at=at, updated_at=at, stdout_blob=sha256,
        )
    )  # fmt: skip
    house.execute(tables.tasks.update().where(tables.tasks.c.id == task).values(attempt=key, state="succeeded"))
    part = await admin.get(f"/v1/tasks/{task}/logs", params={"limit": 5})
    assert (part.content, part.headers["x-next-offset"], part.headers["x-log-complete"]) == (CONTENT[:5], "5", "false")
    rest = await admin.get(f"/v1/tasks/{task}/logs", params={"offset": 5, "attempt": key})
    assert (rest.content, rest.headers["x-log-complete"], rest.headers["x-attempt"]) == (CONTENT[5:], "true", key)
    other = await admin.get(f"/v1/tasks/{task}/logs", params={"stream": "stderr"})
    assert (other.content, other.headers["x-log-complete"]) == (b"", "true")
    problem_of(await admin.get(f"/v1/tasks/{task}/logs", params={"attempt": "0" * 26}), 404)


async def test_a_read_token_changes_nothing(house: House) -> None:
    """A token with tasks:read lists and shows, and may not submit or cancel."""
    token = house.person("bo", projects={"default": "member"})
    task = (await house.client(token).post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    reader = house.client(house.person("bo", scopes=[Scope.TASKS_READ]))
    assert (await reader.get(f"/v1/tasks/{task}")).status_code == 200
    problem_of(await reader.post("/v1/tasks", json={"command": ["a"]}), 403)
    problem_of(await reader.post(f"/v1/tasks/{task}:cancel"), 403)
