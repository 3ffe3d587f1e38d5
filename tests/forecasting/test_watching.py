"""Watching a site's queue: jobs come, start and end between looks, and waits are foretold from what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.domain.site import Pool
from isthmus.forecasting.condensing import MOST, Job, view_of
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.watching import FEW, EndedJob, SiteWatch
from tests.forecasting.cluster import Cluster, pool_of

LOOK = 60.0
POOL = Pool(name="cpu", nodes=4, cpus_per_node=4)


@pytest.fixture(scope="module")
def watched() -> tuple[SiteWatch, Cluster, list[EndedJob], float]:
    """A watch of a busy cluster over half of its jobs."""
    cluster, watch, ended = Cluster(3, 0.8), SiteWatch(), list[EndedJob]()
    at, until = cluster.now, cluster.jobs[450].submitted_at or 0.0
    while at < until:
        queue = cluster.look(at)
        ended += watch.look(queue, [pool_of(queue)])
        if watch.due:
            watch.train()
        at += LOOK
    return watch, cluster, ended, at


def test_what_ended_is_seen_with_its_times(watched: tuple[SiteWatch, Cluster, list[EndedJob], float]) -> None:
    """Nearly every job that ended is told, its start exactly, its end to a look."""
    _, cluster, ended, at = watched
    truth = {job.id: job for job in cluster.jobs if (job.expected_at or 0.0) < at - LOOK}
    told = {job.id: job for job in ended}
    assert len(set(truth) & set(told)) > 0.9 * len(truth)
    for job in ended:
        assert job.started_at == truth[job.id].started_at if job.id in truth else True
        assert abs(job.ended_at - (cluster.jobs[int(job.id)].expected_at or 0.0)) <= LOOK


def test_waits_are_foretold_better_than_by_the_work_ahead(
    watched: tuple[SiteWatch, Cluster, list[EndedJob], float],
) -> None:
    """Over the second half: nearer than the work ahead over the pool's size, and 90 % of the waits are below p90, +- 8 %."""
    watch, cluster, _, at = watched
    ours, fluid, below = [], [], []
    for job in cluster.jobs[460:760]:
        while at < (job.submitted_at or 0.0):
            queue = cluster.look(at)
            watch.look(queue, [pool_of(queue)])
            at += LOOK
        found = watch.forecast("cpu", job.processors, 3600)
        assert found is not None
        assert found.source is Source.LEARNED
        seen = cluster.look(at - LOOK)
        ahead = sum(
            row.processors * (3600 - ((at - LOOK - row.started_at) if row.started_at else 0)) for row in seen.jobs
        )
        wait = (job.started_at or 0.0) - (job.submitted_at or 0.0)
        fluid.append(abs(ahead / 16 - wait))
        ours.append(abs(found.point - wait))
        below.append(wait <= found.p90 + 1)
    assert np.mean(ours) < 0.5 * np.mean(fluid)
    assert abs(np.mean(below) - 0.9) <= 0.08


def test_nothing_is_foretold_before_enough_was_seen() -> None:
    """A pool that is not known, one job wider than the pool, and a watch that saw one look give no forecast."""
    cluster, watch = Cluster(4, 0.5), SiteWatch()
    watch.look(cluster.look(cluster.now + 9000), [POOL])
    assert watch.forecast("cpu", 1, 600) is None
    assert watch.forecast("gpu", 1, 600) is None


def test_a_new_watch_learns_again_from_what_an_earlier_one_saw(
    watched: tuple[SiteWatch, Cluster, list[EndedJob], float],
) -> None:
    """After a replay a look is enough for a forecast."""
    _, cluster, ended, at = watched
    watch = SiteWatch()
    watch.replay(ended[-300:], [POOL])
    assert watch.outcomes("cpu") >= FEW
    queue = cluster.look(at)
    watch.look(queue, [pool_of(queue)])
    found = watch.forecast("cpu", 2, 3600)
    assert found is not None
    assert found.p10 <= found.p50 <= found.p90


def test_a_service_that_was_off_learns_nothing_false() -> None:
    """After a long gap no job counts as ended or waited in it."""
    cluster, watch = Cluster(5, 0.8), SiteWatch()
    watch.look(cluster.look(cluster.now + 20_000), [POOL])
    assert watch.look(cluster.look(cluster.now + 60_000), [POOL]) == []
    assert watch.outcomes("cpu") == 0


def test_held_jobs_and_jobs_of_several_pools_teach_nothing() -> None:
    """Their wait is not that of the queue."""
    watch = SiteWatch()
    watch.look(SiteQueue(at=1000.0), [POOL])
    odd = QueuedJob(id="1", pools=("cpu",), processors=1, limit_seconds=60, submitted_at=1010.0, held=True)
    both = QueuedJob(id="2", pools=("cpu", "gpu"), processors=1, limit_seconds=60, submitted_at=1010.0)
    watch.look(SiteQueue(at=1030.0, jobs=(odd, both)), [POOL])
    began = [
        QueuedJob(id=job.id, pools=("cpu",), running=True, submitted_at=1010.0, started_at=1040.0)
        for job in (odd, both)
    ]
    watch.look(SiteQueue(at=1060.0, jobs=tuple(began)), [POOL])
    assert watch.outcomes("cpu") == 0


def test_a_long_queue_becomes_a_short_view_with_the_same_work() -> None:
    """At most so many rows, and processor seconds stay, of what was left out too."""
    run = Forecast(point=50, p10=10, p50=50, p90=90, source=Source.LEARNED)
    queued = [Job(processors=1 + n % 7, requested_seconds=100 + n, run=run) for n in range(1000)]
    running = [Job(processors=2, requested_seconds=1000, elapsed_seconds=n, run=run) for n in range(500)]
    work = sum(job.processors * job.requested_seconds for job in queued)
    pool = Pool(name="cpu", nodes=300, cpus_per_node=4, free_cpus=0, queued_cpu_seconds=work + 1e6, queued_jobs=1100)
    view = view_of(pool, running, queued, left_out=100)
    assert (len(view.running), len(view.queued)) == (MOST, MOST)
    assert view.running.sum() == view.processors == 1000
    assert float(view.queued @ view.queued_requested) == pytest.approx(work + 1e6, rel=0.03)


def test_the_queue_is_told_with_the_times_that_are_expected() -> None:
    """Before anything is learned a job is expected to run to its limit, one that runs for what is left of it; held ones are left out."""
    watch = SiteWatch()
    jobs = (
        QueuedJob(
            id="1", pools=("cpu",), running=True, processors=2, limit_seconds=100, submitted_at=0.0, started_at=40.0
        ),
        QueuedJob(id="2", pools=("cpu", "gpu"), processors=3, limit_seconds=60, submitted_at=50.0),
        QueuedJob(id="3", pools=("cpu",), held=True, processors=9, limit_seconds=60, submitted_at=50.0),
        QueuedJob(id="4", pools=("gpu",), processors=9, limit_seconds=60, submitted_at=50.0),
    )
    watch.look(SiteQueue(at=60.0, jobs=jobs), [POOL])
    told = [(job.id, job.running, job.processors, job.seconds) for job in watch.expected("cpu")]
    assert told == [("1", True, 2, 80.0), ("2", False, 3, 60.0)]
