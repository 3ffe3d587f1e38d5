"""FCFS, EASY and EASY-SJBF, compiled: one event at a time, a queue of links, running jobs in order of predicted end.

EASY: Lifka 1995; SJBF: Tsafrir, Etsion, Feitelson 2007. The order of events at equal times follows the simulator of
SC'15 (Gaussier et al.): submission before termination, a job predicted to end by now counts as free.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.twin.schedulers.heap import heap_pop, heap_push

FCFS, EASY, SJBF = 0, 1, 2
# Growing steps, in seconds, by which a prediction that proved too short is extended past the request.
STEPS = np.array([60, 300, 900, 1800, 3600, 7200, 18000, 36000, 72000, 180000, 360000], dtype=np.int64)


@njit(cache=True)
def easy_waits(submit, run, width, estimate, request, processors, mode):  # type: ignore[no-untyped-def]
    """Waits in seconds; all columns int64 and in order of submission, seconds and processor counts."""
    jobs = len(submit)
    end = jobs  # the queue's links: entry `jobs` is its head, and the mark of its end
    wait = np.zeros(jobs, np.int64)
    after = np.full(jobs + 1, end, np.int64)  # in order of arrival
    before = np.full(jobs + 1, end, np.int64)
    longer = np.full(jobs + 1, end, np.int64)  # in order of estimate
    shorter = np.full(jobs + 1, end, np.int64)
    links = longer if mode == SJBF else after  # the order in which jobs are backfilled
    corrections = np.zeros(jobs, np.int64)
    starts = np.zeros(jobs, np.int64)
    running = np.empty(processors, np.int64)  # by predicted end
    until = np.empty(processors, np.int64)  # their predicted ends
    heap_time = np.empty(processors, np.int64)
    heap_job = np.empty(processors, np.int64)
    sequence = np.empty(jobs, np.int64)  # jobs in the order in which they started
    started = 0
    count = 0
    ends = 0
    used = 0
    arrived = 0
    seen_free = -1
    while arrived < jobs or ends > 0:
        new = -1
        arriving = arrived < jobs and (ends == 0 or submit[arrived] <= heap_time[0])
        now = submit[arrived] if arriving else heap_time[0]
        # Predictions that are over while their job runs on are corrected first, so that no processor is given twice.
        if count > 0 and until[0] <= now:
            moved = True
            while moved:
                moved = False
                for i in range(count):
                    if until[i] > now:
                        break
                    job = running[i]
                    if until[i] < starts[job] + run[job]:
                        target = until[i]
                        if request[job] > target - starts[job] and corrections[job] == 0:
                            target = starts[job] + request[job]
                        else:
                            target += STEPS[min(max(corrections[job] - 1, 0), len(STEPS) - 1)]
                        corrections[job] += 1
                        count = _remove(running, until, count, i)
                        count = _insert(running, until, count, job, target)
                        moved = True
                        seen_free = -1
                        break
        if arriving:
            new = arrived
            arrived += 1
            before[new] = before[end]
            after[new] = end
            after[before[end]] = new
            before[end] = new
            if mode == SJBF:
                place = shorter[end]
                while place != end and estimate[place] > estimate[new]:
                    place = shorter[place]
                longer[new] = longer[place]
                shorter[new] = place
                shorter[longer[place]] = new
                longer[place] = new
        else:
            job = sequence[heap_job[0]]
            ends = heap_pop(heap_time, heap_job, ends)
            used -= width[job]
            for i in range(count):
                if running[i] == job:
                    count = _remove(running, until, count, i)
                    break
        free = processors - used
        first = 0
        while first < count and until[first] <= now:
            free += width[running[first]]
            first += 1
        # With the same free processors, an arrival changes nothing for those that waited before it.
        only_new = new >= 0 and free == seen_free and after[end] != new
        head = after[end]
        backfilling = False
        reserved = False
        shadow = 0
        extra = 0
        job = head
        while job != end and free > 0:
            if not backfilling:
                if width[job] > free:
                    if mode == FCFS:
                        break
                    backfilling = True
                    head = job
                    if only_new:
                        job = new
                    elif mode == SJBF:
                        job = longer[end]
                    else:
                        job = after[job]
                    continue
                fits = True
            else:
                # Most jobs of a long queue do not fit: pass them in a tight loop. The head never fits here.
                if not only_new:
                    if reserved:
                        limit = shadow - now
                        while job != end and (width[job] > free or (width[job] > extra and estimate[job] > limit)):
                            job = links[job]
                    else:
                        while job != end and width[job] > free:
                            job = links[job]
                    if job == end:
                        break
                fits = width[job] <= free
                if fits and not reserved:
                    # The head's reservation: the first time at which enough running jobs are predicted to be over.
                    # Worked out for the first job that is narrow enough, as often there is none.
                    reserved = True
                    available = free
                    k = first
                    while available < width[head]:
                        shadow = until[k]
                        while k < count and until[k] == shadow:
                            available += width[running[k]]
                            k += 1
                    extra = available - width[head]
                if fits and now + estimate[job] > shadow:
                    if width[job] <= extra:
                        extra -= width[job]
                    else:
                        fits = False
            following = links[job] if backfilling else after[job]
            if fits:
                after[before[job]] = after[job]
                before[after[job]] = before[job]
                if mode == SJBF:
                    longer[shorter[job]] = longer[job]
                    shorter[longer[job]] = shorter[job]
                wait[job] = now - submit[job]
                starts[job] = now
                free -= width[job]
                used += width[job]
                # Jobs that count as free still hold an entry, so the tables can be short for a moment.
                if count == len(running):
                    running = _grown(running)
                    until = _grown(until)
                if ends == len(heap_time):
                    heap_time = _grown(heap_time)
                    heap_job = _grown(heap_job)
                count = _insert(running, until, count, job, now + estimate[job])
                ends = heap_push(heap_time, heap_job, ends, now + run[job], started)
                sequence[started] = job
                started += 1
            if backfilling and only_new:
                break
            job = following
        seen_free = free
    return wait


@njit(cache=True)
def _insert(running, until, count, job, time):  # type: ignore[no-untyped-def]
    i = count
    while i > 0 and until[i - 1] > time:
        until[i] = until[i - 1]
        running[i] = running[i - 1]
        i -= 1
    until[i] = time
    running[i] = job
    return count + 1


@njit(cache=True)
def _remove(running, until, count, i):  # type: ignore[no-untyped-def]
    for k in range(i, count - 1):
        until[k] = until[k + 1]
        running[k] = running[k + 1]
    return count - 1


@njit(cache=True)
def _grown(table):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(table), np.int64)
    larger[: len(table)] = table
    return larger
