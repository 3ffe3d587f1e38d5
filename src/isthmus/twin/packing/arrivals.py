"""Arrivals as the FGD artefact (Weng et al., ATC 2023) makes them from a workload and a seed, and its measure of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.packing.columns import MILLI, Nodes, Tasks
from isthmus.twin.packing.go_random import GoRandom

# Other parts of the artefact, probably its Kubernetes informers, draw between the arrivals and the order of the nodes. How
# often was found by comparison: with 10, all 150 published runs of the policies that draw nothing agree; no other below 120 fits seed 42.
DRAWS_BETWEEN = 10


def resampled(tasks: Tasks, nodes: Nodes, load: float, seed: int) -> tuple[Tasks, Nodes]:
    """The tasks in random order, more of them drawn until they ask for `load` times all accelerators; nodes shuffled.

    `tasks` in the order of their names. Invalid where the tasks ask for more than that already, or for none.
    """
    capacity = int(nodes.accelerators.sum()) * MILLI
    asked = tasks.total_milli.tolist()
    each = tasks.accelerator_milli.tolist()
    total = sum(asked)
    if not 0 < total <= load * capacity:
        raise Invalid("load", f"The tasks ask for {total} of {capacity} already.", remedy="Give a higher load.")
    draw = GoRandom(seed)
    draw.int63()  # written to its log
    order = list(range(len(tasks)))
    draw.shuffle(order)
    while True:
        task = draw.below(len(tasks))
        if total + each[task] > load * capacity:
            break
        total += asked[task]
        order.append(task)
    for _ in range(DRAWS_BETWEEN):
        draw.int63()
    places = np.argsort(np.array(draw.permutation(len(nodes)), dtype=np.int64))
    return tasks.take(np.array(order, dtype=np.int64)), nodes.take(places)


def allocation(tasks: Tasks, used_milli: NDArray[np.int64], nodes: Nodes, percent: int) -> float:
    """Per cent of all accelerators in use when about `percent` of them had been asked for, as the artefact rounds it.

    The mean, to two decimals, over the arrivals at which the load rounds to `percent`; NaN where there is none.
    """
    capacity = int(nodes.accelerators.sum()) * MILLI
    load = np.round(np.cumsum(tasks.total_milli) / capacity * 100)
    allocated = np.round(used_milli / capacity * 100, 2)[load == percent]
    return round(float(allocated.mean()), 2) if len(allocated) else float("nan")
