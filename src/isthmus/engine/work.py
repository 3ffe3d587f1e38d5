"""What the parts of one site's work share: its lease, its adapter, the attempts in hand, and how results are written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from isthmus.data.port import BlobStore
from isthmus.domain.lifecycle import AttemptState
from isthmus.engine.clock import Clock
from isthmus.engine.fleet import Fleet
from isthmus.engine.home import Home
from isthmus.engine.jobs import JobMaker
from isthmus.engine.leases import Lease, LostLease
from isthmus.engine.settings import EngineSettings
from isthmus.engine.transitions import Move, apply
from isthmus.sites.port import Site
from isthmus.store import tables
from isthmus.store.database import Database

log = logging.getLogger(__name__)
_FAR_AHEAD_SECONDS = 600.0  # delays are a minute at most


@dataclass(slots=True)
class SiteWork:
    """The work of one site, owned by this process as long as the lease holds."""

    name: str
    lease: Lease
    database: Database
    blobs: BlobStore
    fleet: Fleet
    clock: Clock
    settings: EngineSettings
    maker: JobMaker
    wake_placement: Callable[[], None]
    look_again: Callable[[], None]  # the site changed: what could go nowhere may go now
    still_ours: Callable[[], bool]
    home: Home | None = None
    full: dict[tuple[str, str], float] = field(default_factory=dict)
    """Account and pool for which the site said "not now" -> until when nothing is sent; then one job at a time tries."""
    in_hand: set[str] = field(default_factory=set)
    dispatch_due: asyncio.Event = field(default_factory=asyncio.Event)
    observe_due: asyncio.Event = field(default_factory=asyncio.Event)
    collect_due: asyncio.Event = field(default_factory=asyncio.Event)
    account_due: asyncio.Event = field(default_factory=asyncio.Event)
    describe_due: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def adapter(self) -> Site:
        """The site's adapter; Unavailable when its settings make none."""
        return self.fleet.site(self.name)

    async def load(
        self, states: Collection[AttemptState], limit: int, *, now: float, where: sa.ColumnElement[bool] | None = None
    ) -> list[Any]:
        """Attempts of this site in these states that are due and not in hand, oldest first."""
        rows = await self.database.read(
            _load, self.name, [s.value for s in states], now, limit + len(self.in_hand), where
        )
        return [row for row in rows if row.key not in self.in_hand][:limit]

    async def apply(self, moves: Sequence[Move]) -> set[str]:
        """Write moves under the lease, in chunks; answers the keys that moved."""
        moved: set[str] = set()
        for start in range(0, len(moves), 1000):
            part = moves[start : start + 1000]
            moved |= await self.database.write(apply_now, self.clock.now(), self.lease, part)
        return moved

    def check_ours(self) -> None:
        """Before anything is done at the site: LostLease when our lease may have passed to another process."""
        if not self.still_ours():
            raise LostLease(f"The lease {self.lease.name} was not renewed in time.")

    def delay(self, tries: int) -> float:
        """Seconds until the next try of something that failed `tries` times: doubling, a minute at most."""
        return float(min(60.0, self.settings.retry_delay * 2 ** min(tries, 10)))


def is_due(due_at: sa.ColumnElement[float], now: float) -> sa.ColumnElement[bool]:
    """Whether a moment has come. Nothing is ever put off for long: one far ahead was written before the clock was set
    back, and has come too."""
    return sa.or_(due_at <= now, due_at > now + _FAR_AHEAD_SECONDS)


def apply_now(connection: sa.Connection, now: float, lease: Lease, moves: Sequence[Move]) -> set[str]:
    """`transitions.apply`, in the order of arguments that `Database.write` gives."""
    return apply(connection, now, lease, moves)


def update_attempts(
    connection: sa.Connection, lease: Lease, changes: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """Set columns of attempts that are no part of the life cycle (`which` names the attempt), under the lease."""
    from isthmus.engine.leases import guard

    guard(connection, lease)
    if changes:
        statement = tables.attempts.update().where(tables.attempts.c.key == sa.bindparam("which"))
        connection.execute(statement, [{k: change[k] for k in ("which", *columns)} for change in changes])


def _load(
    connection: sa.Connection,
    site: str,
    states: list[str],
    now: float,
    limit: int,
    where: sa.ColumnElement[bool] | None,
) -> list[Any]:
    query = (
        tables.attempts.select()
        .where(tables.attempts.c.site == site)
        .where(tables.attempts.c.state.in_(states))
        .where(is_due(tables.attempts.c.due_at, now))
        .order_by(
            tables.attempts.c.due_at, tables.attempts.c.key
        )  # what is looked at again and again is not in the way of others
        .limit(limit)
    )
    if where is not None:
        query = query.where(where)
    return list(connection.execute(query))
