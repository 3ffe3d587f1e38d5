"""A pool's jobs as a `QueueView` of bounded size: playing a queue forward costs more than the square of its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isthmus.domain.site import Pool
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.queueview import QueueView, belief

MOST = 128  # rows of each kind in a view


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: processors, seconds that it ran and may run, and what is believed of its run time."""

    processors: int
    requested_seconds: int
    run: Forecast
    elapsed_seconds: int = 0


def view_of(pool: Pool, running: Sequence[Job], queued: Sequence[Job], *, left_out: int = 0) -> QueueView:
    """The view; `queued` in the order of service. Of more jobs than `MOST` neighbours are joined to one.

    Its processors are those that run something or are free, so that nodes which are down, or busy for another pool, do
    not count. With `left_out` jobs that are in the pool's sums alone, what the rows lack of the sums waits last.
    """
    busy = sum(job.processors for job in running)
    free = pool.cpus - busy if pool.free_cpus is None else pool.free_cpus
    room = min(busy + max(0, free), max(busy, pool.cpus))
    size = max(1, room, max((job.processors for job in queued), default=1))
    waiting = list(queued)
    if left_out:
        missing = pool.queued_cpu_seconds - sum(job.processors * job.requested_seconds for job in queued)
        seconds = max(0.0, missing) / size
        if seconds >= 1:
            run = Forecast(point=seconds, p10=seconds, p50=seconds, p90=seconds, source=Source.DECLARED)
            waiting.append(Job(processors=size, requested_seconds=int(seconds), run=run))
    short = _joined(sorted(running, key=lambda job: job.requested_seconds - job.elapsed_seconds), widths_add=True)
    line = _joined(waiting, widths_add=False)
    return QueueView(
        processors=size,
        running=np.array([job.processors for job in short], np.int64),
        running_elapsed=np.array([job.elapsed_seconds for job in short], np.int64),
        running_requested=np.array([job.requested_seconds for job in short], np.int64),
        running_belief=belief([job.run for job in short]),
        queued=np.array([job.processors for job in line], np.int64),
        queued_requested=np.array([job.requested_seconds for job in line], np.int64),
        queued_belief=belief([job.run for job in line]),
    )


def _joined(jobs: Sequence[Job], *, widths_add: bool) -> list[Job]:
    """At most `MOST` jobs: neighbours become one, beside one another (`widths_add`) or with the same work in the widest's width."""
    if len(jobs) <= MOST:
        return list(jobs)
    bounds = np.linspace(0, len(jobs), MOST + 1).astype(int).tolist()
    return [_one(jobs[a:b], widths_add=widths_add) for a, b in pairwise(bounds)]


def _one(jobs: Sequence[Job], *, widths_add: bool) -> Job:
    if len(jobs) == 1:
        return jobs[0]
    weights = np.array([job.processors for job in jobs], np.float64)
    width = int(weights.sum() if widths_add else weights.max())

    def over(values: Sequence[float]) -> float:
        return float(weights @ np.array(values) / width)

    p10, p50, p90 = (over([getattr(job.run, name) for job in jobs]) for name in ("p10", "p50", "p90"))
    return Job(
        processors=width,
        requested_seconds=max(1, int(over([job.requested_seconds for job in jobs]))),
        elapsed_seconds=int(over([job.elapsed_seconds for job in jobs])),
        run=Forecast(point=over([job.run.point for job in jobs]), p10=p10, p50=p50, p90=p90, source=jobs[0].run.source),
    )
