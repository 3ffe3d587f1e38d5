"""Opens the store and runs transactions on it, on SQLite or PostgreSQL, the same way.

A transaction is a function of a connection. It may be run again when the database says that nothing of it was
committed (busy, serialization failure, deadlock, a connection lost before commit), so it must have no effect
outside the database. When the connection is lost during the commit nobody knows: that is Unavailable, never run
again. SQLite has one writer: writes take a lock here and `BEGIN IMMEDIATE` there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from isthmus.domain.errors import Busy, Corrupt, Unavailable

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

_RETRY_STATES = {"40001", "40P01", "55P03"}  # serialization failure, deadlock, lock not available
_TRIES = 6
_EVENT_LOCK = 0x697374686D7573  # "isthmus": events are numbered in the order of their commits
_PROMISE_LOCK = _EVENT_LOCK + 1


class Database:
    """A store at a URL: `sqlite:////path/file.db` or `postgresql+psycopg://user@host/name`."""

    def __init__(self, url: str, *, connections: int = 8) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        if self.is_sqlite:
            self.engine = sa.create_engine(
                self.url,
                connect_args={"timeout": 30.0, "check_same_thread": False},
                pool_size=connections,
                max_overflow=4,
            )
            event.listen(self.engine, "connect", _sqlite_settings)
            event.listen(self.engine, "begin", _sqlite_begin)
        else:
            self.engine = sa.create_engine(
                self.url,
                pool_size=connections,
                max_overflow=connections,
                pool_pre_ping=True,
                connect_args={"connect_timeout": 10, "application_name": "isthmus"},
            )
        self._threads = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="store")

    def write_now(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a writing transaction in this thread; runs it again while the database says it was not committed."""
        for attempt in range(_TRIES):
            committing = False
            try:
                if self.is_sqlite:
                    with self._writer, self.engine.connect() as connection:
                        connection = connection.execution_options(isthmus_write=True)
                        with connection.begin():
                            answer = work(connection, *args, **kwargs)
                            committing = True
                        return answer
                with self.engine.begin() as connection:
                    answer = work(connection, *args, **kwargs)
                    committing = True
                return answer
            except sa.exc.DBAPIError as error:
                if committing and not self.is_sqlite and getattr(error.orig, "sqlstate", None) not in _RETRY_STATES:
                    # The connection broke during COMMIT: it may have happened. Run again, it could happen twice.
                    raise Unavailable(
                        "The store broke while it committed: nobody knows whether this was stored.",
                        remedy="Look, or repeat it under the same Idempotency-Key.",
                    ) from error
                if not _is_passing(error) or attempt == _TRIES - 1:
                    raise _translate(error) from error
                log.warning("transaction is run again: %s", type(error.orig).__name__)
                time.sleep(min(2.0, 0.05 * 2**attempt) * (0.5 + random.random()))
        raise AssertionError("unreachable")

    def read_now(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a reading transaction in this thread."""
        for attempt in range(_TRIES):
            try:
                with self.engine.connect() as connection, connection.begin():
                    return work(connection, *args, **kwargs)
            except sa.exc.DBAPIError as error:
                if not _is_passing(error) or attempt == _TRIES - 1:
                    raise _translate(error) from error
                time.sleep(min(2.0, 0.05 * 2**attempt) * (0.5 + random.random()))
        raise AssertionError("unreachable")

    async def write(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`write_now` in a thread of the store's own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.write_now(work, *args, **kwargs))

    async def read(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read_now` in a thread of the store's own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.read_now(work, *args, **kwargs))

    def close(self) -> None:
        """Close every connection."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()


def number_events_in_commit_order(connection: sa.Connection) -> None:
    """Call before adding events, late in a transaction: readers that go on from the last number then miss none."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _EVENT_LOCK})


def promise_alone(connection: sa.Connection) -> None:
    """Call before reading what is held of links, in a transaction that promises more of them: until it ends no other does. SQLite has one
    writer and needs nothing."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PROMISE_LOCK})


def skip_locked(select: sa.Select[tuple[T]]) -> sa.Select[tuple[T]]:
    """Lock the selected rows, leaving out those that somebody else has; SQLite has one writer and needs nothing."""
    return select.with_for_update(skip_locked=True)


def _sqlite_settings(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=30000",
        "foreign_keys=ON",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("isthmus_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _is_passing(error: sa.exc.DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in _RETRY_STATES or state.startswith(("08", "57P"))
    text = str(error.orig).lower()
    return "database is locked" in text or "database is busy" in text or "connection" in text


def _translate(error: sa.exc.DBAPIError) -> Exception:
    text = str(error.orig).lower()
    if "database is locked" in text:
        return Busy("The store is busy.", remedy="Try again.", retry_after_seconds=1.0)
    if "disk is full" in text or "no space left" in text:
        return Unavailable("The store's disk is full: nothing was stored.", remedy="Free space, then try again.")
    if "disk i/o error" in text:
        return Unavailable(
            "The store's disk fails: nothing was stored.", remedy="Check the disk, then run `isthmus check`."
        )
    if "not a database" in text or "malformed" in text:
        return Corrupt(
            "The store's file is damaged, or is no database.",
            remedy="Restore STATE/isthmus.db from your backup, then run `isthmus check`.",
        )
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return Unavailable("The store does not answer.", remedy="Is the database up? Try again.")
    return error
