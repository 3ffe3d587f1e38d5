"""When a job would start, by the queue as it is seen now: EASY backfilling played forward, without arrivals. Compiled.

EASY: Lifka 1995. The site backfills by what users request; how long jobs really run is what is believed of them, so one
queue gives one start for each belief.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def easy_start(processors, running, ends, promised_ends, queue, runs, requests):  # type: ignore[no-untyped-def]
    """Seconds from now until the last job of the queue starts; all columns int64, seconds from now.

    `running` and `queue` are processor counts; `ends` when running jobs are believed to end, `promised_ends` when they
    must by request; `runs` and `requests` the same for the queue, in its order. Wider jobs than the pool are passed over.
    """
    jobs, count = len(queue), len(running)
    width = np.empty(count + jobs, np.int64)
    end = np.empty(count + jobs, np.int64)
    promised = np.empty(count + jobs, np.int64)
    width[:count], end[:count], promised[:count] = running, ends, promised_ends
    waiting = queue <= processors
    used = running.sum()
    last = jobs - 1
    first = 0
    now = 0
    while True:
        free = processors - used
        while first < jobs and (not waiting[first] or queue[first] <= free):
            if waiting[first]:
                if first == last:
                    return now
                waiting[first] = False
                free -= queue[first]
                used += queue[first]
                width[count], end[count], promised[count] = queue[first], now + runs[first], now + requests[first]
                count += 1
            first += 1
        if first > last:
            return now
        if free > 0:
            order = np.argsort(promised[:count])
            available, shadow, k = free, now, 0
            while k < count and available < queue[first]:
                shadow = max(promised[order[k]], now)
                while k < count and max(promised[order[k]], now) == shadow:
                    available += width[order[k]]
                    k += 1
            extra = available - queue[first]
            for job in range(first + 1, jobs):
                if waiting[job] and queue[job] <= free:
                    if now + requests[job] > shadow:
                        if queue[job] > extra:
                            continue
                        extra -= queue[job]
                    if job == last:
                        return now
                    waiting[job] = False
                    free -= queue[job]
                    used += queue[job]
                    width[count], end[count], promised[count] = queue[job], now + runs[job], now + requests[job]
                    count += 1
        now = max(now, end[:count].min())
        k = 0
        while k < count:
            if end[k] <= now:
                used -= width[k]
                count -= 1
                width[k], end[k], promised[k] = width[count], end[count], promised[count]
            else:
                k += 1


@njit(cache=True)
def sampled_starts(processors, running, elapsed, promised_ends, running_belief, queue, requests, queue_belief, draws):  # type: ignore[no-untyped-def]
    """Starts of the last job of the queue, one for each row of `draws`: uniform numbers, one for each job.

    A belief is one row a job of p10, p50, p90 of its run time in log seconds; a running job's is conditioned on having
    run for `elapsed` seconds already.
    """
    jobs, count = len(queue), len(running)
    starts = np.empty(len(draws), np.int64)
    floor = np.empty(count)
    for k in range(count):
        floor[k] = _level(math.log(max(1.0, elapsed[k])), running_belief[k])
    ends = np.empty(count, np.int64)
    runs = np.empty(jobs, np.int64)
    for s in range(len(draws)):
        for k in range(count):
            level = floor[k] + (1 - floor[k]) * draws[s, k]
            left = math.exp(min(30.0, _quantile(level, running_belief[k]))) - elapsed[k]
            ends[k] = max(1, min(promised_ends[k], int(left)))
        for k in range(jobs):
            run = math.exp(min(30.0, _quantile(draws[s, count + k], queue_belief[k])))
            runs[k] = max(1, min(requests[k], int(run)))
        starts[s] = easy_start(processors, running, ends, promised_ends, queue, runs, requests)
    return starts


@njit(cache=True)
def _quantile(level, belief):  # type: ignore[no-untyped-def]
    # Straight lines in log seconds through the three quantiles; the tails are half as steep again.
    p10, p50, p90 = belief[0], belief[1], belief[2]
    if level < 0.1:
        return p10 - 1.5 * (p50 - p10) * (0.1 - level) / 0.4
    if level < 0.5:
        return p10 + (p50 - p10) * (level - 0.1) / 0.4
    if level < 0.9:
        return p50 + (p90 - p50) * (level - 0.5) / 0.4
    return p90 + 1.5 * (p90 - p50) * (level - 0.9) / 0.4


@njit(cache=True)
def _level(value, belief):  # type: ignore[no-untyped-def]
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if _quantile(middle, belief) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
