"""Tasks packed on nodes: nothing is given twice, nothing that fits is left waiting, and models and gangs are kept."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.twin.packing import Nodes, Policy, Tasks, pack
from isthmus.twin.packing.arrivals import resampled
from isthmus.twin.packing.go_random import GoRandom
from isthmus.twin.readers.openb import read_openb_nodes, read_openb_tasks

NODE = st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(0, 8), st.sampled_from([1, 2, 4]))
SHARED = st.tuples(st.just(1), st.sampled_from([100, 250, 460, 500, 999]))
WHOLE = st.tuples(st.integers(1, 8), st.just(1000))
TASK = st.tuples(
    st.integers(1, 16), st.integers(0, 16), st.one_of(st.just((0, 0)), SHARED, WHOLE), st.sampled_from([0, 0, 1, 6])
)


def nodes_of(rows: list[tuple[int, int, int, int]]) -> Nodes:
    cpu, memory, count, model = np.array(rows, dtype=np.int64).T.copy()
    return Nodes(cpu_milli=cpu * 1000, memory_mib=memory * 1024, accelerators=count, model=model)


def tasks_of(rows: list[tuple[int, int, tuple[int, int], int]]) -> Tasks:
    flat = np.array([(cpu, memory, *gang, models) for cpu, memory, gang, models in rows], dtype=np.int64)
    cpu, memory, count, milli, models = flat.T.copy()
    return Tasks(
        cpu_milli=cpu * 1000, memory_mib=memory * 1024, accelerators=count, accelerator_milli=milli, models=models
    )


@settings(max_examples=150, deadline=None)
@given(
    nodes=st.lists(NODE, min_size=1, max_size=6),
    tasks=st.lists(TASK, min_size=1, max_size=40),
    policy=st.sampled_from(get_args(Policy)),
)
def test_a_task_gets_what_is_free_and_waits_only_where_nothing_fits(
    nodes: list[tuple[int, int, int, int]], tasks: list[tuple[int, int, tuple[int, int], int]], policy: Policy
) -> None:
    """Replayed task by task: no processor, byte or accelerator is given twice, and -1 means that no node had room."""
    place, work = nodes_of(nodes), tasks_of(tasks)
    packed = pack(place, work, policy, seed=1)
    cpu, memory = place.cpu_milli.copy(), place.memory_mib.copy()
    left = [[1000] * int(count) for count in place.accelerators]
    for i in range(len(work)):
        count, milli = int(work.accelerators[i]), int(work.accelerator_milli[i])
        models = int(work.models[i])
        fits = [
            work.cpu_milli[i] <= cpu[n]
            and work.memory_mib[i] <= memory[n]
            and (models == 0 or models & int(place.model[n]) != 0)
            and sum(free >= milli for free in left[n]) >= count
            for n in range(len(place))
        ]
        n = int(packed.node[i])
        if n < 0:
            assert not any(fits)
            assert packed.accelerators[i] == 0
            continue
        assert fits[n]
        chosen = [g for g in range(8) if packed.accelerators[i] >> g & 1]
        assert len(chosen) == count
        for g in chosen:
            left[n][g] -= milli
            assert left[n][g] >= 0
        cpu[n] -= work.cpu_milli[i]
        memory[n] -= work.memory_mib[i]
    taken = 1000 * int(place.accelerators.sum()) - sum(map(sum, left))
    assert packed.used_milli[-1] == taken


def test_packing_prefers_shared_accelerators_and_best_fit_the_fuller_node() -> None:
    """Half an accelerator goes beside the other half; a processor goes where least is left."""
    place = nodes_of([(8, 8, 2, 1), (4, 8, 2, 1)])
    work = tasks_of([(1, 0, (1, 500), 0), (1, 0, (1, 500), 0), (1, 0, (1, 1000), 0)])
    packed = pack(place, work, "packing")
    assert packed.node.tolist() == [0, 0, 0]
    assert packed.accelerators.tolist() == [0b01, 0b01, 0b10]
    assert pack(place, tasks_of([(1, 0, (0, 0), 0)]), "best-fit").node.tolist() == [1]


def test_columns_that_cannot_be_are_refused() -> None:
    """Half of two accelerators, nine accelerators in a node, columns of different length."""
    with pytest.raises(Invalid, match="1 tasks ask for neither"):
        tasks_of([(1, 0, (2, 500), 0)])
    with pytest.raises(Invalid, match="more than 8"):
        nodes_of([(1, 1, 9, 1)])
    one = np.ones(1, np.int64)
    with pytest.raises(Invalid, match="differ in length"):
        Nodes(cpu_milli=one, memory_mib=one, accelerators=one, model=np.ones(2, np.int64))
    with pytest.raises(Invalid, match="worst-fit is unknown"):
        pack(nodes_of([(1, 1, 1, 1)]), tasks_of([(1, 0, (0, 0), 0)]), "worst-fit")  # type: ignore[arg-type]


def test_a_load_that_is_asked_for_already_is_refused() -> None:
    """Tasks are only ever added."""
    with pytest.raises(Invalid, match="ask for 1000 of 1000"):
        resampled(tasks_of([(1, 0, (1, 1000), 0)]), nodes_of([(1, 1, 1, 1)]), 0.5, 1)


def test_the_stream_is_that_of_go() -> None:
    """Seeded with 1, which Go programs long were by default, the first numbers below 100 are the well-known ones."""
    draw = GoRandom(1)
    assert [draw.below(100) for _ in range(10)] == [81, 87, 47, 59, 81, 18, 25, 40, 56, 0]
    assert sorted(GoRandom(2).permutation(50)) == list(range(50))
    assert GoRandom(7).below(64) < 64


def test_a_bad_line_of_a_trace_is_named_and_left_out(tmp_path: Path) -> None:
    """A missing field, a word for a number, a negative number, an unknown model."""
    (tmp_path / "tasks.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
        "a,1000,10,1,500,T4|P100\nb,1000\nc,1000,many,0,0,\nd,-1,10,0,0,\ne,1000,10,1,1000,H9\nf,1000,10,0,0,\n"
    )
    tasks, bad = read_openb_tasks(tmp_path / "tasks.csv")
    assert tasks.models.tolist() == [0b11, 0]
    assert [line.number for line in bad] == [3, 4, 5, 6]
    (tmp_path / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nx,64000,1000,2,P100\ny,1,1,0,\n")
    nodes, none = read_openb_nodes(tmp_path / "nodes.csv")
    assert (nodes.accelerators.tolist(), nodes.model.tolist(), none) == ([2, 0], [1, 0], ())
