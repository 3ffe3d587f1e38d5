"""Tells subscribers of new events: one reader of the store for the whole process, however many subscribers there are.

A subscriber that does not keep up is cut with a word that says so; it resumes after the last number that it saw, from the
store, so nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import Busy, IsthmusError
from isthmus.store import tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)
BATCH = 1000
QUEUE_LIMIT = 2000

EventRow = sa.Row[Any]
Filter = Callable[[EventRow], bool]


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber: what waits for it, and why it ends."""

    wants: Filter
    waiting: list[EventRow] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    cut: str = ""  # a code, once the server has ended it


class Feed:
    """Reads new events and hands them to subscribers."""

    def __init__(
        self,
        database: Database,
        *,
        poll_seconds: float = 0.25,
        max_subscribers: int = 1000,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._max_subscribers = max_subscribers
        self._queue_limit = queue_limit
        self._subscriptions: set[Subscription] = set()
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self._prodded = asyncio.Event()
        self._stopped = False

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return len(self._subscriptions)

    async def start(self) -> None:
        """Start to read, from the present on."""
        self._last = await self._database.read(last_number)
        self._task = asyncio.create_task(self._run(), name="event feed")

    async def stop(self) -> None:
        """End every stream, then stop reading."""
        self.cut_all()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def cut_all(self) -> None:
        """End every stream with the word that the service stops, and take no more."""
        self._stopped = True
        for subscription in list(self._subscriptions):
            self._cut(subscription, "stopping")

    def prod(self) -> None:
        """Look now: something was written by this process."""
        self._prodded.set()

    def subscribe(self, wants: Filter) -> tuple[Subscription, int]:
        """A new subscription, and the number of the last event that it will not be handed; Busy when there are too many."""
        if self._stopped or len(self._subscriptions) >= self._max_subscribers:
            raise Busy(
                "Too many event streams are open.", remedy="Close some, or ask again later.", retry_after_seconds=5
            )
        subscription = Subscription(wants)
        self._subscriptions.add(subscription)
        return subscription, self._last

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; safe to repeat."""
        self._subscriptions.discard(subscription)

    def _cut(self, subscription: Subscription, code: str) -> None:
        subscription.cut = subscription.cut or code
        subscription.news.set()
        self._subscriptions.discard(subscription)

    async def _run(self) -> None:
        while not self._stopped:
            # Not wait_for: in Python 3.11 it may swallow a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._prodded.wait()
            self._prodded.clear()
            try:
                while True:
                    if not self._subscriptions:
                        # Nobody listens: only keep the place, so that a subscriber starts with the present.
                        last = await self._database.read(last_number)
                        if not self._subscriptions:
                            self._last = last
                            break
                        # Somebody came meanwhile, and was promised all after the old number.
                    rows = await self._database.read(read_events, after=self._last, limit=BATCH)
                    for row in rows:
                        self._hand_out(row)
                    if rows:
                        self._last = rows[-1].seq
                    if len(rows) < BATCH:
                        break
            except IsthmusError as error:
                log.warning("events cannot be read: %s", error.cause)
                await asyncio.sleep(1.0)
            except Exception:  # one bad reading must not starve every stream for good
                log.exception("events cannot be read")
                await asyncio.sleep(1.0)

    def _hand_out(self, row: EventRow) -> None:
        for subscription in list(self._subscriptions):
            if not subscription.wants(row):
                continue
            if len(subscription.waiting) >= self._queue_limit:
                self._cut(subscription, "too_slow")
                continue
            subscription.waiting.append(row)
            subscription.news.set()


def last_number(connection: sa.Connection) -> int:
    """The number of the last event; 0 when there is none."""
    return connection.scalar(sa.select(sa.func.max(tables.events.c.seq))) or 0


def read_events(
    connection: sa.Connection,
    *,
    after: int,
    limit: int,
    until: int | None = None,
    projects: Sequence[str] | None = None,
    task_id: str = "",
) -> Sequence[EventRow]:
    """Events in the order of their numbers; `projects` None: of all."""
    e = tables.events
    query = sa.select(e).where(e.c.seq > after).order_by(e.c.seq).limit(limit)
    if until is not None:
        query = query.where(e.c.seq <= until)
    if projects is not None:
        query = query.where(e.c.project.in_(list(projects)))
    if task_id:
        query = query.where(e.c.task_id == task_id)
    return connection.execute(query).all()


async def history(
    database: Database, *, after: int, until: int, wants: Filter, task_id: str = ""
) -> AsyncIterator[EventRow]:
    """Stored events after one number, up to another, in parts that never hold the store for long."""
    while after < until:
        rows = await database.read(read_events, after=after, limit=BATCH, until=until, task_id=task_id)
        for row in rows:
            if wants(row):
                yield row
        if len(rows) < BATCH:
            return
        after = rows[-1].seq
