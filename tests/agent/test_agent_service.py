"""The whole service with a site behind an agent: tasks run there, once, whatever happens to the link and to the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from isthmus import __version__
from tests.agent.plane import eventually
from tests.agent.process import agent_arguments, agent_process
from tests.agent.proxy import Weather, proxy

pytestmark = pytest.mark.fault


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client, as its administrator, of a service with the agent site `far`."""
    state = tmp_path / "service"
    command = ["isthmus.server", "--state", str(state), "--listen", "127.0.0.1:0"]
    async with agent_process(command, tmp_path / "service.log") as process:
        await eventually(lambda: (state / "service.json").exists())
        url = orjson.loads((state / "service.json").read_bytes())["url"]
        token = (state / "admin-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            join = {"name": "far", "kind": "local", "mode": "agent", "config": {}, "accounts": {"*": ""}}
            (await client.post("/v1/sites", json=join)).raise_for_status()
            yield client
        assert await process.terminate() == 0


async def _ended(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    return await _in_state(client, task_id, {"succeeded", "failed", "cancelled"})


async def _in_state(client: httpx.AsyncClient, task_id: str, states: set[str]) -> dict[str, Any]:
    for _ in range(900):
        task: dict[str, Any] = (await client.get(f"/v1/tasks/{task_id}")).json()
        if task["state"] in states:
            return task
        await asyncio.sleep(0.1)
    raise AssertionError(f"the task is {task['state']}")


async def test_a_task_runs_once_while_the_link_is_cut_and_the_agent_is_killed(
    service: httpx.AsyncClient, tmp_path: Path
) -> None:
    """It starts, the link is cut, it ends, the agent is killed and started again, the link is back: one run, its result
    and its input are whole."""
    marks, go = tmp_path / "marks", tmp_path / "go"
    one_time = (await service.post("/v1/sites/far/enrolments")).json()["token"]
    async with proxy(service.base_url.port or 0) as way:
        config = f"kind: local\nsettings: {{root: {tmp_path / 'root'}}}\n"
        arguments = agent_arguments(tmp_path / "agent", way.url, one_time, config)
        async with agent_process(["isthmus.agent.main", *arguments], tmp_path / "agent.log") as agent:
            script = f"echo run >>{marks}; while [ ! -e {go} ]; do sleep 0.1; done; cat in >out; echo done >>{marks}"
            spec = {
                "command": ["/bin/sh", "-c", script],
                "inputs": [{"path": "in", "content": "carried there and back"}],
                "outputs": [{"path": "out"}],
            }
            posted = await service.post("/v1/tasks", json=spec)
            assert posted.status_code in (200, 201), posted.text
            task_id = posted.json()["id"]
            await _in_state(service, task_id, {"running"})
            way.turn(Weather.CUT)
            go.touch()
            await eventually(lambda: marks.read_text() == "run\ndone\n")
            await agent.kill()
            await agent.start()
            way.turn(Weather.FINE)
            task = await _ended(service, task_id)
            assert (task["state"], task["exit_code"]) == ("succeeded", 0), task
            outputs = (await service.get(f"/v1/tasks/{task_id}/outputs")).json()["items"]
            content = await service.get(f"/v1/blobs/{outputs[0]['sha256']}")
            assert content.content == b"carried there and back"
            assert marks.read_text() == "run\ndone\n"
            assert len((await service.get(f"/v1/tasks/{task_id}/attempts")).json()["items"]) == 1
            site = (await service.get("/v1/sites/far")).json()
            assert site["last_seen_at"] is not None
            assert site["agent"]["version"] == __version__
            assert abs(site["agent"]["clock_offset_seconds"]) < 30
            assert await agent.terminate() == 0


async def test_drain_resume_and_leave_break_and_orphan_nothing(service: httpx.AsyncClient, tmp_path: Path) -> None:
    """While a site drains, what runs there ends well and what is new waits; after the resume it goes there; a site that
    has ended its work leaves without force, and nothing of ours is left there."""
    go, root = tmp_path / "go", tmp_path / "root"
    one_time = (await service.post("/v1/sites/far/enrolments")).json()["token"]
    config = f"kind: local\nsettings: {{root: {root}}}\n"
    arguments = agent_arguments(tmp_path / "agent", str(service.base_url), one_time, config)
    async with agent_process(["isthmus.agent.main", *arguments], tmp_path / "agent.log") as agent:
        script = f"while [ ! -e {go} ]; do sleep 0.1; done; echo good >out"
        spec = {"command": ["/bin/sh", "-c", script], "outputs": [{"path": "out"}]}
        first = (await service.post("/v1/tasks", json=spec)).json()["id"]
        await _in_state(service, first, {"running"})
        assert [path for path in (root / "attempts").rglob("*") if path.is_file()] != []
        assert (await service.post("/v1/sites/far:drain")).json()["state"] == "draining"
        second = (await service.post("/v1/tasks", json=spec)).json()["id"]
        refused = await service.post("/v1/sites/far:leave", json={})
        assert refused.status_code == 409, refused.text
        go.touch()
        assert (await _ended(service, first))["state"] == "succeeded"
        assert (await service.get(f"/v1/tasks/{second}")).json()["state"] == "waiting"
        assert (await service.post("/v1/sites/far:resume")).json()["state"] == "active"
        assert (await _ended(service, second))["state"] == "succeeded"
        await service.post("/v1/sites/far:drain")
        for _ in range(300):
            left = await service.post("/v1/sites/far:leave", json={})
            if left.status_code != 409:
                break
            await asyncio.sleep(0.1)  # its usage is recorded, and its files are removed, a moment later
        assert left.json()["state"] == "left", left.text
        assert [path for path in (root / "attempts").rglob("*") if path.is_file()] == []
        for task_id in (first, second):
            assert len((await service.get(f"/v1/tasks/{task_id}/attempts")).json()["items"]) == 1
        assert await agent.terminate() == 0
