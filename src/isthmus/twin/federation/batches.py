"""Sites under the clock of somebody else, compiled: what ends before a moment, what is handed in, taken back or lost at it, how
loaded they are, and who waits."""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.twin.schedulers.backfill import (
    FOREVER,
    correct,
    dequeue,
    end_job,
    enqueue,
    kill_last,
    start_jobs,
    terminate,
)
from isthmus.twin.schedulers.underway import JOB_BITS, JOB_MASK


@njit(cache=True)
def end_before(state, moment, over):  # type: ignore[no-untyped-def]
    """Let all sites go on until a moment, and say how many jobs ended before it; `over` gets them in order of time."""
    count = 0
    while True:
        site = np.argmin(state.next_end)
        now = state.next_end[site]
        if now >= moment or now == FOREVER:
            return count
        over[count] = end_job(state, site)
        count += 1
        correct(state, site, now)
        terminate(state, site)
        start_jobs(state, site, -1, now)


@njit(cache=True)
def hand_in(state, jobs, sites, now):  # type: ignore[no-untyped-def]
    """Jobs, one after the other, each to the queue of its site."""
    for i in range(len(jobs)):
        correct(state, sites[i], now)
        enqueue(state, sites[i], jobs[i], False)
        start_jobs(state, sites[i], jobs[i], now)


@njit(cache=True)
def take_back(state, job, site, now):  # type: ignore[no-untyped-def]
    """Take a job that waits out of its site's queue."""
    correct(state, site, now)
    dequeue(state, site, job)
    state.sites[site].seen_free = -1
    start_jobs(state, site, -1, now)


@njit(cache=True)
def change_size(state, site, more, drain, now, lost):  # type: ignore[no-untyped-def]
    """Processors that come back (`more` > 0), fail, or are drained; how many jobs were lost: those that started last, into `lost`
    with the seconds that they had run."""
    correct(state, site, now)
    here = state.sites[site]
    owed = max(here.used - here.processors, 0)  # what drains still wait for
    here.processors += more
    count = 0
    while more < 0 and not drain and here.ends > 0 and here.used > here.processors + owed:
        job, begun = kill_last(state, site)
        lost[count, 0] = job
        lost[count, 1] = now - begun
        count += 1
    here.seen_free = -1
    start_jobs(state, site, -1, now)
    return count


@njit(cache=True)
def waiting_at(state, site, found):  # type: ignore[no-untyped-def]
    """How many jobs wait at a site; `found` gets them in the order of its queue."""
    count = 0
    end = state.sites[site].end
    job = state.jobs[end].after
    while job != end:
        found[count] = job
        count += 1
        job = state.jobs[job].after
    return count


@njit(cache=True)
def running_at(state, site, found):  # type: ignore[no-untyped-def]
    """How many jobs run at a site; `found` gets them."""
    count = 0
    here = state.sites[site]
    for i in range(here.first, here.count):
        if state.running[site, i] >= 0:
            found[count] = state.running[site, i] & JOB_MASK
            count += 1
    return count


@njit(cache=True)
def load(state, now, found):  # type: ignore[no-untyped-def]
    """Of each site: free processors, jobs and processors in the queue, processor seconds there and left of what runs, jobs that run."""
    jobs = state.jobs
    for site in range(len(state.sites)):
        here = state.sites[site]
        found[site] = 0.0
        found[site, 0] = here.processors - here.used
        found[site, 5] = here.ends
        job = jobs[here.end].after
        while job != here.end:
            found[site, 1] += 1
            found[site, 2] += jobs[job].width
            found[site, 3] += jobs[job].width * jobs[job].estimate
            job = jobs[job].after
        for i in range(here.first, here.count):
            if state.running[site, i] >= 0:
                found[site, 4] += max(state.until[site, i] - now, 0) * (state.running[site, i] >> JOB_BITS)
