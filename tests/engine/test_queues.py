"""The visible queue of a site in the store."""

from __future__ import annotations

import sqlalchemy as sa

from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.domain.site import OwnShare, Pool, SiteDescription
from isthmus.engine import queues
from isthmus.engine.describing import with_own
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import join

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


async def test_a_job_whose_id_was_not_told_yet_is_not_a_stranger(store: Database) -> None:
    """One attempt is known at the site by its id, two are being submitted: of the jobs that look like those the two newest are ours."""
    join(store)
    common: dict[str, object] = {
        "task_id": "t",
        "project": "p",
        "user": "ada",
        "site": "null",
        "pool": "cpu",
        "account": "",
        "cpus": 4,
    }
    common |= {"nodes": 1, "memory_bytes": 1, "accelerators": 0, "walltime_seconds": 170, "number": 1, "fence": 1}
    common |= {"created_at": 1.0, "updated_at": 1.0}
    states = (("running", "9"), ("submitting", ""), ("submitting", ""), ("placed", ""))
    rows = [{**common, "key": f"k{n}", "state": state, "native_id": native} for n, (state, native) in enumerate(states)]
    store.write_now(lambda connection: connection.execute(tables.attempts.insert(), rows))
    alike = [QueuedJob(id=str(n), pools=("cpu",), processors=4, limit_seconds=180) for n in (10, 11, 12)]
    others = [
        QueuedJob(id="13", pools=("cpu",), processors=2, limit_seconds=180),
        QueuedJob(id="14", pools=("gpu",), processors=4, limit_seconds=180),
    ]
    ran = QueuedJob(id="9", pools=("cpu",), running=True, processors=4, limit_seconds=180, started_at=40.0)
    queue = SiteQueue(at=100.0, jobs=(ran, *alike, *others))
    told = SiteDescription(kind="slurm", version="1", pools=(Pool(name="cpu"), Pool(name="gpu")), queue=queue)
    cpu, gpu = store.read_now(with_own, "null", told).pools
    assert cpu.own == OwnShare(running_cpus=4, queued_jobs=2, cpu_seconds=4 * 120.0 + 2 * 4 * 180.0)
    assert gpu.own == OwnShare()
