"""Tasks that run and end on GPU nodes: nothing is given twice at any moment, and whoever waits has no room."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.twin.packing import Nodes, Policy, Tasks
from isthmus.twin.packing.replay import NodeOutage, Replayed, replay

# The first node has room for any task, so that none waits for ever.
NODE = st.tuples(st.integers(1, 16), st.integers(0, 4))
SHARED = st.tuples(st.just(1), st.sampled_from([250, 500, 700]))
WHOLE = st.tuples(st.integers(1, 4), st.just(1000))
TASK = st.tuples(st.integers(1, 8), st.one_of(st.just((0, 0)), SHARED, WHOLE), st.integers(0, 300), st.integers(1, 200))
OUTAGE = st.builds(
    lambda node, begin, length, drain: NodeOutage(
        node=node, begin_seconds=begin, finish_seconds=begin + length, drain=drain
    ),
    st.just(0),
    st.integers(0, 400),
    st.integers(1, 200),
    st.booleans(),
)


def case(
    nodes: list[tuple[int, int]], tasks: list[tuple[int, tuple[int, int], int, int]]
) -> tuple[Nodes, Tasks, np.ndarray, np.ndarray]:
    cpu, count = np.array([(16, 4), *nodes], dtype=np.int64).T.copy()
    places = Nodes(cpu_milli=cpu, memory_mib=np.ones_like(cpu), accelerators=count, model=(count > 0).astype(np.int64))
    rows = np.array([(cpu, *gang, arrival, run) for cpu, gang, arrival, run in tasks], dtype=np.int64)
    task_cpu, task_count, milli, arrival, run = rows.T.copy()
    zeros = np.zeros_like(task_cpu)
    work = Tasks(cpu_milli=task_cpu, memory_mib=zeros, accelerators=task_count, accelerator_milli=milli, models=zeros)
    return places, work, arrival, run


def free_at(
    moment: int, nodes: Nodes, tasks: Tasks, run: np.ndarray, done: Replayed
) -> tuple[list[int], list[list[int]]]:
    """CPU and accelerators that are free in each node, once what happens at this moment has happened."""
    cpu = nodes.cpu_milli.tolist()
    left = [[1000] * count for count in nodes.accelerators.tolist()]
    for i in np.flatnonzero((done.start_seconds <= moment) & (moment < done.start_seconds + run)).tolist():
        n = int(done.node[i])
        cpu[n] -= int(tasks.cpu_milli[i])
        for g in range(len(left[n])):
            if done.accelerators[i] >> g & 1:
                left[n][g] -= int(tasks.accelerator_milli[i])
    return cpu, left


@settings(max_examples=120, deadline=None)
@given(
    nodes=st.lists(NODE, max_size=3),
    tasks=st.lists(TASK, min_size=1, max_size=25),
    policy=st.sampled_from(get_args(Policy)),
)
def test_nothing_is_given_twice_and_whoever_waits_has_no_room(
    nodes: list[tuple[int, int]], tasks: list[tuple[int, tuple[int, int], int, int]], policy: Policy
) -> None:
    """At the moment of each arrival and end, worked out from the result alone."""
    places, work, arrival, run = case(nodes, tasks)
    done = replay(places, work, arrival, run, policy, seed=3)
    assert (done.start_seconds >= arrival).all()
    assert (done.attempts == 1).all()
    assert done.lost_milli_seconds == 0
    for i in range(len(work)):
        assert int(done.accelerators[i]).bit_count() == work.accelerators[i]
    for moment in sorted({*arrival.tolist(), *(done.start_seconds + run).tolist()}):
        cpu, left = free_at(moment, places, work, run, done)
        assert min(cpu) >= 0
        assert all(free >= 0 for node in left for free in node)
        for i in np.flatnonzero((arrival <= moment) & (moment < done.start_seconds)).tolist():
            for n in range(len(places)):
                enough = sum(free >= work.accelerator_milli[i] for free in left[n])
                assert work.cpu_milli[i] > cpu[n] or enough < work.accelerators[i]


@settings(max_examples=120, deadline=None)
@given(
    nodes=st.lists(NODE, max_size=2),
    tasks=st.lists(TASK, min_size=1, max_size=20),
    outages=st.lists(OUTAGE, max_size=3),
)
def test_every_task_ends_outside_the_failures_of_its_node(
    nodes: list[tuple[int, int]], tasks: list[tuple[int, tuple[int, int], int, int]], outages: list[NodeOutage]
) -> None:
    """The last attempt begins on a node that is in service, and no failure of the node comes before its end."""
    places, work, arrival, run = case(nodes, tasks)
    done = replay(places, work, arrival, run, "least-stranded", tuple(outages))
    assert (done.attempts >= 1).all()
    for i in range(len(work)):
        start, end = int(done.start_seconds[i]), int(done.start_seconds[i] + run[i])
        for outage in outages:
            if outage.node == done.node[i]:
                assert not outage.begin_seconds <= start < outage.finish_seconds
                assert outage.drain or not start < outage.begin_seconds < end
    if all(outage.drain for outage in outages):
        assert done.attempts.max() == 1
    for moment in done.start_seconds.tolist():
        cpu, left = free_at(moment, places, work, run, done)
        assert min(cpu) >= 0
        assert all(free >= 0 for node in left for free in node)


def test_a_failure_costs_the_work_done_and_a_drain_only_the_new() -> None:
    """A gang of four runs from 0 to 100 s; the node fails, or is drained, at 40 s, for 100 s."""
    places, work, arrival, run = case([], [(1, (4, 1000), 0, 100), (1, (0, 0), 50, 10)])
    failed = replay(places, work, arrival, run, "fgd", (NodeOutage(node=0, begin_seconds=40, finish_seconds=140),))
    assert (failed.start_seconds.tolist(), failed.attempts.tolist()) == ([140, 140], [2, 1])
    assert (failed.lost_milli_seconds, failed.used_milli_seconds) == (160_000, 400_000)
    drain = NodeOutage(node=0, begin_seconds=40, finish_seconds=140, drain=True)
    drained = replay(places, work, arrival, run, "fgd", (drain,))
    assert (drained.start_seconds.tolist(), drained.attempts.tolist()) == ([0, 140], [1, 1])


def test_what_could_never_run_is_refused() -> None:
    """A task larger than any node, one without a run time, an outage of a node that is not there."""
    places, work, arrival, run = case([], [(17, (0, 0), 0, 10)])
    with pytest.raises(Invalid, match="1 kinds of task have room on no node"):
        replay(places, work, arrival, run, "fgd")
    places, work, arrival, run = case([], [(1, (0, 0), 0, 10)])
    with pytest.raises(Invalid, match="1 tasks run for less"):
        replay(places, work, arrival, run * 0, "fgd")
    with pytest.raises(Invalid, match="There are 1 nodes"):
        replay(places, work, arrival, run, "fgd", (NodeOutage(node=1, begin_seconds=0, finish_seconds=1),))
    with pytest.raises(Invalid, match="It is empty"):
        NodeOutage(node=0, begin_seconds=1, finish_seconds=1)
