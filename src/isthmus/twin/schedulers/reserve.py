"""Conservative backfilling, compiled: every waiting job holds a reservation; each termination moves them up in queue order.

Mu'alem and Feitelson 2001, with the compression of the simulator pyss.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.twin.schedulers.heap import heap_pop, heap_push

FOREVER = np.int64(2**62)


@njit(cache=True)
def conservative_waits(submit, run, width, estimate, processors):  # type: ignore[no-untyped-def]
    """Waits in seconds; all columns int64 and in order of submission, with run <= estimate."""
    jobs = len(submit)
    start = np.zeros(jobs, np.int64)
    queue = np.empty(jobs, np.int64)  # waiting jobs, in order of arrival
    queued = 0
    # The profile: `free[i]` processors from `times[i]` to `times[i + 1]`, the last for ever.
    times = np.empty(4 * jobs + 4, np.int64)
    free = np.empty(4 * jobs + 4, np.int64)
    times[0] = submit[0] if jobs else 0
    free[0] = processors
    size = 1
    heap_time = np.empty(jobs, np.int64)
    heap_job = np.empty(jobs, np.int64)
    ends = 0
    arrived = 0
    while arrived < jobs or ends > 0 or queued > 0:
        now = FOREVER
        kind = 0
        if arrived < jobs:
            now = submit[arrived]
        if ends > 0 and heap_time[0] < now:
            now = heap_time[0]
            kind = 1
        for i in range(queued):
            if start[queue[i]] < now:
                now = start[queue[i]]
                kind = 2
        gone = 0
        while gone + 1 < size and times[gone + 1] <= now:
            gone += 1
        if gone:
            for i in range(gone, size):
                times[i - gone] = times[i]
                free[i - gone] = free[i]
            size -= gone
        times[0] = now
        if kind == 0:
            job = arrived
            arrived += 1
            start[job] = earliest(times, free, size, width[job], estimate[job])
            size = take(times, free, size, start[job], start[job] + estimate[job], width[job])
            queue[queued] = job
            queued += 1
        elif kind == 1:
            job = heap_job[0]
            ends = heap_pop(heap_time, heap_job, ends)
            if start[job] + estimate[job] > now:
                size = take(times, free, size, now, start[job] + estimate[job], -width[job])
            for i in range(queued):
                job = queue[i]
                if start[job] <= now:
                    continue
                size = take(times, free, size, start[job], start[job] + estimate[job], -width[job])
                start[job] = earliest(times, free, size, width[job], estimate[job])
                size = take(times, free, size, start[job], start[job] + estimate[job], width[job])
        kept = 0
        for i in range(queued):
            job = queue[i]
            if start[job] <= now:
                ends = heap_push(heap_time, heap_job, ends, start[job] + run[job], job)
            else:
                queue[kept] = job
                kept += 1
        queued = kept
    return start - submit


@njit(cache=True)
def earliest(times, free, size, width, length):  # type: ignore[no-untyped-def]
    i = 0
    while True:
        while free[i] < width:
            i += 1
        k = i + 1
        while k < size and times[k] < times[i] + length and free[k] >= width:
            k += 1
        if k >= size or times[k] >= times[i] + length:
            return times[i]
        i = k


@njit(cache=True)
def _split(times, free, size, time):  # type: ignore[no-untyped-def]
    i = size
    while times[i - 1] > time:
        i -= 1
    if times[i - 1] == time:
        return size, i - 1
    for k in range(size, i, -1):
        times[k] = times[k - 1]
        free[k] = free[k - 1]
    times[i] = time
    free[i] = free[i - 1]
    return size + 1, i


@njit(cache=True)
def take(times, free, size, begin, finish, width):  # type: ignore[no-untyped-def]
    size, a = _split(times, free, size, begin)
    size, b = _split(times, free, size, finish)
    for i in range(a, b):
        free[i] -= width
    # Neighbours that became alike are joined, so that the profile stays as short as what it says.
    if b < size and free[b] == free[b - 1]:
        for k in range(b, size - 1):
            times[k] = times[k + 1]
            free[k] = free[k + 1]
        size -= 1
    if a > 0 and free[a] == free[a - 1]:
        for k in range(a, size - 1):
            times[k] = times[k + 1]
            free[k] = free[k + 1]
        size -= 1
    return size
