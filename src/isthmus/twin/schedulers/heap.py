"""A binary heap of (time, job) in two arrays, compiled: the terminations to come; at equal times the earlier job first."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def heap_push(times, jobs, size, time, job):  # type: ignore[no-untyped-def]
    """The size after adding (time, job); the arrays must have room."""
    i = size
    while i > 0:
        parent = (i - 1) // 2
        if times[parent] < time or (times[parent] == time and jobs[parent] < job):
            break
        times[i] = times[parent]
        jobs[i] = jobs[parent]
        i = parent
    times[i] = time
    jobs[i] = job
    return size + 1


@njit(cache=True)
def heap_pop(times, jobs, size):  # type: ignore[no-untyped-def]
    """The size after taking away the first entry, which the caller has read at index 0."""
    size -= 1
    time = times[size]
    job = jobs[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            times[other] < times[child] or (times[other] == times[child] and jobs[other] < jobs[child])
        ):
            child = other
        if time < times[child] or (time == times[child] and job < jobs[child]):
            break
        times[i] = times[child]
        jobs[i] = jobs[child]
        i = child
    times[i] = time
    jobs[i] = job
    return size
