"""One life of a control-plane process: it can be killed at any point, frozen and thawed; its clock may be wrong."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any

from isthmus.domain.errors import NotFound, Unavailable
from isthmus.store.database import Database
from tests.world.virtual import EPOCH

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """The process is gone; nothing in it may catch this."""


class Process:
    """The parts that the engine is handed: `store`, `blobs`, `clock`. After `kill` each of them raises Killed."""

    def __init__(self, rng: random.Random, database: Database, blobs: dict[str, bytes], jump: Callable[[], float]) -> None:
        self.rng = rng
        self.dead = asyncio.Event()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.kill_at: dict[str, int] = {}  # place, or "any" -> passages left
        self.passed: dict[str, int] = {}
        self.slow = 0.05
        self.broken_store = 0.0
        self.store = _Store(self, database)
        self.blobs = _Blobs(self, blobs)
        self.clock = _Clock(self, jump)

    def kill(self) -> None:
        """SIGKILL."""
        self.dead.set()
        self.thawed.set()

    def pass_point(self, place: str) -> None:
        """A place where death may come: a failpoint, or the moment before or after an effect."""
        if self.dead.is_set():
            raise Killed(place)
        self.passed[place] = self.passed.get(place, 0) + 1
        for name in (place, "any"):
            if name in self.kill_at:
                self.kill_at[name] -= 1
                if self.kill_at[name] <= 0:
                    del self.kill_at[name]
                    self.kill()
                    raise Killed(place)

    async def gate(self, place: str) -> None:
        """Wait while frozen; sometimes let others go first."""
        self.pass_point(place)
        if self.rng.random() < self.slow:
            await asyncio.sleep(self.rng.expovariate(10))
        while not self.thawed.is_set():
            await self.thawed.wait()
        if self.dead.is_set():
            raise Killed(place)


class _Store:
    """The real database, behind the process's life."""

    def __init__(self, process: Process, database: Database) -> None:
        self._process = process
        self._database = database

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        await self._process.gate("read")
        return self._database.read_now(work, *args, **kwargs)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        process = self._process
        await process.gate("write.before")
        roll = process.rng.random()
        if roll < process.broken_store / 2:
            raise Unavailable("The store does not answer.")
        answer = self._database.write_now(work, *args, **kwargs)
        process.pass_point("write.after")
        if roll < process.broken_store:
            raise Unavailable("The store does not answer.")  # committed, but nobody was told
        if process.rng.random() < process.slow:
            await asyncio.sleep(process.rng.expovariate(10))
            await process.gate("write.told")
        return answer


class _Clock:
    def __init__(self, process: Process, jump: Callable[[], float]) -> None:
        self._process = process
        self._jump = jump

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self._jump()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._process.gate("slept")


class _Blobs:
    """Content in memory."""

    def __init__(self, process: Process, content: dict[str, bytes]) -> None:
        self._process = process
        self._content = content

    async def missing(self, hashes: Collection[str]) -> set[str]:
        await self._process.gate("blobs")
        return {sha256 for sha256 in hashes if sha256 not in self._content}

    async def size(self, sha256: str) -> int:
        if sha256 not in self._content:
            raise NotFound(f"There is no content {sha256}.")
        return len(self._content[sha256])

    async def put_bytes(self, content: bytes) -> str:
        await self._process.gate("blobs")
        sha256 = hashlib.sha256(content).hexdigest()
        self._content[sha256] = content
        return sha256
