"""The client against the real service with this machine as its site."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isthmus.client import AsyncClient, Client, draft, operations, transfer
from isthmus.client.sync import ArrayHandle, Handle
from isthmus.client.taskfile import read_task
from isthmus.client.waiting import StillRunning, TaskFailed
from isthmus.client.wire import request, send
from isthmus.client.workdir import hash_bytes
from isthmus.domain.errors import Forbidden, Invalid, NotFound, Refused, Unauthenticated
from isthmus.domain.task import Demand, TaskSpec
from tests.client.service import RunningService

TIMEOUT = 90.0


def _one(found: Handle | ArrayHandle) -> Handle:
    assert isinstance(found, Handle)
    return found


def test_a_command_gives_its_result(service: RunningService, tmp_path: Path) -> None:
    """submit, result, logs, fetch, attempts and decision of a task with inputs and outputs."""
    (tmp_path / "in.txt").write_text("42")
    with Client(profile=service.profile) as client:
        handle = _one(
            client.submit(
                "cat in.txt > sub/out.txt && echo said && echo wrong >&2",
                name="first",
                inputs=[f"{tmp_path / 'in.txt'}:in.txt", {"path": "sub/keep", "content": ""}],
                outputs=["sub/out.txt"],
                memory="200M",
                time="5m",
                tags={"kind": "test"},
            )
        )
        result = handle.result(TIMEOUT)
        assert result.exit_code == 0
        assert [item.path for item in result.outputs] == ["sub/out.txt"]
        assert handle.logs() == "said\n"
        assert handle.logs(stream="stderr") == "wrong\n"
        assert [attempt.state for attempt in handle.attempts()] == ["succeeded"]
        assert handle.why()[-1].chosen_site == "local"
        assert "succeeded" in repr(handle)
        assert "<table>" in handle._repr_html_()
        assert [task.id for task in client.tasks(tag=["kind:test"])] == [handle.id]
        assert client.task(handle.id).spec["demand"]["memory_bytes"] == 200 * 1024**2


def test_a_failure_says_how(service: RunningService) -> None:
    """result() raises with the exit code; the task is at hand."""
    with Client(profile=service.profile) as client:
        handle = _one(client.submit(TaskSpec(command=("sh", "-c", "exit 9"), demand=Demand(walltime_seconds=60))))
        with pytest.raises(TaskFailed, match="exit code 9") as caught:
            handle.result(TIMEOUT)
        assert caught.value.task.exit_code == 9


def test_an_array_and_tasks_that_wait_for_each_other(service: RunningService) -> None:
    """Arrays give a handle for each copy; a batch goes in whole."""
    with Client(profile=service.profile) as client:
        array = client.submit("echo $ISTHMUS_ARRAY_INDEX", array=3)
        assert isinstance(array, ArrayHandle)
        assert [result.exit_code for result in array.result(TIMEOUT)] == [0, 0, 0]
        assert sorted(handle.logs() for handle in array) == ["0\n", "1\n", "2\n"]
        first, second = client.submit_many(
            [{"name": "a", "command": "echo a"}, {"name": "b", "command": "echo b", "after": "a"}]
        )
        second.result(TIMEOUT)
        assert first[0].done()


def test_cancel_and_a_wait_that_is_over(service: RunningService) -> None:
    """wait() gives up after its time and the task goes on; cancel ends it."""
    with Client(profile=service.profile) as client:
        handle = _one(client.submit("sleep 300"))
        with pytest.raises(StillRunning):
            handle.wait(0.5)
        handle.cancel()
        assert handle.wait(TIMEOUT).state == "cancelled"


def test_the_second_run_of_a_directory_sends_nothing(service: RunningService, tmp_path: Path) -> None:
    """Only what changed is sent; the task sees the directory, modes included."""
    (tmp_path / "run.sh").write_text("#!/bin/sh\ncat data/x\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("one")
    with Client(profile=service.profile) as client:

        def sent() -> int:
            packed = draft.pack(read_task({"command": ["./run.sh"], "workdir": str(tmp_path)}, tmp_path))
            return client.run(transfer.upload(packed.contents, project="default"))

        handle = _one(client.submit(["./run.sh"], workdir=str(tmp_path)))
        handle.result(TIMEOUT)
        assert handle.logs() == "one"
        assert sent() == 0
        (tmp_path / "data/x").write_text("another")
        manifest = draft.pack(read_task({"command": ["x"], "workdir": str(tmp_path)}, tmp_path)).contents[-1]
        assert sent() == len("another") + manifest.size_bytes


def test_a_large_file_comes_back_whole(service: RunningService, tmp_path: Path) -> None:
    """More than one piece each way, checked by hash."""
    content = bytes(range(251)) * 40_000
    (tmp_path / "big").write_bytes(content)
    with Client(profile=service.profile) as client:
        handle = _one(
            client.submit(
                ["cp", "big", "copy"], inputs=[f"{tmp_path / 'big'}:big"], outputs={"copy": str(tmp_path / "c")}
            )
        )
        handle.result(TIMEOUT)
        assert handle.fetch() == [tmp_path / "c"]
        assert (tmp_path / "c").read_bytes() == content


def test_a_plan_stores_nothing_and_a_wrong_task_is_refused_alike(service: RunningService) -> None:
    """plan() goes through the service's validation and leaves no task."""
    with Client(profile=service.profile) as client:
        before = [task.id for task in client.tasks(limit=None)]
        soon = (datetime.now(UTC) + timedelta(minutes=2)).isoformat(timespec="seconds")
        with pytest.raises(Invalid, match="the soonest end that can be promised") as late:
            client.submit("true", time="1h", deadline=soon)
        assert late.value.field == "objective.deadline"
        plan = client.plan("true", nodes=1000)
        assert plan.chosen_site == ""
        assert plan.candidates[0].wanted
        assert plan.remedy
        bad = {"command": ["true"], "demand": {"cpus": 0}}
        with pytest.raises(Invalid) as planned:
            client.run(operations.plan(bad, project="default"))
        with pytest.raises(Invalid) as submitted:
            client.run(operations.submit(bad, project="default"))
        assert planned.value.field == submitted.value.field
        assert [task.id for task in client.tasks(limit=None)] == before


def test_the_same_key_makes_one_task(service: RunningService) -> None:
    """A submission repeated under its key is the same task."""
    with Client(profile=service.profile) as client:
        one = _one(client.submit("true", idempotency_key="the-key", hold=True))
        two = _one(client.submit("true", idempotency_key="the-key", hold=True))
        assert one.id == two.id
        one.cancel()


def test_events_arrive_while_they_happen(service: RunningService) -> None:
    """A stream that is open before the task begins tells of its end."""
    with Client(profile=service.profile) as client:
        handle = _one(client.submit("true", hold=True))
        kinds: list[str] = []

        def listen() -> None:
            with Client(profile=service.profile) as other:
                for event in other.events(task_id=handle.id, last_id="0"):
                    kinds.append(event.kind)
                    if event.kind == "task.succeeded":
                        return

        listener = threading.Thread(target=listen)
        listener.start()
        client.run(operations.release(handle.id))
        listener.join(TIMEOUT)
        assert not listener.is_alive()
        assert kinds[-1] == "task.succeeded"
        assert [event.kind for event in client.events(task_id=handle.id, last_id="0", follow=False)][
            : len(kinds)
        ] == kinds


def test_errors_of_the_service_are_those_of_the_domain(service: RunningService) -> None:
    """Unknown task, unknown token."""
    with Client(profile=service.profile) as client, pytest.raises(NotFound):
        client.task("01m8c4fkm8gdn0n2jez2ppxzf4")
    with Client(service.profile.url, "ist_wrong") as client, pytest.raises((Unauthenticated, Forbidden)):
        client.sites()


async def test_the_async_client_does_the_same(service: RunningService, tmp_path: Path) -> None:
    """submit, result, logs, fetch, events and lists, awaited."""
    async with AsyncClient(profile=service.profile) as client:
        handle = await client.submit("echo a > out; echo b", outputs={"out": str(tmp_path / "out")})
        result = await handle.result(TIMEOUT)
        assert not isinstance(result, list)
        assert result.exit_code == 0
        assert await handle.logs() == "b\n"  # type: ignore[union-attr]
        assert await handle.fetch() == [tmp_path / "out"]  # type: ignore[union-attr]
        assert (tmp_path / "out").read_text() == "a\n"
        assert handle.id in [task.id async for task in client.tasks(limit=5)]  # type: ignore[union-attr]
        events = client.events(task_id=handle.id, last_id="0", follow=False)  # type: ignore[union-attr]
        assert "task.succeeded" in [event.kind async for event in events]
        assert [site.name for site in await client.sites()] == ["local"]
        with pytest.raises(TaskFailed):
            await (await client.submit("exit 1")).result(TIMEOUT)


def test_many_small_files_travel_in_packs(service: RunningService) -> None:
    """A pack of contents is there whole afterwards, and a broken pack is refused."""
    contents = [hash_bytes(b"small %d" % number) for number in range(1500)] + [hash_bytes(b"")]
    with Client(profile=service.profile) as client:
        sent = client.run(transfer.upload(contents, project="default"))
        assert sent == sum(content.size_bytes for content in contents)
        assert client.run(transfer.missing([content.sha256 for content in contents], project="default")) == set()
        broken = request("POST", "/v1/blobs:pack", params={"project": "default"}, content=b"\0\0\0\x09abc")
        with pytest.raises(Refused, match="ends within"):
            client.run(send(broken))


def test_fetch_goes_where_it_is_told(service: RunningService, tmp_path: Path) -> None:
    """A directory given to fetch wins over the place that the submission named."""
    with Client(profile=service.profile) as client:
        handle = _one(client.submit("echo x > o", outputs=["o"]))
        handle.result(TIMEOUT)
        assert handle.fetch(tmp_path / "d") == [tmp_path / "d" / "o"]
