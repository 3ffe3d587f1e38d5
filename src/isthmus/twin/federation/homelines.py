"""What is at each home site and who of its people waits, as the service reads it from its store (`placement.homerow`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.placement import Claim, HomeLine, Snapshot, WaitingTask
from isthmus.twin.federation.batches import running_at, waiting_at
from isthmus.twin.federation.surroundings import MEMORY

MOST_WAITING = 200  # the service's own (engine.homes)


def with_homes(
    snapshot: Snapshot,
    state: Any,
    home: NDArray[np.int64],
    waiting: Mapping[int, WaitingTask],
    on_their_way: Iterable[tuple[int, int]],
    expected: Callable[[int], float],
) -> Snapshot:
    """The snapshot with a line at every site. `home` by job; `waiting` are the tasks that have no place, by job; `on_their_way`
    (job, site) those whose data moves; `expected` says how many seconds a job was believed to run when it was placed."""
    found = np.empty(max(len(home), 1), dtype=np.int64)
    coming: dict[int, list[int]] = {}
    for job, site in on_their_way:
        coming.setdefault(site, []).append(job)
    views = []
    for site, view in enumerate(snapshot.pools):
        there = found[: running_at(state, site, found)].tolist()
        running = [_claim(state, job, expected(job), snapshot.now) for job in there]
        queue = found[: waiting_at(state, site, found)].tolist() + coming.get(site, [])
        own = [job for job in queue if home[job] == site]
        running += [_claim(state, job, expected(job)) for job in queue if home[job] != site]
        line = tuple(_claim(state, job, expected(job)) for job in own[:MOST_WAITING])
        views.append(replace(view, home=HomeLine(running=tuple(running), waiting=line)))
    bound: dict[int, list[WaitingTask]] = {}
    for job in sorted(waiting):
        bound.setdefault(int(home[job]), []).append(waiting[job])
    homebound = tuple(task for site in sorted(bound) for task in bound[site][:MOST_WAITING])
    return replace(snapshot, pools=tuple(views), homebound=homebound)


def _claim(state: Any, job: int, expected: float, now: float | None = None) -> Claim:
    row = state.jobs[job]
    ran = 0.0 if now is None else max(0.0, now - float(row["start"]))
    return Claim(cpus=int(row["width"]), memory_bytes=MEMORY, seconds=max(expected - ran, 0.1 * ran))
