"""A scheduler that works in cycles, as Slurm's does with plain priorities: compiled, in milliseconds.

Each submission and each release of processors starts jobs from the head of the queue, in order of arrival, until one does not fit. Every
`backfill_seconds` a backfilling pass plans the whole queue anew: each waiting job in turn starts if it delays no
reservation of those before it, or else gets one itself. What is documented of Slurm: slurm.conf(5), SchedulerParameters
(bf_interval, bf_window_linear), and https://slurm.schedmd.com/sched_config.html. Left out: on which nodes a
job is, and that reservations are rounded to bf_resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.schedulers.heap import heap_pop, heap_push
from isthmus.twin.schedulers.reserve import take
from isthmus.twin.schedulers.simulate import Workload

FOREVER = np.int64(2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """How a site's scheduler goes round.

    `backfill_seconds`: between two backfilling passes, more than 0 (Slurm: bf_interval). `window_seconds`: how coarsely it
    sees when running jobs end: all that end so soon after the next one are one step, and each step is twice as long as the
    one before (Slurm: 30); 0: exactly. `node_processors`: reservations hold whole nodes of so many. Two latencies, to be measured on
    the idle site: `notice_seconds` from a submission until the scheduler looks at the job; `release_seconds` from the
    recorded end of a job until its processors are given again (Slurm: the state COMPLETING, then the next pass).
    """

    backfill_seconds: float
    window_seconds: float = 0.0
    node_processors: int = 1
    notice_seconds: float = 0.0
    release_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.backfill_seconds < 0.001:
            raise Invalid("backfill_seconds", "A cycle takes at least a millisecond.", remedy="Give more than 0.")
        for name in ("window_seconds", "notice_seconds", "release_seconds"):
            if getattr(self, name) < 0:
                raise Invalid(name, "It is not negative.", remedy="Give 0 or more.")
        if self.node_processors < 1:
            raise Invalid("node_processors", "A node has a processor at least.", remedy="Give 1 or more.")


def cyclic_waits(log: Workload, processors: int, cycle: Cycle) -> NDArray[np.float64]:
    """Waits in seconds, in the log's order, of its jobs on `processors` alike processors; requests are the estimates.

    Submissions and run times may be fractions of a second. Invalid where a job cannot run.
    """
    submit, run, request = (_ms(column) for column in (log.submit_seconds, log.run_seconds, log.requested_seconds))
    width = np.ascontiguousarray(log.requested_processors, dtype=np.int64)
    bad = int(((run < 1) | (request < 1) | (width < 1) | (width > processors)).sum())
    if bad:
        raise Invalid("log", f"{bad} jobs have no run time, request or fitting width.", remedy="Leave them out first.")
    order = np.argsort(submit, kind="stable")
    starts = np.empty(len(submit), dtype=np.int64)
    starts[order] = _cyclic_starts(
        submit[order] + round(1000 * cycle.notice_seconds),
        run[order],
        width[order],
        request[order],
        processors,
        round(1000 * cycle.backfill_seconds),
        round(1000 * cycle.release_seconds),
        round(1000 * cycle.window_seconds),
        cycle.node_processors,
    )
    waits: NDArray[np.float64] = (starts - submit) / 1000.0
    return waits


def _ms(seconds: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.rint(1000 * np.asarray(seconds, dtype=np.float64)).astype(np.int64)


@njit(cache=True)
def _cyclic_starts(submit, run, width, request, processors, interval, release, window, node):  # type: ignore[no-untyped-def]
    jobs = len(submit)
    start = np.full(jobs, -1, np.int64)
    queue = np.empty(jobs, np.int64)  # in order of arrival
    running = np.empty(jobs, np.int64)
    heap_time = np.empty(jobs, np.int64)
    heap_job = np.empty(jobs, np.int64)
    times = np.empty(4 * jobs + 4, np.int64)
    free = np.empty(4 * jobs + 4, np.int64)
    until = np.empty(jobs, np.int64)  # when the running jobs end by their requests, sorted for a pass
    queued = 0
    count = 0
    ends = 0
    arrived = 0
    idle = processors
    tick = np.int64(0)
    while arrived < jobs or queued > 0:
        now = FOREVER
        if arrived < jobs:
            now = submit[arrived]
        if ends > 0:
            now = min(now, heap_time[0])
        if queued > 0:
            now = min(now, tick)
        while ends > 0 and heap_time[0] <= now:
            job = heap_job[0]
            ends = heap_pop(heap_time, heap_job, ends)
            idle += width[job]
            place = 0
            while running[place] != job:
                place += 1
            count -= 1
            running[place] = running[count]
        while arrived < jobs and submit[arrived] <= now:
            if queued == 0:
                tick = (submit[arrived] // interval + 1) * interval
            queue[queued] = arrived
            queued += 1
            arrived += 1
        backfill = queued > 0 and tick <= now
        if backfill:
            tick = (now // interval + 1) * interval
            times[0] = now
            free[0] = processors
            size = 1
            for i in range(count):
                # A job that outlives its request is expected to end at any moment.
                until[i] = max(start[running[i]] + request[running[i]], now + 1)
                size = take(times, free, size, now, until[i], width[running[i]])
            until[:count].sort()
            ending = count  # of those, how many were running when the pass began
        kept = 0
        for i in range(queued):
            job = queue[i]
            begins = width[job] <= idle and kept == 0
            if backfill:
                at = _earliest(times, free, size, width[job], request[job], now)
                while at > now:
                    seen = _seen_end(until, ending, window, at)
                    at = _earliest(times, free, size, width[job], request[job], seen)
                    if at == seen:
                        break
                begins = at == now
                held = width[job] if begins else -(-width[job] // node) * node
                size = take(times, free, size, at, at + request[job], held)
            if begins:
                start[job] = now
                idle -= width[job]
                running[count] = job
                count += 1
                ends = heap_push(heap_time, heap_job, ends, now + run[job] + release, job)
            else:
                queue[kept] = job
                kept += 1
        queued = kept
    return start


@njit(cache=True)
def _earliest(times, free, size, width, length, begin):  # type: ignore[no-untyped-def]
    """When, not before `begin`, the profile has so many processors free for so long."""
    i = 0
    while i + 1 < size and times[i + 1] <= begin:
        i += 1
    at = max(times[i], begin)
    while True:
        while free[i] < width:
            i += 1
            at = times[i]
        k = i + 1
        while k < size and times[k] < at + length and free[k] >= width:
            k += 1
        if k >= size or times[k] >= at + length:
            return at
        i = k
        at = times[i]


@njit(cache=True)
def _seen_end(until, count, window, at):  # type: ignore[no-untyped-def]
    """The end of the step that `at` lies in, or `at` itself where no job that runs ends in the same step."""
    i = 0
    while window > 0 and i < count and until[i] <= at:
        last = i
        while last + 1 < count and until[last + 1] <= until[i] + window:
            last += 1
        if at <= until[last]:
            return until[last]
        i = last + 1
        window *= 2
    return at
