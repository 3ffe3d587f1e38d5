"""The agent's journal on disk: which calls it took, which submissions it began, which answers were not yet acknowledged.

Every change is on the disk (fsync) before what it precedes happens. Arguments are never written: they hold secrets, and a
call that had not begun is delivered again. After a crash `recover` answers Uncertain for every submission that had begun;
other begun calls may run again and are forgotten, so that they are delivered again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from isthmus.domain.errors import Corrupt, Unavailable
from isthmus.sites import wire
from isthmus.sites.port import Uncertain

T = TypeVar("T")

KEPT_SECONDS = 900.0  # an acknowledged answer, for a delivery that was on its way
KEPT_BYTES = 1024 * 1024  # an acknowledged answer longer than this is not kept

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
  id TEXT PRIMARY KEY,
  method TEXT NOT NULL,
  keys TEXT NOT NULL,      -- JSON list of the attempts' keys
  state TEXT NOT NULL,     -- taken | begun | answered | told
  answer TEXT NOT NULL DEFAULT '',
  at REAL NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the journal knows of a call."""

    id: str
    method: str
    keys: tuple[str, ...]
    state: str
    answer: str


class Journal:
    """One SQLite file, used from one thread of its own; Unavailable when the disk does not take a change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._connection = self._thread.submit(self._open).result()

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600, exist_ok=True)
        try:
            connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise Corrupt(
                f"The agent's journal cannot be opened ({error}).",
                remedy="Check the disk; with a lost journal enrol the agent anew in an empty state directory.",
            ) from error
        return connection

    async def take(self, calls: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
        """Write down that these calls (id, method, keys) were taken."""
        now = time.time()
        rows = [(call_id, method, orjson.dumps(keys).decode(), now) for call_id, method, keys in calls]
        await self._run(
            lambda c: c.executemany(
                "INSERT OR IGNORE INTO calls (id, method, keys, state, at) VALUES (?, ?, ?, 'taken', ?)", rows
            )
        )

    async def begin(self, call_id: str) -> None:
        """Write down that the call begins now."""
        await self._run(
            lambda c: c.execute("UPDATE calls SET state = 'begun' WHERE id = ? AND state = 'taken'", (call_id,))
        )

    async def answered(self, call_id: str, answer: str) -> None:
        """Write down the call's answer; the first one stays."""
        await self._run(
            lambda c: c.execute(
                "UPDATE calls SET state = 'answered', answer = ?, at = ? WHERE id = ? AND state IN ('taken', 'begun')",
                (answer, time.time(), call_id),
            )
        )

    async def told(self, call_id: str) -> None:
        """Write down that the control plane has the answer; forget answers that are old."""
        now = time.time()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE calls SET state = 'told', at = ?, answer = CASE WHEN length(answer) > ? THEN '' ELSE answer END "
                "WHERE id = ? AND state = 'answered'",
                (now, KEPT_BYTES, call_id),
            )
            connection.execute("DELETE FROM calls WHERE state = 'told' AND at < ?", (now - KEPT_SECONDS,))

        await self._run(work)

    async def forget(self, call_id: str) -> None:
        """Remove a call that was taken and never began."""
        await self._run(lambda c: c.execute("DELETE FROM calls WHERE id = ? AND state = 'taken'", (call_id,)))

    async def entry(self, call_id: str) -> Entry | None:
        """What is known of a call."""
        rows = await self._run(lambda c: c.execute(f"{_SELECT} WHERE id = ?", (call_id,)).fetchall())
        return _entry(rows[0]) if rows else None

    async def untold(self) -> list[Entry]:
        """Calls with an answer that the control plane has not acknowledged, oldest first."""
        rows = await self._run(lambda c: c.execute(f"{_SELECT} WHERE state = 'answered' ORDER BY at, id").fetchall())
        return [_entry(row) for row in rows]

    async def recover(self) -> list[Entry]:
        """After a start: answer Uncertain for submissions that had begun, forget the rest that has no answer; the answers
        to send."""
        begun = await self._run(lambda c: c.execute(f"{_SELECT} WHERE state = 'begun'").fetchall())
        for entry in map(_entry, begun):
            if not wire.method(entry.method).repeatable:
                await self.answered(entry.id, interrupted(entry.method, entry.keys))
        await self._run(lambda c: c.execute("DELETE FROM calls WHERE state IN ('taken', 'begun')"))
        return await self.untold()

    async def close(self) -> None:
        """Close the file."""
        await self._run(lambda c: c.close())
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                raise Unavailable(
                    f"The agent's journal does not take a change ({type(error).__name__}: {error}).",
                    remedy="Is the disk full?",
                ) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


def interrupted(method: str, keys: Sequence[str]) -> str:
    """The answer to a submission that had begun when the agent stopped."""
    message = "The agent was interrupted while it submitted; the job may or may not be at the site."
    return wire.encode_result(method, {key: Uncertain(message=message) for key in keys}).decode()


_SELECT = "SELECT id, method, keys, state, answer FROM calls"


def _entry(row: tuple[str, str, str, str, str]) -> Entry:
    return Entry(id=row[0], method=row[1], keys=tuple(orjson.loads(row[2])), state=row[3], answer=row[4])
