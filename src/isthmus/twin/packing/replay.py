"""Tasks that arrive, run and end on nodes that fail, are repaired and drained: who waits how long, compiled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.packing.mix import Mix, typical
from isthmus.twin.packing.pack import Policy, draws_of, pack, policy_number
from isthmus.twin.packing.place import changed, choose, empty_site, occupy, release
from isthmus.twin.schedulers.heap import heap_pop, heap_push

FOREVER = np.int64(2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutage:
    """A node that takes no new tasks from `begin_seconds` to `finish_seconds`.

    Where it is not drained it fails: its tasks lose their work, and wait again.
    """

    node: int
    begin_seconds: int
    finish_seconds: int
    drain: bool = False

    def __post_init__(self) -> None:
        if self.finish_seconds <= self.begin_seconds or self.node < 0:
            raise Invalid("outage", "It is empty.", remedy="Let it last a second, on a node from 0 on.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Per task its last attempt: start, node, accelerators (a bit each); and its attempts. What was lost with the others.

    `used_milli_seconds` and `lost_milli_seconds` are thousandths of an accelerator times seconds.
    """

    start_seconds: NDArray[np.int64]
    node: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    attempts: NDArray[np.int64]
    used_milli_seconds: int
    lost_milli_seconds: int


def replay(
    nodes: Nodes,
    tasks: Tasks,
    arrival_seconds: NDArray[np.int64],
    run_seconds: NDArray[np.int64],
    policy: Policy,
    outages: tuple[NodeOutage, ...] = (),
    mix: Mix | None = None,
    seed: int = 0,
) -> Replayed:
    """Each task, in order of arrival, on the node that the policy scores highest; those with no room wait.

    At each event those that wait are tried in order of arrival; one with no room does not hold up the others.
    Invalid where a task runs for less than a second, or has room on no node even where nothing else runs.
    """
    wrong = (run_seconds < 1) | (len(arrival_seconds) != len(tasks)) | (len(run_seconds) != len(tasks))
    if wrong.any():
        raise Invalid("run_seconds", f"{int(wrong.sum())} tasks run for less than a second, or columns differ.")
    if any(outage.node >= len(nodes) for outage in outages):
        raise Invalid("outages", f"There are {len(nodes)} nodes.", remedy="Count them from 0.")
    order = np.argsort(arrival_seconds, kind="stable")
    arrived = tasks.take(order)
    expected = mix if mix is not None else typical(tasks)
    site, state, kind = empty_site(nodes, arrived, policy_number(policy), expected)
    _every_kind_fits(nodes, arrived, kind)
    events = sorted(outages, key=lambda outage: outage.begin_seconds)
    finish = np.array([outage.finish_seconds for outage in events], dtype=np.int64)
    start, node, bits, attempts, lost = _replay(
        site,
        state,
        kind,
        np.ascontiguousarray(arrival_seconds[order], dtype=np.int64),
        np.ascontiguousarray(run_seconds[order], dtype=np.int64),
        draws_of(policy, len(tasks), seed),
        np.array([outage.node for outage in events], dtype=np.int64),
        np.array([outage.begin_seconds for outage in events], dtype=np.int64),
        finish,
        np.array([outage.drain for outage in events], dtype=np.bool_),
        np.argsort(finish, kind="stable"),
    )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Replayed(
        start_seconds=start[back],
        node=node[back],
        accelerators=bits[back],
        attempts=attempts[back],
        used_milli_seconds=int((tasks.total_milli * run_seconds).sum()),
        lost_milli_seconds=int(lost),
    )


def _every_kind_fits(nodes: Nodes, tasks: Tasks, kind: NDArray[np.int64]) -> None:
    _, first = np.unique(kind, return_index=True)
    alone = sum(int(pack(nodes, tasks.take(first[i : i + 1]), "best-fit").node[0] < 0) for i in range(len(first)))
    if alone:
        raise Invalid("tasks", f"{alone} kinds of task have room on no node.", remedy="Leave them out first.")


@njit(cache=True)
def _replay(site, state, kind, arrival, run, draws, broken, begin, finish, drain, by_finish):  # type: ignore[no-untyped-def]
    tasks = len(kind)
    start = np.full(tasks, -1, np.int64)
    node = np.full(tasks, -1, np.int64)
    bits = np.zeros(tasks, np.int64)
    attempts = np.zeros(tasks, np.int64)
    active = np.zeros(tasks, np.bool_)
    queue = np.empty(tasks, np.int64)
    # A kind of task that found no room finds none until something is freed.
    full = np.zeros(len(site.kinds), np.bool_)
    heap_time = np.empty(tasks, np.int64)
    heap_task = np.empty(tasks, np.int64)
    lost = 0
    queued = 0
    ends = 0
    arrived = 0
    begun = 0
    finished = 0
    while arrived < tasks or ends > 0 or queued > 0:
        now = FOREVER
        if arrived < tasks:
            now = arrival[arrived]
        if ends > 0:
            now = min(now, heap_time[0])
        if begun < len(begin):
            now = min(now, begin[begun])
        if finished < len(begin):
            now = min(now, finish[by_finish[finished]])
        freed = False
        while ends > 0 and heap_time[0] <= now:
            i = heap_task[0]
            # An entry of an attempt that was lost is passed over.
            if active[i] and start[i] + run[i] == heap_time[0]:
                active[i] = False
                release(site, state, kind[i], node[i], bits[i])
                freed = True
            ends = heap_pop(heap_time, heap_task, ends)
        while finished < len(begin) and finish[by_finish[finished]] <= now:
            n = broken[by_finish[finished]]
            state.closed[n] -= 1
            changed(state, n)
            freed = True
            finished += 1
        tried = 0 if freed else queued  # those before it have been tried, with no less room than now
        while begun < len(begin) and begin[begun] <= now:
            n = broken[begun]
            state.closed[n] += 1
            changed(state, n)
            if not drain[begun]:
                for i in range(arrived):
                    if active[i] and node[i] == n:
                        active[i] = False
                        release(site, state, kind[i], n, bits[i])
                        lost += (now - start[i]) * site.kinds[kind[i], 2] * site.kinds[kind[i], 3]
                        queue[queued] = i
                        queued += 1
                        tried = 0
            begun += 1
        while arrived < tasks and arrival[arrived] <= now:
            queue[queued] = arrived
            queued += 1
            arrived += 1
        if tried == 0:
            queue[:queued].sort()  # in order of arrival, those that lost their node included
            full[:] = False
        kept = tried
        for place in range(tried, queued):
            i = queue[place]
            n = -1
            if not full[kind[i]]:
                n = choose(site, state, kind[i], draws[i, 0])
            if n < 0:
                full[kind[i]] = True
                queue[kept] = i
                kept += 1
                continue
            bits[i] = occupy(site, state, kind[i], n, draws[i, 1])
            node[i] = n
            start[i] = now
            attempts[i] += 1
            active[i] = True
            if ends == len(heap_time):
                heap_time = _grown(heap_time)
                heap_task = _grown(heap_task)
            ends = heap_push(heap_time, heap_task, ends, now + run[i], i)
        queued = kept
    return start, node, bits, attempts, lost


@njit(cache=True)
def _grown(table):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(table), np.int64)
    larger[: len(table)] = table
    return larger
