"""A control plane for tests: the real application over a real HTTP server on loopback, with everything but the engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn

from isthmus.api.agent import serve_agents
from isthmus.api.app import create_app
from isthmus.api.service import Service
from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.port import BlobStore
from isthmus.engine.agentblobs import AgentBlobs
from isthmus.engine.agentsite import AgentSite, AgentTimeouts
from isthmus.engine.clock import SystemClock
from isthmus.engine.mailbox import Mailbox, MailboxSettings
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.trust import first
from isthmus.trust.enrolment import invite
from isthmus.trust.sealing import Sealer


class NoEngine:
    """The engine of a service whose tasks nobody works on."""

    def wake(self) -> None:
        """Do nothing."""

    def wake_sites(self) -> None:
        """Do nothing."""

    def site(self, name: str) -> Any:
        """There is none."""
        raise NotImplementedError(name)

    async def plan(self, *args: Any) -> Any:
        """There is none."""
        raise NotImplementedError


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield


class ControlPlane:
    """One control plane; `state` outlives it, so that another one may follow at the same port."""

    def __init__(
        self,
        state: Path,
        *,
        port: int = 0,
        settings: MailboxSettings | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.database = Database(f"sqlite:///{state / 'store.db'}")
        tables.metadata.create_all(self.database.engine)
        first.prepare(self.database, state, time.time())
        sealer = Sealer.open(state / "key")
        self.blobs: BlobStore = blobs or DirectoryBlobStore(state / "blobs")
        self.mailbox = Mailbox(self.database, sealer, SystemClock(), settings)
        self.agent_blobs = AgentBlobs(self.mailbox, self.database, SystemClock())
        self.service = Service(database=self.database, blobs=self.blobs, engine=NoEngine(), sealer=sealer, state=state)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._server: _Quiet | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Answer requests from now on."""
        app = create_app(self.service)
        serve_agents(app, self.mailbox, self.agent_blobs)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = _Quiet(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        await eventually(lambda: self._server is not None and self._server.started)

    async def stop(self) -> None:
        """Stop for good."""
        await self.mailbox.close()
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._listener.close()
        await asyncio.to_thread(self.database.close)

    def join(self, name: str, mode: str = "agent") -> None:
        """A site that is served by an agent."""

        def work(connection: sa.Connection) -> None:
            connection.execute(
                tables.sites.insert().values(
                    name=name,
                    kind="local",
                    mode=mode,
                    state="active",
                    config="{}",
                    accounts="{}",
                    created_by=first.ADMIN,
                    created_at=time.time(),
                )
            )

        self.database.write_now(work)

    def invite(self, name: str, life_seconds: float = 3600.0) -> str:
        """A one-time token."""
        return self.database.write_now(
            invite, now=time.time(), site=name, created_by=first.ADMIN, life_seconds=life_seconds
        )

    def site(self, name: str, timeouts: AgentTimeouts | None = None) -> AgentSite:
        """The site as the engine sees it."""
        return AgentSite(name, self.mailbox, unproven=self.agent_blobs.unproven, timeouts=timeouts)

    def last_seen(self, name: str) -> float | None:
        """When the site's agent last called."""
        return self.database.read_now(
            lambda c: c.execute(sa.select(tables.sites.c.last_seen_at).where(tables.sites.c.name == name)).scalar_one()
        )

    async def connected(self, name: str, since: float = 0.0) -> None:
        """Wait until the site's agent called after `since`."""
        await eventually(lambda: (self.last_seen(name) or 0.0) > since)

    def rows(self) -> list[Any]:
        """The calls in the mailbox."""
        return self.database.read_now(lambda c: list(c.execute(sa.select(tables.agent_calls))))


@asynccontextmanager
async def control_plane(state: Path, **options: Any) -> AsyncIterator[ControlPlane]:
    """A control plane that runs in the block."""
    plane = ControlPlane(state, **options)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


async def eventually(condition: Any, seconds: float = 60.0) -> None:
    """Wait until the condition holds; fails when it does not within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"this did not come true within {seconds} s"
        await asyncio.sleep(0.02)
