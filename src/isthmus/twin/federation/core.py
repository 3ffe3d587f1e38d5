"""The loop of the federation, compiled: one virtual clock, one event at a time over all sites.

At equal times: a submission, then a transfer's end, then a termination, of the site with the lowest number first, then an outage.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isthmus.placement import federation as rules
from isthmus.twin.federation.away import change, next_change
from isthmus.twin.federation.flows import add_flow, end_flow, expected_seconds, flow_end
from isthmus.twin.federation.ledger import not_booked, replay
from isthmus.twin.schedulers.backfill import (
    FOREVER,
    correct,
    could_fit,
    dequeue,
    end_job,
    end_time,
    enqueue,
    free_now,
    note,
    reservation,
    start_jobs,
    terminate,
)
from isthmus.twin.schedulers.underway import JOB_BITS

ISOLATED, SHORTEST_BACKLOG, HOLES = 0, 1, 2
LEDGER_SECONDS = 3600  # how often the rows of rationality are looked at

fits_hole = njit(cache=True)(rules.fits_hole)
order_of_guest = njit(cache=True)(rules.order_of_guest)
is_open = njit(cache=True)(rules.is_open)


@njit(cache=True, nogil=True)
def advance(world, router, rational, credit, tolerance, last):  # type: ignore[no-untyped-def]
    """Run until the last job of the world arrives, or, where it is the `last` of all, until every job has ended."""
    state, flows, ledger, away = world.state, world.flows, world.ledger, world.away
    jobs = state.jobs
    home, size, where, promised, opened = world.home, world.size, world.where, world.promised, world.opened
    count = len(home)
    sites = len(state.sites)
    book = router == HOLES and rational
    guests_last = router == HOLES  # the naive router knows no guests: all jobs of a site are alike
    arrived = world.counts[0]
    looked = world.counts[1]
    changes = next_change(away)
    while True:
        if arrived == count and not last:
            break
        site = 0
        next_end = FOREVER
        for other in range(sites):
            time = end_time(state, other)
            if time < next_end:
                next_end = time
                site = other
        next_flow = flow_end(flows)
        next_submit = jobs[arrived].submit if arrived < count else FOREVER
        now = min(next_submit, next_flow, next_end)
        if changes < now:
            site, free = change(away, state, world.least, home, guests_last, changes)
            if router == HOLES and opened[site] and free > promised[site]:
                _fill(state, flows, world.least, site, size, changes, where, promised)
            changes = next_change(away)
            continue
        if now == FOREVER:
            break
        if book and now >= looked:
            looked = now + LEDGER_SECONDS
            for other in range(sites):
                replay(ledger, state, other, arrived, now)
                gained, suffered = not_booked(ledger, state, other, now)
                gained += ledger.gained[other]
                suffered += ledger.suffered[other]
                opened[other] = is_open(gained, suffered, credit, tolerance)
        if now == next_submit:
            job = arrived
            arrived += 1
            site = home[job]
            if router == SHORTEST_BACKLOG:
                site = _shortest_backlog(state, job, site, now)
            if site != home[job]:
                _move(state, flows, job, home[job], site, size[job], now, where, promised, guests_last)
            else:
                correct(state, site, now)
                enqueue(state, site, job, False)
                start_jobs(state, site, job, now)
            if router == HOLES and jobs[job].start < 0:
                note(world.least[site], jobs[job])
                for other in range(sites):
                    if other != site and opened[other] and jobs[job].width <= state.sites[other].processors:
                        correct(state, other, now)
                        free, head_waits, limit, extra = _hole(state, other, now, promised)
                        seconds = _seconds(state, flows, job, site, other, size[job])
                        if fits_hole(jobs[job].width, seconds, free, head_waits, limit, extra):
                            dequeue(state, site, job)
                            state.sites[site].seen_free = -1
                            _move(state, flows, job, site, other, size[job], now, where, promised, guests_last)
                            break
        else:
            if now == next_flow:
                job = end_flow(flows, now)
                world.moved_at[job] = now
                site = where[job]
                promised[site] -= jobs[job].width
                correct(state, site, now)
                enqueue(state, site, job, guests_last)
                free = start_jobs(state, site, -1, now)
            else:
                job = end_job(state, site)
                correct(state, site, now)
                terminate(state, site)
                ledger.done[job] = True
                free = start_jobs(state, site, -1, now)
            if router == HOLES and opened[site] and free > promised[site]:
                _fill(state, flows, world.least, site, size, now, where, promised)
    world.counts[0] = arrived
    world.counts[1] = looked


@njit(cache=True)
def _shortest_backlog(state, job, home, now):  # type: ignore[no-untyped-def]
    """The site with the least requested work waiting and under way per processor; of equals the home, then the first."""
    jobs = state.jobs
    best = home
    least = np.inf
    for site in range(len(state.sites)):
        here = state.sites[site]
        if here.processors < jobs[job].width:
            continue
        work = 0.0
        other = jobs[here.end].after
        while other != here.end:
            work += jobs[other].width * jobs[other].estimate
            other = jobs[other].after
        for i in range(here.first, here.count):
            if state.running[site, i] >= 0:
                work += max(state.until[site, i] - now, 0) * (state.running[site, i] >> JOB_BITS)
        work /= here.processors
        if work < least or (work == least and site == home):
            least = work
            best = site
    return best


@njit(cache=True)
def _hole(state, site, now, promised):  # type: ignore[no-untyped-def]
    """(free processors for guests, whether a job waits, seconds to its reservation, processors beside it)."""
    free = free_now(state, site, now)
    head = state.jobs[state.sites[site].end].after
    if head == state.sites[site].end:
        return free - promised[site], False, np.int64(0), np.int64(0)
    needed = state.jobs[head].width
    if needed <= free:  # it starts as soon as its site looks at it
        return np.int64(0), True, np.int64(0), np.int64(0)
    shadow, extra = reservation(state, site, free, now, needed)
    return free - promised[site], True, shadow - now, extra - promised[site]


@njit(cache=True)
def _seconds(state, flows, job, home, site, size):  # type: ignore[no-untyped-def]
    """For how long a guest is expected to hold its processors: its data's way, and its estimate."""
    if size == 0:
        return state.jobs[job].estimate
    return state.jobs[job].estimate + expected_seconds(flows, home * len(state.sites) + site, size)


@njit(cache=True)
def _fill(state, flows, least, site, size, now, where, promised):  # type: ignore[no-untyped-def]
    """Fill the holes of a site with jobs that wait elsewhere, in the order of the rules."""
    jobs = state.jobs
    while True:
        free, head_waits, limit, extra = _hole(state, site, now, promised)
        chosen = -1
        origin = -1
        first = FOREVER * 1.0
        for home in range(len(state.sites)):
            end = state.sites[home].end
            own = state.sites[home].last_own  # guests, which come after it, stay where their data is
            if home == site or free <= 0 or own == end:
                continue
            if not could_fit(least[home], free, head_waits, limit, extra, first + 1):
                continue
            least[home] = FOREVER
            job = jobs[end].after
            while job != end:
                row = jobs[job]
                note(least[home], row)
                if row.width <= free:
                    order = order_of_guest(row.estimate, now - row.submit)
                    if order < first:
                        seconds = _seconds(state, flows, job, home, site, size[job])
                        if fits_hole(row.width, seconds, free, head_waits, limit, extra):
                            first = order
                            chosen = job
                            origin = home
                job = row.after if job != own else end
        if chosen < 0:
            return
        dequeue(state, origin, chosen)
        state.sites[origin].seen_free = -1
        _move(state, flows, chosen, origin, site, size[chosen], now, where, promised, True)


@njit(cache=True)
def _move(state, flows, job, home, site, size, now, where, promised, guest):  # type: ignore[no-untyped-def]
    """Send a job, which is in no queue, to a site: by its data first, if it has any."""
    where[job] = site
    if size > 0:
        promised[site] += state.jobs[job].width
        add_flow(flows, home * len(state.sites) + site, job, size, now)
    else:
        correct(state, site, now)
        enqueue(state, site, job, guest)
        start_jobs(state, site, job, now)
