"""The visible queues of sites in the store: the owner of a site writes what it saw, whoever places reads what is new."""

from __future__ import annotations

import zlib
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from isthmus.domain.queue import SiteQueue
from isthmus.store import tables
from isthmus.store.documents import dump, load


def keep(connection: sa.Connection, site: str, now: float, queue: SiteQueue | None) -> None:
    """Store a look at a site's queue; a queue that did not change since the last look costs no more than its time."""
    q = tables.site_queues
    there = connection.execute(sa.select(q.c.digest).where(q.c.site == site)).one_or_none()
    if queue is None:
        if there is not None:
            connection.execute(q.delete().where(q.c.site == site))
        return
    text = dump(replace(queue, at=0.0)).encode()
    digest = blake2b(text, digest_size=16).hexdigest()
    values: dict[str, Any] = {"at": queue.at, "seen_at": now}
    if there is None or there.digest != digest:
        values |= {"digest": digest, "body": zlib.compress(text, 1)}
    if there is None:
        connection.execute(q.insert().values(site=site, **values))
    else:
        connection.execute(q.update().where(q.c.site == site).values(**values))


def newer(connection: sa.Connection, than: dict[str, float]) -> list[tuple[str, float, float, bytes]]:
    """(site, the site's clock, ours, body) of every queue that was looked at since `than`, by site."""
    q = tables.site_queues.c
    seen = connection.execute(sa.select(q.site, q.at, q.seen_at)).all()
    fresh = [row.site for row in seen if row.seen_at != than.get(row.site)]  # clocks are set back
    if not fresh:
        return []
    query = sa.select(q.site, q.at, q.seen_at, q.body).where(q.site.in_(fresh)).order_by(q.site)
    return [(row.site, row.at, row.seen_at, row.body) for row in connection.execute(query)]


def read(at: float, body: bytes) -> SiteQueue:
    """The queue in a row's body."""
    return replace(load(SiteQueue, zlib.decompress(body)), at=at)
