"""Schedulers that plan the whole queue anew at each event, compiled; processors may fail, be repaired, be drained.

The queue is put in order; whoever can start now without delaying a reservation starts, and some of those who cannot get a
reservation. The schedulers differ in the order and in who gets one: EASY gives it to the first that cannot start (SJBF tries the
others by estimate), conservative to all, selective to those that have waited long for their length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from isthmus.twin.schedulers.heap import heap_pop, heap_push
from isthmus.twin.schedulers.reserve import earliest, take

FOREVER = np.int64(2**62)
FCFS, EASY, SELECTIVE, SJBF, CONSERVATIVE = 0, 1, 2, 3, 4
SHORTEST = 10.0  # seconds: the bound of the bounded slowdown


class Weights(NamedTuple):
    """Selective's order, the lowest first: log(request) + width * log(processors) - stretch * log(expected slowdown).

    The expected slowdown is (wait + request) / request; a job that has reached `reserved_stretch` gets a reservation.
    """

    width: float
    stretch: float
    reserved_stretch: float


# Found by `benchmarks.selective_search`, then rounded: smallest area first, width counting a little more
# than length; those long kept from starting come sooner.
TRAINED = Weights(width=1.2, stretch=0.4, reserved_stretch=4.0)


@njit(cache=True)
def replan_starts(submit, run, width, estimate, processors, mode, weights, begin, finish, lose, drain, by_finish):  # type: ignore[no-untyped-def]
    """Start of each job's last attempt, its attempts, and the processor-seconds lost with killed attempts.

    Jobs in order of arrival, outages in order of `begin`; whole seconds. `lose` processors are gone from `begin` to
    `finish`: where `drain`, as they become free; else at once, killing the jobs that started last, which wait again.
    """
    jobs = len(submit)
    outages = len(begin)
    start = np.full(jobs, -1, np.int64)
    attempts = np.zeros(jobs, np.int64)
    active = np.zeros(jobs, np.bool_)
    queue = np.empty(jobs, np.int64)
    key = np.empty(jobs, np.float64)
    fixed = np.empty(jobs, np.float64)
    for job in range(jobs):
        fixed[job] = math.log(max(float(estimate[job]), SHORTEST)) + weights.width * math.log(width[job])
    running = np.empty(jobs, np.int64)  # in order of start
    heap_time = np.empty(jobs, np.int64)
    heap_job = np.empty(jobs, np.int64)
    times = np.empty(4 * jobs + 4, np.int64)
    free = np.empty(4 * jobs + 4, np.int64)
    taken = np.zeros(outages, np.int64)
    owed = np.zeros(outages, np.int64)
    missing = 0
    owing = 0
    wasted = 0
    queued = 0
    count = 0
    ends = 0
    used = 0
    arrived = 0
    begun = 0
    finished = 0
    while arrived < jobs or ends > 0 or queued > 0:
        now = FOREVER
        if arrived < jobs:
            now = submit[arrived]
        if ends > 0:
            now = min(now, heap_time[0])
        if begun < outages:
            now = min(now, begin[begun])
        if finished < outages:
            now = min(now, finish[by_finish[finished]])
        while ends > 0 and heap_time[0] <= now:
            job = heap_job[0]
            # An entry of a killed attempt is passed over.
            if active[job] and start[job] + run[job] == heap_time[0]:
                active[job] = False
                used -= width[job]
                count = _forget(running, count, job)
            ends = heap_pop(heap_time, heap_job, ends)
        while arrived < jobs and submit[arrived] <= now:
            queue[queued] = arrived
            queued += 1
            arrived += 1
        while finished < outages and finish[by_finish[finished]] <= now:
            outage = by_finish[finished]
            missing -= taken[outage]
            owing -= owed[outage]
            taken[outage] = 0
            owed[outage] = 0
            finished += 1
        while begun < outages and begin[begun] <= now:
            if finish[begun] > now:
                # A failure takes what it needs before a drain that is still waiting does.
                while not drain[begun] and count > 0 and processors - missing - used < lose[begun]:
                    count -= 1
                    job = running[count]
                    active[job] = False
                    used -= width[job]
                    wasted += (now - start[job]) * width[job]
                    queue[queued] = job
                    queued += 1
                taken[begun] = min(lose[begun], processors - missing - used)
                missing += taken[begun]
                owed[begun] = lose[begun] - taken[begun]
                owing += owed[begun]
            begun += 1
        outage = 0
        while owing > 0 and outage < begun and processors - missing - used > 0:
            part = min(owed[outage], processors - missing - used)
            owed[outage] -= part
            taken[outage] += part
            owing -= part
            missing += part
            outage += 1
        if queued == 0:
            continue
        idle = processors - missing - used
        most = processors - missing - owing
        times[0] = now
        free[0] = most
        size = 1
        for i in range(count):
            job = running[i]
            # A job that outlives its estimate is expected to end at any moment.
            size = take(times, free, size, now, max(start[job] + estimate[job], now + 1), width[job])
        for i in range(queued):
            job = queue[i]
            key[job] = submit[job]
            if mode == SELECTIVE:
                key[job] = fixed[job] - weights.stretch * math.log(_stretch(now, submit[job], estimate[job]))
        _sort(queue, queued, key)
        kept = 0
        reserved = 0
        for i in range(queued):
            job = queue[i]
            queue[kept] = job
            kept += 1
            if mode == CONSERVATIVE:
                reserve = True
            elif mode == SELECTIVE:
                reserve = _stretch(now, submit[job], estimate[job]) >= weights.reserved_stretch
            else:
                reserve = reserved == 0
            if width[job] > most or (width[job] > idle and not reserve) or (mode == FCFS and reserved > 0):
                # One that must wait for a repair holds up those behind it under FCFS only.
                if mode == FCFS:
                    reserved += 1
                continue
            at = earliest(times, free, size, width[job], estimate[job])
            if at == now:
                start[job] = now
                attempts[job] += 1
                active[job] = True
                running[count] = job
                count += 1
                idle -= width[job]
                used += width[job]
                if ends == len(heap_time):
                    heap_time = _grown(heap_time)
                    heap_job = _grown(heap_job)
                ends = heap_push(heap_time, heap_job, ends, now + run[job], job)
                size = take(times, free, size, now, now + estimate[job], width[job])
                kept -= 1
            elif reserve:
                if mode == SJBF and reserved == 0:
                    _sort(queue[i + 1 :], queued - i - 1, estimate)
                reserved += 1
                size = take(times, free, size, at, at + estimate[job], width[job])
        queued = kept
    return start, attempts, wasted


@njit(cache=True)
def _stretch(now, submit, estimate):  # type: ignore[no-untyped-def]
    length = max(float(estimate), SHORTEST)
    return (now - submit + length) / length


@njit(cache=True)
def _forget(running, count, job):  # type: ignore[no-untyped-def]
    place = 0
    while running[place] != job:
        place += 1
    for i in range(place, count - 1):
        running[i] = running[i + 1]
    return count - 1


@njit(cache=True)
def _sort(queue, queued, key):  # type: ignore[no-untyped-def]
    # The queue is nearly in order from the event before; equals stay in order of arrival.
    for i in range(1, queued):
        job = queue[i]
        k = i
        while k > 0 and (key[queue[k - 1]] > key[job] or (key[queue[k - 1]] == key[job] and queue[k - 1] > job)):
            queue[k] = queue[k - 1]
            k -= 1
        queue[k] = job


@njit(cache=True)
def _grown(table):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(table), np.int64)
    larger[: len(table)] = table
    return larger
