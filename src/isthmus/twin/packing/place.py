"""One task put on the node that suits it best, and taken off again, compiled; the state of a site's nodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.packing.columns import MILLI, MOST, Nodes, Tasks
from isthmus.twin.packing.mix import Mix
from isthmus.twin.packing.scores import (
    FGD,
    LEAST_STRANDED,
    RANDOM,
    baseline,
    descend,
    least_stranded,
    lost,
    tightest,
)


class Site(NamedTuple):
    """What does not change: nodes, the kinds of task (cpu, memory, accelerators, milli of each, models), the policy."""

    policy: int
    counts: NDArray[np.int64]
    model: NDArray[np.int64]
    kinds: NDArray[np.int64]
    mix: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
    cpu_each: float


class State(NamedTuple):
    """What is left in each node; `score` and `choice` by kind and node: -inf: it does not fit, nan: not worked out.

    `closed` counts the reasons why a node takes no new tasks; `tags` the node's tasks by kind of gang; `row` is
    room to work in.
    """

    cpu: NDArray[np.int64]
    memory: NDArray[np.int64]
    left: NDArray[np.int64]
    tags: NDArray[np.int64]
    fragments: NDArray[np.float64]
    score: NDArray[np.float64]
    choice: NDArray[np.int64]
    closed: NDArray[np.int64]
    row: NDArray[np.int64]


def empty_site(nodes: Nodes, tasks: Tasks, policy: int, mix: Mix) -> tuple[Site, State, NDArray[np.int64]]:
    """The site with nothing on it, and each task's kind."""
    columns = np.stack(
        [tasks.cpu_milli, tasks.memory_mib, tasks.accelerators, tasks.accelerator_milli, tasks.models], axis=1
    )
    kinds, kind = np.unique(columns, axis=0, return_inverse=True)
    left = np.where(np.arange(MOST) < nodes.accelerators[:, None], MILLI, 0)
    expected = (mix.cpu_milli, mix.accelerators, mix.accelerator_milli, mix.models, mix.share)
    state = State(
        cpu=nodes.cpu_milli.copy(),
        memory=nodes.memory_mib.copy(),
        left=left,
        tags=np.zeros((len(nodes), MOST + 1), dtype=np.int64),
        fragments=np.full(len(nodes), -1.0),
        score=np.full((len(kinds), len(nodes)), np.nan),
        choice=np.full((len(kinds), len(nodes)), -1, dtype=np.int64),
        closed=np.zeros(len(nodes), dtype=np.int64),
        row=np.zeros((1, MOST), dtype=np.int64),
    )
    return Site(policy, nodes.accelerators, nodes.model, kinds, expected, mix.cpu_each), state, kind.reshape(-1)


@njit(cache=True)
def changed(state, n):  # type: ignore[no-untyped-def]
    """To be called when something of a node has changed: what was worked out for it is forgotten."""
    state.fragments[n] = -1.0
    state.score[:, n] = np.nan


@njit(cache=True)
def choose(site, state, k, draw):  # type: ignore[no-untyped-def]
    """The node that suits a task of kind `k` best, the first of equals; -1 where none has room."""
    # Passing these tuples on, or single rows of their arrays, would cost more than most scores.
    policy, counts, model, kinds, mix, cpu_each = site
    free_cpu, free_memory, lefts, tags, fragments, scores, choices, closed, row = state
    cpu, memory, count, milli, models = kinds[k]
    best = -1
    fitting = 0
    for n in range(len(counts)):
        if np.isnan(scores[k, n]):
            scores[k, n] = -np.inf
            choices[k, n] = -1
            fits = closed[n] == 0 and cpu <= free_cpu[n] and memory <= free_memory[n]
            if fits and (models == 0 or models & model[n] != 0):
                enough = 0
                for g in range(counts[n]):
                    if lefts[n, g] >= milli:
                        enough += 1
                if enough >= count:
                    if policy == RANDOM:
                        scores[k, n] = 0.0
                    elif policy in (FGD, LEAST_STRANDED):
                        if fragments[n] < 0.0:
                            fragments[n] = lost(lefts, n, counts[n], free_cpu[n], model[n], *mix)
                        exact = policy == LEAST_STRANDED
                        scores[k, n], choices[k, n] = descend(
                            exact, fragments[n], lefts, n, row, counts[n], free_cpu[n], model[n], cpu, count, milli, mix
                        )
                        if exact:
                            scores[k, n] = least_stranded(
                                scores[k, n], lefts, n, counts[n], free_cpu[n], cpu, count, milli, cpu_each
                            )
                    else:
                        scores[k, n] = baseline(policy, lefts, n, counts[n], free_cpu[n], tags, cpu, count, milli)
        if scores[k, n] > -np.inf:
            fitting += 1
            if best < 0 or scores[k, n] > scores[k, best]:
                best = n
    if policy == RANDOM and best >= 0:
        number = int(draw * fitting)
        for n in range(len(counts)):
            if scores[k, n] > -np.inf:
                if number == 0:
                    return n
                number -= 1
    return best


@njit(cache=True)
def occupy(site, state, k, n, draw):  # type: ignore[no-untyped-def]
    """Put a task of kind `k` on node `n`, which has room; a bit for each accelerator that it gets."""
    cpu, memory, count, milli, _ = site.kinds[k]
    left = state.left
    bits = 0
    if count > 0 and milli < MILLI:
        g = state.choice[k, n]
        if site.policy == RANDOM:
            g = _nth_enough(left, n, site.counts[n], milli, draw)
        elif g < 0:
            g = tightest(left, n, site.counts[n], milli)
        left[n, g] -= milli
        bits = 1 << g
        state.tags[n, 0] += 1
    elif count > 0:
        rest = count
        for g in range(site.counts[n]):
            if rest > 0 and left[n, g] == MILLI:
                left[n, g] = 0
                bits |= 1 << g
                rest -= 1
        state.tags[n, count] += 1
    state.cpu[n] -= cpu
    state.memory[n] -= memory
    changed(state, n)
    return bits


@njit(cache=True)
def release(site, state, k, n, bits):  # type: ignore[no-untyped-def]
    """Take off node `n` a task of kind `k` that had these accelerators."""
    cpu, memory, count, milli, _ = site.kinds[k]
    for g in range(site.counts[n]):
        if bits >> g & 1:
            state.left[n, g] += milli
    if count > 0:
        state.tags[n, 0 if milli < MILLI else count] -= 1
    state.cpu[n] += cpu
    state.memory[n] += memory
    changed(state, n)


@njit(cache=True)
def _nth_enough(left, n, count, milli, draw):  # type: ignore[no-untyped-def]
    enough = 0
    for g in range(count):
        if left[n, g] >= milli:
            enough += 1
    number = int(draw * enough)
    for g in range(count):
        if left[n, g] >= milli:
            if number == 0:
                return g
            number -= 1
    return -1
