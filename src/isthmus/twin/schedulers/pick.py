"""The scheduling of RLScheduler's environment (Zhang et al., SC 2020), compiled, its oddities kept, to compare with it.

One job is picked by priority and stays picked until it fits; nothing else starts meanwhile, except by backfilling: in
order of arrival, jobs whose request ends strictly before the picked job's shadow time, which is found once. Arrivals are
seen only when the picked job does not fit or nothing waits.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def pick_waits(submit, run, width, request, priority, second, processors, backfilling):  # type: ignore[no-untyped-def]
    """Waits in seconds of jobs in order of arrival; the lowest (`priority`, `second`) is picked, the first of equals."""
    jobs = len(submit)
    start = np.full(jobs, -1, np.int64)
    queue = np.empty(jobs, np.int64)
    running = np.empty(processors, np.int64)
    ends = np.empty(processors, np.int64)
    queue[0] = 0
    queued = 1
    count = 0
    arrived = 1
    free = processors
    now = submit[0]
    while True:
        _sort(queue, queued, priority, second)
        picked = queue[0]
        shadow = now
        if width[picked] > free:
            for i in range(count):
                ends[i] = start[running[i]] + request[running[i]]
            _sort_running(running, ends, count)
            room = free
            for i in range(count):
                room += width[running[i]]
                shadow = ends[i]
                if room >= width[picked]:
                    break
        while width[picked] > free:
            if backfilling:
                _sort(queue, queued, submit, submit)
                kept = 0
                for i in range(queued):
                    job = queue[i]
                    if now + request[job] < shadow and width[job] <= free:
                        start[job] = now
                        free -= width[job]
                        running[count] = job
                        count += 1
                    else:
                        queue[kept] = job
                        kept += 1
                queued = kept
            now, free, count, arrived, queued = _step(
                now, free, count, arrived, queued, submit, run, width, start, running, ends, queue
            )
        start[picked] = now
        free -= width[picked]
        running[count] = picked
        count += 1
        place = 0
        while queue[place] != picked:
            place += 1
        for i in range(place, queued - 1):
            queue[i] = queue[i + 1]
        queued -= 1
        if queued == 0 and arrived == jobs:
            return start - submit
        while queued == 0:
            now, free, count, arrived, queued = _step(
                now, free, count, arrived, queued, submit, run, width, start, running, ends, queue
            )


@njit(cache=True)
def _step(now, free, count, arrived, queued, submit, run, width, start, running, ends, queue):  # type: ignore[no-untyped-def]
    for i in range(count):
        ends[i] = start[running[i]] + run[running[i]]
    _sort_running(running, ends, count)
    if arrived < len(submit) and (count == 0 or submit[arrived] <= ends[0]):
        queue[queued] = arrived
        return max(now, submit[arrived]), free, count, arrived + 1, queued + 1
    now = max(now, ends[0])
    free += width[running[0]]
    for i in range(count - 1):
        running[i] = running[i + 1]
    return now, free, count - 1, arrived, queued


@njit(cache=True)
def _sort(queue, queued, first, second):  # type: ignore[no-untyped-def]
    # Insertion keeps the order of equals, as the environment's sort does, and the queue is nearly sorted.
    for i in range(1, queued):
        job = queue[i]
        k = i
        while k > 0:
            other = queue[k - 1]
            if first[other] < first[job] or (first[other] == first[job] and second[other] <= second[job]):
                break
            queue[k] = other
            k -= 1
        queue[k] = job


@njit(cache=True)
def _sort_running(running, ends, count):  # type: ignore[no-untyped-def]
    for i in range(1, count):
        job = running[i]
        end = ends[i]
        k = i
        while k > 0 and ends[k - 1] > end:
            running[k] = running[k - 1]
            ends[k] = ends[k - 1]
            k -= 1
        running[k] = job
        ends[k] = end
