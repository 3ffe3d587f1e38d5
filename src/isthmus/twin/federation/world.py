"""The state of a running federation, compiled: it holds the jobs that wait, run or are not yet booked, and no others.

`first_world` begins; `renewed` takes new arrivals in and leaves out what is over, with all numbers of jobs moved up. The order
of jobs stays, so that a run in pieces is, to the bit, the run in one piece.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.federation.away import Away
from isthmus.twin.federation.flows import Flows, make_flows, moved_flows
from isthmus.twin.federation.ledger import Ledger, make_ledger
from isthmus.twin.schedulers.backfill import FOREVER, JOB, KINDS, State, make_jobs, make_state
from isthmus.twin.schedulers.underway import JOB_MASK

Whole = NDArray[np.int64]


class World(NamedTuple):
    """Sites, jobs, transfers and the rows of rationality at one moment."""

    state: State
    flows: Flows
    ledger: Ledger
    home: Whole  # by job
    size: Whole  # by job: bytes of input at the home
    where: Whole  # by job: the site it was sent to
    moved_at: Whole  # by job: when its data arrived; -1 where none moved
    serial: Whole  # by job: its number in the whole workload
    told: NDArray[np.bool_]  # by job: its end was reported
    promised: Whole  # by site: processors of guests whose data is under way
    opened: NDArray[np.bool_]  # by site
    least: Whole  # site x kind x [width, estimate]: no waiting job of the site's own is below these
    away: Away
    counts: Whole  # [jobs that have arrived, time of the next look at the ledger, jobs in all so far]


@njit(cache=True)
def first_world(processors, mode, paths, latency, capacity, away):  # type: ignore[no-untyped-def]
    """Idle sites; `paths` sites x sites x hops of links."""
    sites = len(processors)
    none = np.zeros(0, np.int64)
    jobs = make_jobs(none, none, none, none, none, sites)
    return World(
        make_state(jobs, processors, mode),
        make_flows(paths.reshape(sites * sites, paths.shape[2]), latency.reshape(sites * sites), capacity, 0),
        make_ledger(processors, mode),
        none, none, none, none, none, np.zeros(0, np.bool_),
        np.zeros(sites, np.int64), np.ones(sites, np.bool_), np.full((sites, KINDS, 2), FOREVER), away,
        np.zeros(3, np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def renewed(world, book, submit, run, width, estimate, request, home, size):  # type: ignore[no-untyped-def]
    """The world with jobs that are to arrive, columns in order of submission and not before those it has seen.

    Jobs that ended are left out, where `book` only those that the ledger is through with.
    """
    old = len(world.home)
    fresh = len(submit)
    ledger = world.ledger
    place = np.full(old + len(world.promised), -1, np.int64)
    kept = 0
    for job in range(old):
        if not (ledger.booked[job] if book else ledger.done[job]):
            place[job] = kept
            kept += 1
    for site in range(len(world.promised)):
        place[old + site] = kept + fresh + site
    alone, own, at, to = ledger.alone, ledger.own, ledger.at, ledger.to
    if book:
        entered = np.zeros(old, np.bool_)
        start = 0
        for site in range(len(world.promised)):
            for k in range(start, ledger.at[site]):
                entered[ledger.own[k]] = True
            start = ledger.to[site]
        alone = _moved_state(alone, place, kept, submit, run, width, estimate, request)
        own, at, to = _own(place, entered, home, world.home, kept, len(world.promised))
    none = np.full(fresh, -1, np.int64)
    first = world.counts[2]
    world.counts[0] = kept
    world.counts[2] = first + fresh
    no = np.zeros(fresh, np.bool_)
    return World(
        _moved_state(world.state, place, kept, submit, run, width, estimate, request),
        moved_flows(world.flows, place, kept + fresh),
        Ledger(
            alone, own, at, to, _joined(ledger.done, place, kept, no), _joined(ledger.booked, place, kept, no),
            ledger.gained, ledger.suffered,
        ),
        _joined(world.home, place, kept, home),
        _joined(world.size, place, kept, size),
        _joined(world.where, place, kept, home),
        _joined(world.moved_at, place, kept, none),
        _joined(world.serial, place, kept, np.arange(first, first + fresh)),
        _joined(world.told, place, kept, no),
        world.promised, world.opened, world.least, world.away, world.counts,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def ended(world):  # type: ignore[no-untyped-def]
    """Numbers of the jobs that ended since this was asked last."""
    found = np.empty(len(world.home), np.int64)
    count = 0
    for job in range(len(world.home)):
        if world.ledger.done[job] and not world.told[job]:
            world.told[job] = True
            found[count] = job
            count += 1
    return found[:count].copy()


@njit(cache=True)
def _joined(column, place, kept, fresh):  # type: ignore[no-untyped-def]
    more = np.empty(kept + len(fresh), column.dtype)
    for job in range(len(column)):
        if place[job] >= 0:
            more[place[job]] = column[job]
    more[kept:] = fresh
    return more


@njit(cache=True)
def _moved_state(state, place, kept, submit, run, width, estimate, request):  # type: ignore[no-untyped-def]
    """The sites with the jobs that are kept and those to come; the tables of running jobs are changed in place."""
    sites = len(state.sites)
    fresh = len(submit)
    jobs = np.zeros(kept + fresh + sites, JOB)
    jobs[kept:] = make_jobs(submit, run, width, estimate, request, sites)
    for job in range(len(place)):
        if place[job] < 0:
            continue
        row = jobs[place[job]]
        was = state.jobs[job]
        row.submit = was.submit
        row.run = was.run
        row.width = was.width
        row.estimate = was.estimate
        row.kind = was.kind
        row.request = was.request
        row.start = was.start
        row.until = was.until
        row.corrections = was.corrections
        # Links of jobs that are in no queue point anywhere; nobody follows them.
        row.after = max(place[was.after], 0)
        row.before = max(place[was.before], 0)
        row.longer = max(place[was.longer], 0)
        row.shorter = max(place[was.shorter], 0)
    for site in range(sites):
        here = state.sites[site]
        here.end = place[here.end]
        here.last_own = place[here.last_own]
        here.newest = place[here.newest]
        for i in range(here.first, here.count):
            key = state.running[site, i]
            if key >= 0:
                state.running[site, i] = (key & ~JOB_MASK) | place[key & JOB_MASK]
        for i in range(here.ends):
            key = state.heap_job[site, i]
            state.heap_job[site, i] = (key & ~JOB_MASK) | place[key & JOB_MASK]
    return State(
        jobs, state.sites, state.running, state.until, state.heap_time, state.heap_job, state.least, state.next_end,
        state.fresh,
    )  # fmt: skip


@njit(cache=True)
def _own(place, entered, home, old_home, kept, sites):  # type: ignore[no-untyped-def]
    """Jobs by home in order of submission, the place of the next to arrive alone, and the end of each home's."""
    count = kept + len(home)
    homes = np.empty(count, np.int64)
    homes[kept:] = home
    gone = np.zeros(sites, np.int64)
    for job in range(len(old_home)):
        if place[job] >= 0:
            homes[place[job]] = old_home[job]
            gone[old_home[job]] += entered[job]
    to = np.cumsum(np.bincount(homes, minlength=sites))
    at = gone
    at[1:] += to[:-1]
    own = np.empty(count, np.int64)
    begun = np.zeros(sites, np.int64)
    begun[1:] = to[:-1]
    for job in range(count):
        own[begun[homes[job]]] = job
        begun[homes[job]] += 1
    return own, at, to
