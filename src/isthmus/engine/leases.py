"""Named leases: exactly one process at a time owns a site's work, or the placement round, and proves it in every write.

A lease has a token that only grows. A write names the token it was begun under; when the row holds another, the write
changes nothing (LostLease). An owner that is the same instance (its state directory is locked, so it lives once)
takes its own leases back at once after a crash; anybody else waits until they expire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from isthmus.domain.errors import Conflict
from isthmus.store import tables


class LostLease(Conflict):
    """Somebody else owns this now: drop the work."""

    code = "lost_lease"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as taken: `renewed` is this process's monotonic clock at the last renewal."""

    name: str
    token: int


def take(connection: sa.Connection, name: str, owner: str, now: float, seconds: float) -> Lease | None:
    """Take a free, expired or own lease with a new token; None while somebody else holds it."""
    row = connection.execute(tables.leases.select().where(tables.leases.c.name == name).with_for_update()).first()
    if row is None:
        insert = tables.leases.insert().values(name=name, owner=owner, token=1, until=now + seconds)
        try:
            with connection.begin_nested():
                connection.execute(insert)
        except sa.exc.IntegrityError:
            return None  # another process made the row first
        return Lease(name, 1)
    clock_went_back = row.until > now + 10 * seconds
    if row.owner != owner and row.until > now and not clock_went_back:
        return None
    connection.execute(
        tables.leases.update()
        .where(tables.leases.c.name == name)
        .values(owner=owner, token=row.token + 1, until=now + seconds)
    )
    return Lease(name, row.token + 1)


def renew(connection: sa.Connection, leases: Sequence[Lease], owner: str, now: float, seconds: float) -> set[str]:
    """Prolong leases; answers the names that are still ours."""
    kept: set[str] = set()
    for lease in sorted(leases, key=lambda lease: lease.name):
        changed = connection.execute(
            tables.leases.update()
            .where(tables.leases.c.name == lease.name)
            .where(tables.leases.c.owner == owner)
            .where(tables.leases.c.token == lease.token)
            .values(until=now + seconds)
        )
        if changed.rowcount == 1:
            kept.add(lease.name)
    return kept


def give_back(connection: sa.Connection, leases: Sequence[Lease]) -> None:
    """Let others take the leases at once."""
    for lease in sorted(leases, key=lambda lease: lease.name):
        connection.execute(
            tables.leases.update()
            .where(tables.leases.c.name == lease.name)
            .where(tables.leases.c.token == lease.token)
            .values(until=0.0)
        )


def guard(connection: sa.Connection, lease: Lease) -> None:
    """Hold the lease's row until this transaction ends; LostLease when the token is no longer the one we hold."""
    query = sa.select(tables.leases.c.token).where(tables.leases.c.name == lease.name).with_for_update()
    if connection.execute(query).scalar() != lease.token:
        raise LostLease(f"The lease {lease.name} is held by another process now.")
