"""Tasks placed on nodes one by one, none ever ending, compiled: where each goes, and how full the accelerators get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.packing.columns import MILLI, MOST, Nodes, Tasks
from isthmus.twin.packing.mix import Mix, typical
from isthmus.twin.packing.scores import FGD, LEAST_STRANDED, RANDOM, baseline, descend, least_stranded, lost, tightest

Policy = Literal["random", "dot-product", "clustering", "packing", "best-fit", "fgd", "least-stranded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Per task: its node (-1: none had room), the accelerators used (a bit each), and what is in use after it (milli)."""

    node: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    used_milli: NDArray[np.int64]


def pack(nodes: Nodes, tasks: Tasks, policy: Policy, mix: Mix | None = None, seed: int = 0) -> Packed:
    """Place each task, in order of arrival, on the node that the policy scores highest, the first of equals.

    `mix` is the workload that fgd and least-stranded expect (default: these tasks'); `seed` is used by random only.
    """
    if policy not in get_args(Policy):
        raise Invalid("policy", f"{policy} is unknown.", remedy=f"Use one of {', '.join(get_args(Policy))}.")
    expected = mix if mix is not None else typical(tasks)
    columns = np.stack(
        [tasks.cpu_milli, tasks.memory_mib, tasks.accelerators, tasks.accelerator_milli, tasks.models], axis=1
    )
    kinds, kind = np.unique(columns, axis=0, return_inverse=True)
    draws = np.random.default_rng(seed).random((len(tasks), 2)) if policy == "random" else np.zeros((len(tasks), 2))
    node, used_bits, used = _pack(
        get_args(Policy).index(policy),
        nodes.cpu_milli,
        nodes.memory_mib,
        nodes.accelerators,
        nodes.model,
        kinds,
        kind.reshape(-1),
        (expected.cpu_milli, expected.accelerators, expected.accelerator_milli, expected.models, expected.share),
        expected.cpu_each,
        draws,
    )
    return Packed(node=node, accelerators=used_bits, used_milli=used)


@njit(cache=True)
def _pack(policy, node_cpu, node_memory, counts, model, kinds, kind, mix, cpu_each, draws):  # type: ignore[no-untyped-def]
    size = len(node_cpu)
    cpu = node_cpu.copy()
    memory = node_memory.copy()
    left = np.zeros((size, MOST), np.int64)
    for n in range(size):
        left[n, : counts[n]] = MILLI
    tags = np.zeros((size, MOST + 1), np.int64)
    fragments = np.full(size, -1.0)
    # What a kind of task scores on a node stays until the node changes; -inf: it does not fit, nan: not known.
    score = np.full((len(kinds), size), np.nan)
    choice = np.full((len(kinds), size), -1, np.int64)
    placed = np.full(len(kind), -1, np.int64)
    bits = np.zeros(len(kind), np.int64)
    used = np.zeros(len(kind), np.int64)
    total = 0
    for i in range(len(kind)):
        k = kind[i]
        task_cpu, task_memory, task_count, task_milli, task_models = kinds[k]
        best = -1
        fitting = 0
        for n in range(size):
            if np.isnan(score[k, n]):
                score[k, n] = -np.inf
                choice[k, n] = -1
                if (
                    task_cpu <= cpu[n]
                    and task_memory <= memory[n]
                    and (task_models == 0 or task_models & model[n] != 0)
                ):
                    enough = 0
                    for g in range(counts[n]):
                        if left[n, g] >= task_milli:
                            enough += 1
                    if task_count == 0 or enough >= task_count:
                        if policy == RANDOM:
                            score[k, n] = 0.0
                        elif policy in (FGD, LEAST_STRANDED):
                            if fragments[n] < 0.0:
                                fragments[n] = lost(left[n], counts[n], cpu[n], model[n], *mix)
                            score[k, n], choice[k, n] = descend(
                                policy == LEAST_STRANDED,
                                fragments[n],
                                left[n],
                                counts[n],
                                cpu[n],
                                model[n],
                                task_cpu,
                                task_count,
                                task_milli,
                                mix,
                            )
                            if policy == LEAST_STRANDED:
                                score[k, n] = least_stranded(
                                    score[k, n], left[n], counts[n], cpu[n], task_cpu, task_count, task_milli, cpu_each
                                )
                        else:
                            score[k, n] = baseline(
                                policy, left[n], counts[n], cpu[n], tags[n], task_cpu, task_count, task_milli
                            )
            if score[k, n] > -np.inf:
                fitting += 1
                if best < 0 or score[k, n] > score[k, best]:
                    best = n
        if best >= 0:
            if policy == RANDOM:
                best = _nth(score[k], int(draws[i, 0] * fitting))
            if task_count > 0 and task_milli < MILLI:
                g = choice[k, best]
                if policy == RANDOM:
                    g = _nth_enough(left[best], counts[best], task_milli, draws[i, 1])
                elif g < 0:
                    g = tightest(left[best], counts[best], task_milli)
                left[best, g] -= task_milli
                bits[i] = 1 << g
                tags[best, 0] += 1
            elif task_count > 0:
                rest = task_count
                for g in range(counts[best]):
                    if rest > 0 and left[best, g] == MILLI:
                        left[best, g] = 0
                        bits[i] |= 1 << g
                        rest -= 1
                tags[best, task_count] += 1
            cpu[best] -= task_cpu
            memory[best] -= task_memory
            placed[i] = best
            total += task_count * task_milli
            fragments[best] = -1.0
            score[:, best] = np.nan
        used[i] = total
    return placed, bits, used


@njit(cache=True)
def _nth(scores, number):  # type: ignore[no-untyped-def]
    for n in range(len(scores)):
        if scores[n] > -np.inf:
            if number == 0:
                return n
            number -= 1
    return -1


@njit(cache=True)
def _nth_enough(left, count, milli, draw):  # type: ignore[no-untyped-def]
    enough = 0
    for g in range(count):
        if left[g] >= milli:
            enough += 1
    number = int(draw * enough)
    for g in range(count):
        if left[g] >= milli:
            if number == 0:
                return g
            number -= 1
    return -1
