"""A small cluster whose queue can be looked at."""

from __future__ import annotations

import heapq

import numpy as np

from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.domain.site import Pool


class Cluster:
    """16 processors served strictly in the order of arrival; users ask for an hour and use about a third of it."""

    def __init__(self, seed: int, load: float) -> None:
        draw = np.random.default_rng(seed)
        self.now = 1.8e9
        self.jobs: list[QueuedJob] = []
        at, free = self.now, [self.now] * 16
        for number in range(800):
            at += draw.exponential(1200 * 4 / 16 / load)
            wide = int(draw.integers(1, 8))
            heapq.heapify(free)
            start = max(at, *heapq.nsmallest(wide, free))
            run = float(draw.gamma(4.0, 300.0))
            for _ in range(wide):
                heapq.heapreplace(free, start + run)
            job = QueuedJob(
                id=str(number),
                pools=("cpu",),
                user=f"u{number % 5}",
                processors=wide,
                limit_seconds=3600,
                submitted_at=at,
                started_at=start,
                expected_at=start + run,
            )
            self.jobs.append(job)

    def look(self, at: float) -> SiteQueue:
        """What squeue would show."""
        rows = []
        for job in self.jobs:
            assert job.submitted_at is not None
            assert job.started_at is not None
            assert job.expected_at is not None
            if job.submitted_at <= at < job.expected_at:
                running = job.started_at <= at
                rows.append(
                    QueuedJob(
                        id=job.id,
                        pools=job.pools,
                        user=job.user,
                        running=running,
                        processors=job.processors,
                        limit_seconds=3600,
                        submitted_at=job.submitted_at,
                        started_at=job.started_at if running else None,
                    )
                )
        return SiteQueue(at=at, jobs=tuple(rows))


def pool_of(queue: SiteQueue) -> Pool:
    """The pool as sinfo would show it."""
    used = sum(job.processors for job in queue.jobs if job.running)
    waiting = [job for job in queue.jobs if not job.running]
    return Pool(name="cpu", nodes=4, cpus_per_node=4, free_cpus=max(0, 16 - used), queued_jobs=len(waiting))
