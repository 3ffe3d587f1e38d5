"""Processors that fail, are repaired and are drained, at the sites of a federation; compiled.

A failure takes its processors at once, and the jobs that started last lose their work and wait again, by the time of their
submission; a drain takes them as jobs end. An outage comes after all else of its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.schedulers.backfill import FOREVER, correct, enqueue_again, kill_last, note, start_jobs
from isthmus.twin.schedulers.outages import Outage

Whole = NDArray[np.int64]


class Away(NamedTuple):
    """Outages in order of their begin."""

    begin: Whole
    finish: Whole
    site: Whole
    processors: Whole
    drain: NDArray[np.bool_]
    by_finish: Whole
    told: Whole  # [outages begun, outages finished, attempts lost, processor seconds lost]


def make_away(outages: Sequence[tuple[int, Outage]]) -> Away:
    """The outages of sites by number, none of them begun."""
    ordered = sorted(outages, key=lambda one: one[1].begin_seconds)
    finish = np.array([one.finish_seconds for _, one in ordered], dtype=np.int64)
    return Away(
        np.array([one.begin_seconds for _, one in ordered], dtype=np.int64),
        finish,
        np.array([site for site, _ in ordered], dtype=np.int64),
        np.array([one.processors for _, one in ordered], dtype=np.int64),
        np.array([one.drain for _, one in ordered], dtype=np.bool_),
        np.argsort(finish, kind="stable"),
        np.zeros(4, dtype=np.int64),
    )


@njit(cache=True)
def next_change(away):  # type: ignore[no-untyped-def]
    """When the next outage begins or finishes; FOREVER if there is none to come."""
    now = FOREVER
    if away.told[0] < len(away.begin):
        now = away.begin[away.told[0]]
    if away.told[1] < len(away.begin):
        now = min(now, away.finish[away.by_finish[away.told[1]]])
    return now


@njit(cache=True)
def change(away, state, least, home, guests_last, now):  # type: ignore[no-untyped-def]
    """Carry the next change out; (its site, the free processors after it)."""
    told = away.told
    ends = told[1] < len(away.begin) and away.finish[away.by_finish[told[1]]] <= now
    outage = away.by_finish[told[1]] if ends else told[0]
    told[1 if ends else 0] += 1
    site = away.site[outage]
    here = state.sites[site]
    correct(state, site, now)
    if ends:
        here.processors += away.processors[outage]
    else:
        owed = max(here.used - here.processors, 0)  # what drains still wait for
        here.processors -= away.processors[outage]
        while not away.drain[outage] and here.ends > 0 and here.used > here.processors + owed:
            job, begun = kill_last(state, site)
            told[2] += 1
            told[3] += (now - begun) * state.jobs[job].width
            note(least[site], state.jobs[job])
            enqueue_again(state, site, job, guests_last and home[job] != site)
    here.seen_free = -1
    return site, start_jobs(state, site, -1, now)
