"""Sites under the clock of somebody else, compiled: what ends before a moment, what is handed in at it, how loaded they are."""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.twin.schedulers.backfill import FOREVER, correct, end_job, enqueue, start_jobs, terminate


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
        for i in range(here.count):
            found[site, 4] += max(state.until[site, i] - now, 0) * jobs[state.running[site, i]].width
