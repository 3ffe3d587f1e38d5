"""An agent inside the test's process, behind a link that can be cut, over a FileSite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from isthmus.agent.journal import Journal
from isthmus.agent.link import Link, make_client
from isthmus.agent.service import Agent, AgentSettings
from isthmus.data.http import HttpBlobStore
from isthmus.domain.task import Demand, Executor
from isthmus.engine.agentsite import AgentSite, AgentTimeouts
from isthmus.sites.port import Job, JobFile, JobRef
from tests.agent.filesite import FileSite
from tests.agent.plane import ControlPlane
from tests.agent.proxy import Proxy, proxy

QUICK = AgentSettings(wait_seconds=5.0, first_pause=0.05, most_pause=0.3, stop_grace=1.0, flush_grace=1.0)


@dataclass(slots=True, kw_only=True)
class Linked:
    """Both ends and what lies between them."""

    plane: ControlPlane
    name: str
    proxy: Proxy
    adapter: FileSite
    client: httpx.AsyncClient
    journal: Journal
    site: AgentSite
    root: Path
    token: str
    extra: list[object] = field(default_factory=list)


@asynccontextmanager
async def linked(
    plane: ControlPlane, name: str, directory: Path, *, timeouts: AgentTimeouts | None = None
) -> AsyncIterator[Linked]:
    """An agent that is connected when the block begins."""
    directory.mkdir(parents=True, exist_ok=True)
    token = await enrol(plane, name)
    async with proxy(plane.port) as way:
        client = make_client(way.url, token=token)
        client.timeout = httpx.Timeout(20.0, connect=5.0)
        link = Link(client)
        adapter = FileSite(directory / "site", HttpBlobStore(client, pause_seconds=0.05, tries=40))
        journal = Journal(directory / "journal.sqlite")
        stop = asyncio.Event()
        work = asyncio.create_task(Agent(link, adapter, journal, QUICK).run(stop))
        try:
            await plane.connected(name)
            yield Linked(
                plane=plane,
                name=name,
                proxy=way,
                adapter=adapter,
                client=client,
                journal=journal,
                site=plane.site(name, timeouts),
                root=directory / "site",
                token=token,
            )
        finally:
            stop.set()
            plane.mailbox._wake(name)
            await work
            await journal.close()
            await link.close()


async def enrol(plane: ControlPlane, name: str) -> str:
    """An agent's token for a site."""
    token = f"ist_{name}-{'x' * 40}"
    link = Link(make_client(plane.url))
    try:
        await link.enrol(plane.invite(name), token)
    finally:
        await link.close()
    return token


def job(key: str, *, blobs: tuple[str, ...] = (), **more: object) -> Job:
    """A job that does nothing."""
    files = tuple(JobFile(path=f"in{number}", blob=sha256) for number, sha256 in enumerate(blobs))
    fields: dict[str, object] = {
        "key": key,
        "fence": 1,
        "task_id": key,
        "name": "test",
        "pool": "all",
        "demand": Demand(),
        "steps": (Executor(command=("true",)),),
        "files": files,
        **more,
    }
    return Job(**fields)  # type: ignore[arg-type]


def ref(key: str) -> JobRef:
    """A reference to it."""
    return JobRef(key=key, fence=1)
