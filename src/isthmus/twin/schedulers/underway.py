"""A site's running jobs in order of predicted end, compiled: an array in which jobs that are over leave gaps for those to come.

The entries lie from `first` to `count` of the site's row. An entry is the job's width above its number, so that adding up
what becomes free touches no other table; -1 is a gap, which keeps its predicted end, so that the order holds. A job goes
into the nearest gap; only where there is none within reach do all behind it move up. So with many running jobs, there are
gaps enough, and both starting and ending cost about as much with a thousand running jobs as with fifty. Of few, all move.
"""

from __future__ import annotations

from numba import njit

JOB_BITS = 28  # of an entry, for the job's number
JOB_MASK = (1 << JOB_BITS) - 1
REACH = 24  # places on either side where a gap is looked for
FEW = 64  # entries that are sooner moved than searched


@njit(cache=True)
def set_out(here, running, until, key, time):  # type: ignore[no-untyped-def]
    """Put an entry in, behind all whose predicted end is the same or before. The row needs room for one more job."""
    if here.count == len(running):
        _close_up(here, running, until)
    if here.count - here.first < FEW:
        k = here.count
        while k > here.first and until[k - 1] > time:
            running[k] = running[k - 1]
            until[k] = until[k - 1]
            k -= 1
        running[k] = key
        until[k] = time
        here.count += 1
        return
    place = _first_after(until, here.first, here.count, time)
    right = min(place + REACH, here.count)
    for k in range(place, right):
        if running[k] < 0:
            _move_up(running, until, place, k)
            running[place] = key
            until[place] = time
            return
    if right < here.count:
        for k in range(place - 1, max(place - REACH, here.first) - 1, -1):
            if running[k] < 0:
                _move_down(running, until, k, place - 1)
                running[place - 1] = key
                until[place - 1] = time
                return
    _move_up(running, until, place, here.count)
    running[place] = key
    until[place] = time
    here.count += 1


@njit(cache=True)
def take_out(here, running, until, key, time):  # type: ignore[no-untyped-def]
    """Leave a gap where an entry with this predicted end was, or close up; no gap is first or last."""
    if here.count - here.first < FEW:
        place = here.first
        while running[place] != key:
            place += 1
        _move_down(running, until, place, here.count - 1)
        here.count -= 1
        _trim(here, running)
        return
    place = _first_after(until, here.first, here.count, time - 1)
    while running[place] != key:
        place += 1
    running[place] = -1
    _trim(here, running)


@njit(cache=True)
def _trim(here, running):  # type: ignore[no-untyped-def]
    while here.first < here.count and running[here.first] < 0:
        here.first += 1
    while here.count > here.first and running[here.count - 1] < 0:
        here.count -= 1
    if here.first == here.count:
        here.first = here.count = 0


@njit(cache=True)
def _first_after(until, low, high, time):  # type: ignore[no-untyped-def]
    """The first place whose predicted end is later."""
    while low < high:
        middle = (low + high) // 2
        if until[middle] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _move_up(running, until, begin, end):  # type: ignore[no-untyped-def]
    for k in range(end, begin, -1):
        running[k] = running[k - 1]
        until[k] = until[k - 1]


@njit(cache=True)
def _move_down(running, until, begin, end):  # type: ignore[no-untyped-def]
    for k in range(begin, end):
        running[k] = running[k + 1]
        until[k] = until[k + 1]


@njit(cache=True)
def _close_up(here, running, until):  # type: ignore[no-untyped-def]
    kept = 0
    for k in range(here.first, here.count):
        if running[k] >= 0:
            running[kept] = running[k]
            until[kept] = until[k]
            kept += 1
    here.first = 0
    here.count = kept
