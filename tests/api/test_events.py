"""The stream of events: complete, resumed, filtered, cut when it must be. Over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from isthmus.api.feed import Feed, last_number
from isthmus.api.service import ApiSettings
from isthmus.store import events
from tests.api.conftest import House, open_house, problem_of

PATIENCE = 30.0


@asynccontextmanager
async def served(house: House) -> AsyncIterator[str]:
    """The house's app behind a real socket; its lifespan runs already."""
    config = uvicorn.Config(house.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        task = asyncio.create_task(server._serve(sockets=[listener]))
        async with asyncio.timeout(PATIENCE):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            house.service.feed.cut_all()
            server.should_exit = True
            await task


class Reader:
    """Reads one stream, event by event."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> dict[str, Any]:
        """The next event; comments are passed over."""
        found: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                if not line:
                    if "data" in found:
                        return found
                    found = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    found[name] = json.loads(value) if name == "data" else value
        raise EOFError


@asynccontextmanager
async def reading(url: str, token: str, **options: Any) -> AsyncIterator[Reader]:
    """An open stream."""
    headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as client,
        client.stream("GET", f"{url}/v1/events", headers=headers, **options) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Reader(answer)


async def make(house: House, count: int = 1, project: str = "default") -> list[str]:
    """Submit tasks; answers their ids."""
    admin = house.client(house.admin)
    batch = {"tasks": [{"command": ["a"]}] * count}
    answer = await admin.post("/v1/tasks:batch", params={"project": project}, json=batch)
    assert answer.status_code == 201
    return [task for (task,) in answer.json()["ids"]]


async def test_events_arrive_as_they_happen_and_resume(each_house: House) -> None:
    """A reader sees what happens after it came; one that was away gets exactly what it missed, then goes on live."""
    async with served(each_house) as url:
        async with reading(url, each_house.admin) as reader:
            made = await make(each_house, 3)
            seen = [await reader.next() for _ in range(3)]
        assert [event["data"]["task_id"] for event in seen] == made
        assert {event["event"] for event in seen} == {"task.waiting"}
        assert [int(event["id"]) for event in seen] == [event["data"]["seq"] for event in seen]
        missed = await make(each_house, 5)
        async with reading(url, each_house.admin, headers={"Last-Event-ID": seen[1]["id"]}) as reader:
            again = [await reader.next() for _ in range(6)]
            assert [event["data"]["task_id"] for event in again] == made[2:] + missed
            live = await make(each_house, 2)
            assert [(await reader.next())["data"]["task_id"] for _ in range(2)] == live


async def test_a_reader_sees_only_its_projects(house: House) -> None:
    """Others' events do not come, neither live nor from the past; a filter narrows further."""
    ann = house.person("ann", projects={"p": "member", "q": "member"})
    async with served(house) as url, reading(url, ann, headers={"Last-Event-ID": "0"}) as reader:
        await make(house, 2)
        (wanted,) = await make(house, 1, "p")
        await make(house, 2)
        (second,) = await make(house, 1, "q")
        assert [(await reader.next())["data"]["task_id"] for _ in range(2)] == [wanted, second]
        async with reading(url, ann, params={"project": "q"}, headers={"Last-Event-ID": "0"}) as narrow:
            assert (await narrow.next())["data"]["task_id"] == second
        async with reading(url, ann, params={"task_id": wanted}, headers={"Last-Event-ID": "0"}) as narrow:
            assert (await narrow.next())["data"]["task_id"] == wanted
        client = house.client(ann)
        problem_of(await client.get("/v1/events?project=default"), 404)


async def test_without_follow_the_stream_ends(house: House) -> None:
    """follow=false answers what is stored and ends."""
    made = await make(house, 1200)
    options = {"params": {"follow": "false"}, "headers": {"Last-Event-ID": "0"}}
    async with served(house) as url, reading(url, house.admin, **options) as reader:
        seen = [(await reader.next())["data"]["task_id"] for _ in range(1200)]
        with pytest.raises(EOFError):
            await reader.next()
    assert seen == made


async def test_a_reader_that_does_not_keep_up_is_cut_with_a_word(house: House) -> None:
    """More than its queue holds ends the subscription, with what it had and a last event that says why."""
    house.service.feed._queue_limit = 10
    subscription, last = house.service.feed.subscribe(lambda _: True)
    await make(house, 50)
    async with asyncio.timeout(PATIENCE):
        while not subscription.cut:
            await asyncio.sleep(0.01)
    assert subscription.cut == "too_slow"
    assert [row.seq for row in subscription.waiting] == list(range(last + 1, last + 11))
    assert house.service.feed.subscribers == 0


async def test_a_revoked_token_ends_its_stream(tmp_path: Path) -> None:
    """At the next sign of life the token is looked at again: a revoked one gets a last event and no more."""
    settings = ApiSettings(event_poll_seconds=0.05, keepalive_seconds=0.2)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house:
        token = house.person("bo", projects={"default": "member"})
        async with served(house) as url, reading(url, token) as reader:
            admin = house.client(house.admin)
            assert (await admin.delete("/v1/users/bo")).status_code == 204
            last = await reader.next()
            assert (last["event"], last["data"]["code"]) == ("cut", "unauthenticated")
            with pytest.raises(EOFError):
                await reader.next()


async def test_new_rights_cut_the_stream_so_that_it_is_opened_anew(tmp_path: Path) -> None:
    """A user who leaves a project gets no more of its events on a stream that was open before."""
    settings = ApiSettings(event_poll_seconds=0.05, keepalive_seconds=0.2)
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/isthmus.db", settings) as house:
        token = house.person("bo", projects={"default": "member"})
        async with served(house) as url, reading(url, token) as reader:
            admin = house.client(house.admin)
            await admin.delete("/v1/projects/default/members/bo")
            assert (await reader.next())["data"]["code"] == "access_changed"


async def test_streams_are_bounded_and_end_with_the_service(tmp_path: Path) -> None:
    """Beyond the limit a stream is refused with 429; a stop tells every open stream."""
    settings = ApiSettings(event_poll_seconds=0.05, max_subscribers=1)
    store = f"sqlite:///{tmp_path}/isthmus.db"
    async with (
        open_house(tmp_path, store, settings) as house,
        served(house) as url,
        reading(url, house.admin) as reader,
    ):
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{url}/v1/events", headers={"Authorization": f"Bearer {house.admin}"})
            problem_of(answer, 429)
        house.service.feed.cut_all()
        assert (await reader.next())["data"]["code"] == "stopping"


async def test_one_reader_of_the_store_serves_all(house: House) -> None:
    """However many subscribers there are, an event is read once, and each that wants it gets it."""
    feed = Feed(house.service.database, poll_seconds=0.02)
    await feed.start()
    try:
        subscriptions = [feed.subscribe(lambda _, keep=number % 2: bool(keep))[0] for number in range(200)]
        house.service.database.write_now(lambda c: events.add(c, [events.event(1.0, "task.waiting", project="p")]))
        async with asyncio.timeout(PATIENCE):
            while not all(s.waiting for s in subscriptions[1::2]):
                await asyncio.sleep(0.01)
        assert not any(s.waiting for s in subscriptions[::2])
    finally:
        await feed.stop()


async def test_nothing_is_missed_by_who_comes_while_the_feed_looks_for_its_place(house: House) -> None:
    """An event that is stored between a subscription and the end of the feed's own look still reaches the subscriber."""
    database = house.service.database
    arrived: list[Any] = []

    class Meddling:
        """Reads as the store does, but somebody subscribes and something happens before a look at the end returns."""

        async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
            if work is last_number and started and not arrived:
                arrived.append(feed.subscribe(lambda _: True)[0])
                await database.write(lambda c: events.add(c, [events.event(1.0, "task.waiting", project="p")]))
            return await database.read(work, *args, **kwargs)

    started = False
    feed = Feed(Meddling(), poll_seconds=0.02)  # type: ignore[arg-type]
    await feed.start()
    started = True
    try:
        async with asyncio.timeout(PATIENCE):
            while not (arrived and arrived[0].waiting):
                await asyncio.sleep(0.01)
    finally:
        await feed.stop()
