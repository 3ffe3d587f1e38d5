"""A site behind an agent, built like any adapter, so that the conformance suite runs over the whole way: AgentSite, mailbox,
HTTP, agent, and the adapter that it is given."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isthmus.agent.journal import Journal
from isthmus.agent.link import Link, make_client
from isthmus.agent.service import Agent
from isthmus.data.http import HttpBlobStore
from isthmus.data.port import BlobStore
from isthmus.sites.port import Site
from isthmus.trust.enrolment import enrol
from isthmus.trust.tokens import new_secret
from tests.agent.inprocess import QUICK
from tests.agent.plane import ControlPlane


class RemoteSite:
    """`make(store)` builds the adapter at the site, over the store that the agent hands it; `adapter` is that one. Control
    plane and agent start with the first call and end with `close`."""

    def __init__(self, make: Callable[[BlobStore], Site], blobs: BlobStore) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="isthmus-remote-"))
        self._plane = ControlPlane(self._directory / "plane", blobs=blobs)
        self._plane.join("remote")
        token = new_secret()
        one_time = self._plane.invite("remote")
        self._plane.database.write_now(enrol, now=time.time(), token=one_time, agent_token=token)
        client = make_client(self._plane.url, token=token)
        self._link = Link(client)
        self.adapter = make(HttpBlobStore(client, spool=self._directory, pause_seconds=0.1))
        self._journal = Journal(self._directory / "journal.sqlite")
        self._agent = Agent(self._link, self.adapter, self._journal, QUICK)
        self._site = self._plane.site("remote")
        self._stop = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    def __getattr__(self, method: str) -> Any:
        """A method of the site, after both ends have started."""

        async def call(*arguments: Any) -> Any:
            await self._start()
            return await getattr(self._site, method)(*arguments)

        return call

    async def _start(self) -> None:
        async with self._starting:
            if self._work is None:
                await self._plane.start()
                self._work = asyncio.create_task(self._agent.run(self._stop))
                await self._plane.connected("remote")

    async def close(self) -> None:
        """End the agent, then the control plane; again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        if self._work is not None:
            await self._work
        await self.adapter.close()
        await self._journal.close()
        await self._link.close()
        await self._plane.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
