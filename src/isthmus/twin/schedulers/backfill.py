"""FCFS, EASY and EASY-SJBF, compiled: one event at a time, a queue of links, running jobs in order of predicted end (`underway`).

EASY: Lifka 1995; SJBF: Tsafrir, Etsion, Feitelson 2007. The order of events at equal times follows the simulator of
SC'15 (Gaussier et al.): submission before termination, a job predicted to end by now counts as free.

The functions act on one of several sites that share one clock: `easy_waits` is the loop of one site, and the federation
(twin.federation) the loop of many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.schedulers.heap import heap_pop, heap_push
from isthmus.twin.schedulers.underway import JOB_BITS, JOB_MASK, set_out, take_out

FCFS, EASY, SJBF = 0, 1, 2
FOREVER = np.int64(2**62)
# Growing steps, in seconds, by which a prediction that proved too short is extended past the request.
STEPS = np.array([60, 300, 900, 1800, 3600, 7200, 18000, 36000, 72000, 180000, 360000], dtype=np.int64)
Whole = NDArray[np.int64]


JOB = np.dtype(
    [
        ("width", np.int64),
        ("estimate", np.int64),
        ("kind", np.int64),  # class of width: the greatest k with 2^k <= width
        ("after", np.int64),  # the queue's links in order of arrival, the site's own jobs before guests
        ("before", np.int64),
        ("longer", np.int64),  # and in order of estimate, for SJBF
        ("shorter", np.int64),
        ("submit", np.int64),
        ("run", np.int64),
        ("request", np.int64),
        ("start", np.int64),  # the answer; -1: not yet
        ("until", np.int64),  # the predicted end of a job that runs
        ("corrections", np.int64),
    ]
)
SITE = np.dtype(
    [
        ("processors", np.int64),
        ("mode", np.int64),
        ("used", np.int64),
        ("end", np.int64),  # the entry of `jobs` that is the head of its queue
        ("seen_free", np.int64),  # free processors after the last pass over the queue; -1: look at the whole queue
        ("last_own", np.int64),  # the last waiting job that is not a guest
        ("first", np.int64),  # its running jobs are entries from here to `count`
        ("count", np.int64),
        ("ends", np.int64),  # terminations to come
        ("started", np.int64),  # jobs
        ("newest", np.int64),  # the job that started last; a running job's `before` is the one that started before it
    ]
)


class State(NamedTuple):
    """Sites under one clock: few arrays, as passing many costs more than what the functions do."""

    jobs: NDArray[Any]  # JOB; one entry a job, then one a site: the head of its queue, and the mark of its end
    sites: NDArray[Any]  # SITE
    running: Whole  # site x place: running jobs by predicted end, each below its width; -1: one that is over (see `underway`)
    until: Whole  # site x place: their predicted ends
    heap_time: Whole  # site x place: terminations to come
    heap_job: Whole  # their jobs, below the number of their start: at equal times the one that started first ends first
    least: Whole  # site x kind x [width, estimate]: no waiting job of the kind is below these
    next_end: Whole  # site: its next termination; FOREVER if no job runs
    fresh: Whole  # kind x [width, estimate]: the same, while a queue is looked through


KINDS = 32


@njit(cache=True)
def easy_waits(submit, run, width, estimate, request, processors, mode):  # type: ignore[no-untyped-def]
    """Waits in seconds; all columns int64 and in order of submission, seconds and processor counts."""
    count = len(submit)
    jobs = make_jobs(submit, run, width, estimate, request, 1)
    state = make_state(jobs, np.full(1, processors, np.int64), np.full(1, mode, np.int64))
    arrived = 0
    while arrived < count or state.sites[0].ends > 0:
        if arrived < count and submit[arrived] <= end_time(state, 0):
            now = submit[arrived]
            correct(state, 0, now)
            enqueue(state, 0, arrived, False)
            start_jobs(state, 0, arrived, now)
            arrived += 1
        else:
            now = end_time(state, 0)
            correct(state, 0, now)
            terminate(state, 0)
            start_jobs(state, 0, -1, now)
    wait = np.empty(count, np.int64)
    for job in range(count):
        wait[job] = jobs[job].start - submit[job]
    return wait


@njit(cache=True)
def make_jobs(submit, run, width, estimate, request, sites):  # type: ignore[no-untyped-def]
    """The table of jobs from columns in order of submission, with room for the heads of the queues of `sites` sites."""
    jobs = np.zeros(len(submit) + sites, JOB)
    for job in range(len(submit)):
        jobs[job].submit = submit[job]
        jobs[job].run = run[job]
        jobs[job].width = width[job]
        jobs[job].estimate = estimate[job]
        jobs[job].request = request[job]
        jobs[job].start = -1
        while width[job] >> (jobs[job].kind + 1) > 0:
            jobs[job].kind += 1
    return jobs


@njit(cache=True)
def make_state(jobs, processors, mode):  # type: ignore[no-untyped-def]
    """Idle sites with empty queues; `processors` and `mode` one entry a site, as many as `jobs` has for heads of queues."""
    sites = np.zeros(len(processors), SITE)
    for site in range(len(processors)):
        end = len(jobs) - len(processors) + site
        jobs[end].after = jobs[end].before = jobs[end].longer = jobs[end].shorter = end
        sites[site].processors = processors[site]
        sites[site].mode = mode[site]
        sites[site].end = end
        sites[site].last_own = end
        sites[site].seen_free = -1
    # Jobs that count as free still hold an entry, so for a moment there can be twice as many as processors.
    shape = (len(processors), 2 * processors.max() + 2)
    return State(
        jobs, sites,
        np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, np.int64),
        np.full((len(processors), KINDS, 2), FOREVER), np.full(len(processors), FOREVER), np.empty((KINDS, 2), np.int64),
    )  # fmt: skip


@njit(cache=True)
def correct(state, site, now):  # type: ignore[no-untyped-def]
    """Extend the predictions that are over while their job runs on, so that no processor is given twice."""
    here = state.sites[site]
    until = state.until[site]
    i = here.first
    while i < here.count and until[i] <= now:
        key = state.running[site, i]
        if key < 0:
            i += 1
            continue
        job = state.jobs[key & JOB_MASK]
        if until[i] >= job.start + job.run:
            i += 1
            continue
        target = until[i]
        if job.request > target - job.start and job.corrections == 0:
            target = job.start + job.request
        else:
            target += STEPS[min(max(job.corrections - 1, 0), len(STEPS) - 1)]
        job.corrections += 1
        take_out(here, state.running[site], until, key, job.until)
        set_out(here, state.running[site], until, key, target)
        job.until = target
        here.seen_free = -1
        i = here.first


@njit(cache=True)
def enqueue(state, site, job, guest):  # type: ignore[no-untyped-def]
    """Put a job at the end of a site's queue; a job of the site's own before all guests."""
    jobs = state.jobs
    here = state.sites[site]
    note(state.least[site], jobs[job])
    _link(state, site, job, guest, jobs[here.end].before if guest else here.last_own)


@njit(cache=True)
def enqueue_again(state, site, job, guest):  # type: ignore[no-untyped-def]
    """Put a job whose attempt was lost back into its site's queue, by the time of its submission among its like."""
    jobs = state.jobs
    here = state.sites[site]
    note(state.least[site], jobs[job])
    place = jobs[here.end].before if guest else here.last_own
    first = here.last_own if guest else here.end
    while place != first and place > job:  # numbers are in order of submission
        place = jobs[place].before
    _link(state, site, job, guest, place)


@njit(cache=True)
def _link(state, site, job, guest, place):  # type: ignore[no-untyped-def]
    jobs = state.jobs
    here = state.sites[site]
    jobs[job].before = place
    jobs[job].after = jobs[place].after
    jobs[jobs[place].after].before = job
    jobs[place].after = job
    if not guest and place == here.last_own:
        here.last_own = job
    if here.mode == SJBF:
        place = jobs[here.end].shorter
        while place != here.end and jobs[place].estimate > jobs[job].estimate:
            place = jobs[place].shorter
        jobs[job].longer = jobs[place].longer
        jobs[job].shorter = place
        jobs[jobs[place].longer].shorter = job
        jobs[place].longer = job


@njit(cache=True)
def dequeue(state, site, job):  # type: ignore[no-untyped-def]
    """Take a waiting job out of a site's queue."""
    jobs = state.jobs
    jobs[jobs[job].before].after = jobs[job].after
    jobs[jobs[job].after].before = jobs[job].before
    if state.sites[site].last_own == job:
        state.sites[site].last_own = jobs[job].before
    if state.sites[site].mode == SJBF:
        jobs[jobs[job].shorter].longer = jobs[job].longer
        jobs[jobs[job].longer].shorter = jobs[job].shorter


@njit(cache=True)
def end_time(state, site):  # type: ignore[no-untyped-def]
    """When the next termination of this site is; FOREVER if no job runs."""
    return state.next_end[site]


@njit(cache=True)
def end_job(state, site):  # type: ignore[no-untyped-def]
    """The job of the next termination of this site."""
    return state.heap_job[site, 0] & JOB_MASK


@njit(cache=True)
def terminate(state, site):  # type: ignore[no-untyped-def]
    """Carry out the next termination of this site."""
    job = end_job(state, site)
    here = state.sites[site]
    here.ends = heap_pop(state.heap_time[site], state.heap_job[site], here.ends)
    state.next_end[site] = state.heap_time[site, 0] if here.ends > 0 else FOREVER
    _leave(state, site, job)


@njit(cache=True)
def _leave(state, site, job):  # type: ignore[no-untyped-def]
    row = state.jobs[job]
    here = state.sites[site]
    here.used -= row.width
    take_out(here, state.running[site], state.until[site], (row.width << JOB_BITS) | job, row.until)


@njit(cache=True)
def kill_last(state, site):  # type: ignore[no-untyped-def]
    """End the attempt that started last: (its job, which is in no queue and has not started any more; when it had)."""
    here = state.sites[site]
    times, keys = state.heap_time[site], state.heap_job[site]
    last = 0
    for i in range(1, here.ends):
        if keys[i] > keys[last]:
            last = i
    job = keys[last] & JOB_MASK
    old_times, old_keys = times[: here.ends].copy(), keys[: here.ends].copy()
    kept = 0
    for i in range(here.ends):
        if i != last:
            kept = heap_push(times, keys, kept, old_times[i], old_keys[i])
    here.ends = kept
    state.next_end[site] = times[0] if kept > 0 else FOREVER
    _leave(state, site, job)
    begun = state.jobs[job].start
    state.jobs[job].start = -1
    state.jobs[job].corrections = 0
    return job, begun


@njit(cache=True)
def begin(state, site, job, now):  # type: ignore[no-untyped-def]
    """Start a job, which is in no queue any more."""
    row = state.jobs[job]
    here = state.sites[site]
    row.start = now
    here.used += row.width
    row.until = now + row.estimate
    set_out(here, state.running[site], state.until[site], (row.width << JOB_BITS) | job, row.until)
    key = (here.started << JOB_BITS) | job
    here.ends = heap_push(state.heap_time[site], state.heap_job[site], here.ends, now + row.run, key)
    state.next_end[site] = state.heap_time[site, 0]
    here.started += 1
    row.before = here.newest
    here.newest = job


@njit(cache=True)
def free_now(state, site, now):  # type: ignore[no-untyped-def]
    """The free processors; those of a job that is predicted to end by now count."""
    here = state.sites[site]
    running = state.running[site]
    until = state.until[site]
    free = here.processors - here.used
    for i in range(here.first, here.count):
        if until[i] > now:
            break
        if running[i] >= 0:
            free += running[i] >> JOB_BITS
    return free


@njit(cache=True)
def reservation(state, site, free, now, needed):  # type: ignore[no-untyped-def]
    """(shadow time, extra processors): when `needed` > free processors are predicted to be free, and how many more.

    (FOREVER, 0) where processors are away, and those that are there never suffice: whoever waits for them delays nobody.
    """
    count = state.sites[site].count
    running = state.running[site]
    until = state.until[site]
    shadow = np.int64(0)
    k = state.sites[site].first
    while k < count and until[k] <= now:  # these count as free already
        k += 1
    while free < needed:
        if k >= count:
            return FOREVER, np.int64(0)
        shadow = until[k]
        while k < count and until[k] == shadow:
            if running[k] >= 0:
                free += running[k] >> JOB_BITS
            k += 1
    return shadow, free - needed


@njit(cache=True)
def start_jobs(state, site, new, now):  # type: ignore[no-untyped-def]
    """One pass of the scheduler over a site's queue; `new` is the job that arrived, or -1. Returns the free processors."""
    jobs = state.jobs
    here = state.sites[site]
    end = here.end
    sjbf = here.mode == SJBF
    free = free_now(state, site, now)
    head = jobs[end].after
    # With the same free processors, an arrival changes nothing for those that waited before it.
    only_new = new >= 0 and free == here.seen_free and head != new
    while head != end and jobs[head].width <= free and free > 0:
        following = jobs[head].after
        dequeue(state, site, head)
        free -= jobs[head].width
        begin(state, site, head, now)
        head = following
    if head != end and free > 0 and here.mode != FCFS and (only_new or _narrow(state.least[site], free)):
        shadow, extra = np.int64(0), np.int64(0)
        limit = FOREVER
        reserved = not only_new
        if reserved:
            shadow, extra = reservation(state, site, free, now, jobs[head].width)
            limit = shadow - now
        if only_new or could_fit(state.least[site], free, True, limit, extra, FOREVER):
            job = new if only_new else jobs[end].longer if sjbf else jobs[head].after
            if not only_new:
                state.fresh[:] = FOREVER
                note(state.fresh, jobs[head])
            while job != end and free > 0:
                # Most jobs of a long queue do not fit: pass them in a tight loop. The head never fits here.
                row = jobs[job]
                following = row.longer if sjbf else row.after
                if row.width <= free and not reserved:
                    # The head's reservation: worked out for the first job that is narrow enough, as often there is none.
                    reserved = True
                    shadow, extra = reservation(state, site, free, now, jobs[head].width)
                    limit = shadow - now
                if row.width <= free and (row.estimate <= limit or row.width <= extra):
                    if row.estimate > limit:
                        extra -= row.width
                    dequeue(state, site, job)
                    free -= row.width
                    begin(state, site, job, now)
                    if not only_new and not could_fit(state.least[site], free, True, limit, extra, FOREVER):
                        break
                elif not only_new:
                    note(state.fresh, row)
                if only_new:
                    break
                job = following
            if job == end and not only_new:  # all of it was looked through
                state.least[site] = state.fresh
    here.seen_free = free
    return free


@njit(cache=True)
def note(least, row):  # type: ignore[no-untyped-def]
    """Keep the bounds of waiting jobs true for one more."""
    least[row.kind, 0] = min(least[row.kind, 0], row.width)
    least[row.kind, 1] = min(least[row.kind, 1], row.estimate)


@njit(cache=True)
def could_fit(least, free, head_waits, limit, extra, order):  # type: ignore[no-untyped-def]
    """Whether, as far as their bounds tell, one of the waiting jobs fits beside a reservation and has an estimate of at most `order`."""
    kind = 0
    while free >> kind > 0:
        width, estimate = least[kind, 0], least[kind, 1]
        if width <= free and estimate <= order and (not head_waits or estimate <= limit or width <= extra):
            return True
        kind += 1
    return False


@njit(cache=True)
def _narrow(least, free):  # type: ignore[no-untyped-def]
    kind = 0
    while free >> kind > 0:
        if least[kind, 0] <= free:
            return True
        kind += 1
    return False
