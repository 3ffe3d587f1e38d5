"""The visible queue of a site in the store."""

from __future__ import annotations

import sqlalchemy as sa

from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.engine import queues
from isthmus.store import tables
from isthmus.store.database import Database

JOBS = (
    QueuedJob(id="1", pools=("cpu",), running=True, processors=8, limit_seconds=600, started_at=5.0),
    QueuedJob(id="2", pools=("cpu", "gpu"), user="ab12", submitted_at=6.0, expected_at=90.0),
)


async def test_a_queue_is_kept_as_it_was_seen_and_read_once(store: Database) -> None:
    """What is kept comes back the same; the next reader asks only for newer looks; a change is seen."""
    await store.write(queues.keep, "alpha", 100.0, SiteQueue(at=90.0, jobs=JOBS, left_out={"cpu": 3}))
    ((site, at, seen_at, body),) = await store.read(queues.newer, {})
    assert (site, queues.read(at, body)) == ("alpha", SiteQueue(at=90.0, jobs=JOBS, left_out={"cpu": 3}))
    assert await store.read(queues.newer, {"alpha": seen_at}) == []
    await store.write(queues.keep, "alpha", 110.0, SiteQueue(at=100.0, jobs=JOBS[:1]))
    ((_, at, _, body),) = await store.read(queues.newer, {"alpha": seen_at})
    assert queues.read(at, body).jobs == JOBS[:1]


async def test_a_look_is_new_after_the_clock_was_set_back(store: Database) -> None:
    """It is another look, though its time is before that of the last one."""
    await store.write(queues.keep, "alpha", 1000.0, SiteQueue(at=90.0, jobs=JOBS))
    await store.write(queues.keep, "alpha", 400.0, SiteQueue(at=100.0, jobs=JOBS[:1]))
    ((_, at, seen_at, _),) = await store.read(queues.newer, {"alpha": 1000.0})
    assert (at, seen_at) == (100.0, 400.0)


async def test_a_queue_that_stays_is_not_written_again(store: Database) -> None:
    """Only the time of the look moves; a site that shows no queue any more has none."""

    def stored(connection: sa.Connection) -> list[tuple[float, bytes]]:
        return [(row.at, row.body) for row in connection.execute(tables.site_queues.select())]

    await store.write(queues.keep, "alpha", 100.0, SiteQueue(at=90.0, jobs=JOBS))
    ((_, before),) = await store.read(stored)
    await store.write(queues.keep, "alpha", 110.0, SiteQueue(at=100.0, jobs=JOBS))
    assert await store.read(stored) == [(100.0, before)]
    await store.write(queues.keep, "alpha", 120.0, None)
    assert await store.read(stored) == []
