"""One life of a control-plane process: it can be killed at any point, frozen and thawed; its clock may be wrong."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sqlite3
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any

from isthmus.domain.errors import NotFound, Unavailable
from isthmus.domain.placement import Snapshot
from isthmus.engine import accounting, fleet, leases, serving, snapshot
from isthmus.engine import work as engine_work
from isthmus.store.database import Database
from tests.world.virtual import EPOCH

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """The process is gone; nothing in it may catch this."""


class Process:
    """The parts that the engine is handed: `store`, `blobs`, `clock`. After `kill` each of them raises Killed."""

    def __init__(
        self,
        rng: random.Random,
        database: Database,
        peek: sqlite3.Connection,
        blobs: dict[str, bytes],
        jump: Callable[[], float],
    ) -> None:
        self.rng = rng
        self.dead = asyncio.Event()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.kill_at: dict[str, int] = {}  # place, or "any" -> passages left
        self.passed: dict[str, int] = {}
        self.slow = 0.05
        self.broken_store = 0.0
        self.store = _Store(self, database, peek)
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


_DUE = "(due_at <= ? OR due_at > ? + 600)"
_LIVE = f"SELECT 1 FROM attempts WHERE site = ? AND {_DUE} AND state IN (STATES) LIMIT 1"
_AFTER = f"SELECT 1 FROM attempts WHERE site = ? AND {_DUE} AND (usage_state = 'due' OR clean_state = 'due') LIMIT 1"
_WAITING = f"SELECT 1 FROM tasks WHERE state = 'waiting' AND {_DUE} LIMIT 1"


class _Store:
    """The real database, behind the process's life."""

    def __init__(self, process: Process, database: Database, peek: sqlite3.Connection) -> None:
        self._process = process
        self._database = database
        self._peek = peek
        self._sites: Any = None

    async def read(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        await self._process.gate("read")
        if work is fleet._load_sites:  # the operator changes nothing in a history
            if self._sites is None:
                self._sites = self._database.read_now(work)
            return self._sites
        if self._idle(work, args):
            return Snapshot(now=args[0], pools=()) if work is snapshot.read_snapshot else []
        return self._database.read_now(work, *args, **kwargs)

    def _idle(self, work: Any, args: tuple[Any, ...]) -> bool:
        """Whether a look at the store would certainly find nothing: asked cheaply, since most looks do."""
        if work is engine_work._load:
            query, values = _LIVE, (args[0], args[2], args[2], *args[1])
            query = query.replace("STATES", ",".join("?" * len(args[1])))
        elif work is accounting._load:
            query, values = _AFTER, (args[0], args[1], args[1])
        elif work in (snapshot.read_snapshot, serving.read_waiting):
            query, values = _WAITING, (args[0], args[0])
        else:
            return False
        return self._peek.execute(query, values).fetchone() is None

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        process = self._process
        await process.gate("write.before")
        roll = process.rng.random()
        if roll < process.broken_store / 2:
            raise Unavailable("The store does not answer.")
        plain = self._plain_lease(work, args)
        answer = plain[0] if plain else self._database.write_now(work, *args, **kwargs)
        process.pass_point("write.after")
        if roll < process.broken_store:
            raise Unavailable("The store does not answer.")  # committed, but nobody was told
        if process.rng.random() < process.slow:
            await asyncio.sleep(process.rng.expovariate(10))
            await process.gate("write.told")
        return answer

    def _plain_lease(self, work: Any, args: tuple[Any, ...]) -> tuple[Any] | None:
        """The two commonest writes, where their outcome is beyond doubt, without the cost of an SQL compiler: renewing
        leases that all are ours, and trying to take one that somebody else holds."""
        if work is leases.renew:
            held, owner, now, seconds = args
            rows = {row[0]: row[1:] for row in self._peek.execute("SELECT name, owner, token FROM leases").fetchall()}
            if all(rows.get(lease.name) == (owner, lease.token) for lease in held):
                self._peek.executemany(
                    "UPDATE leases SET until = ? WHERE name = ?", [(now + seconds, lease.name) for lease in held]
                )
                return ({lease.name for lease in held},)
        elif work is leases.take:
            name, owner, now, seconds = args
            row = self._peek.execute("SELECT owner, until FROM leases WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] != owner and now < row[1] <= now + 10 * seconds:
                return (None,)
        return None


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
