"""What each home's users gained: each site replayed alone, behind the clock by as much as is not known yet; compiled.

Nothing is used before it is known: the replay of a site stops where it would need the run time of a job that has not
ended in the federation (a job under way for x seconds is known to run for at least x).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.schedulers.backfill import (
    FOREVER,
    State,
    correct,
    end_job,
    end_time,
    enqueue,
    make_jobs,
    make_state,
    start_jobs,
    terminate,
)
from isthmus.twin.schedulers.underway import JOB_MASK


class Ledger(NamedTuple):
    """The row of rationality of each home."""

    alone: State  # every site without the others
    own: NDArray[np.int64]  # jobs by home, each home's in order of submission
    at: NDArray[np.int64]  # by home: the place in `own` of the next job to arrive in the replay
    to: NDArray[np.int64]  # by home: the end of its jobs in `own`
    done: NDArray[np.bool_]  # by job: ended in the federation
    booked: NDArray[np.bool_]  # by job: ended in the replay too
    gained: NDArray[np.float64]  # by home: sum of bounded slowdowns alone less that in the federation
    suffered: NDArray[np.float64]  # by home: sum of bounded slowdowns alone


@njit(cache=True)
def make_ledger(processors, mode):  # type: ignore[no-untyped-def]
    """An empty ledger, without jobs."""
    sites = len(processors)
    none = np.zeros(0, np.int64)
    no = np.zeros(0, np.bool_)
    jobs = make_jobs(none, none, none, none, none, sites)
    alone = make_state(jobs, processors, mode)
    at, to = np.zeros(sites, np.int64), np.zeros(sites, np.int64)
    return Ledger(alone, none, at, to, no, no.copy(), np.zeros(sites), np.zeros(sites))


@njit(cache=True)
def replay(ledger, real, site, arrived, now):  # type: ignore[no-untyped-def]
    """Bring a site's replay as near to `now` as is known, and book its jobs that ended in both worlds."""
    alone = ledger.alone
    jobs = alone.jobs
    here = alone.sites[site]
    known = FOREVER  # no job that runs alone, and has not ended in the federation, can end before
    for i in range(here.first, here.count):
        if alone.running[site, i] >= 0:
            known = min(known, _known_until(ledger, real, alone.running[site, i] & JOB_MASK, now))
    while True:
        next_end = end_time(alone, site)
        next_submit = FOREVER
        if ledger.at[site] < ledger.to[site] and ledger.own[ledger.at[site]] < arrived:
            next_submit = jobs[ledger.own[ledger.at[site]]].submit
        time = min(next_end, next_submit)
        if time >= now or time > known:
            return
        correct(alone, site, time)
        started = here.started
        if next_submit <= next_end:
            job = ledger.own[ledger.at[site]]
            ledger.at[site] += 1
            enqueue(alone, site, job, False)
            start_jobs(alone, site, job, time)
        else:
            job = end_job(alone, site)
            if not ledger.done[job]:
                return
            terminate(alone, site)
            ledger.booked[job] = True
            start_jobs(alone, site, -1, time)
            by_itself = _slowdown(jobs[job], jobs[job].start)
            ledger.gained[site] += by_itself - _slowdown(jobs[job], real.jobs[job].start)
            ledger.suffered[site] += by_itself
        job = here.newest
        for _ in range(here.started - started):
            known = min(known, _known_until(ledger, real, job, now))
            job = jobs[job].before


@njit(cache=True)
def _known_until(ledger, real, job, now):  # type: ignore[no-untyped-def]
    """Until when a job that runs alone is known to run there."""
    if ledger.done[job]:
        return FOREVER
    begun = real.jobs[job].start
    return ledger.alone.jobs[job].start + (now - begun if begun >= 0 else 0)


@njit(cache=True)
def not_booked(ledger, real, site, now):  # type: ignore[no-untyped-def]
    """(gained, suffered) at least, of jobs that ended in the federation and would still wait alone."""
    jobs = ledger.alone.jobs
    gained = 0.0
    suffered = 0.0
    end = ledger.alone.sites[site].end
    job = jobs[end].after
    while job != end:
        if ledger.done[job]:
            by_itself = _slowdown(jobs[job], now)
            gained += by_itself - _slowdown(jobs[job], real.jobs[job].start)
            suffered += by_itself
        job = jobs[job].after
    return gained, suffered


@njit(cache=True)
def _slowdown(row, start):  # type: ignore[no-untyped-def]
    return max(1.0, (start - row.submit + row.run) / max(row.run, 10))
