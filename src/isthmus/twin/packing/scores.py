"""How well a task suits a node, compiled; the higher the better. Whole numbers from 0 to 100, as in the FGD artefact.

FGD: Weng et al., "Beware of fragmentation", ATC 2023, with its baselines: best fit, dot product (Tetris, SIGCOMM 2014),
packing and clustering (Gandiva, OSDI 2018), random. Least stranded is our own: FGD does not see that an accelerator
which the next task could use will stand idle once the node's CPU is gone, nor gains too small for its whole numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

MILLI = 1000
MOST_CPU = 128_000.0  # of one node, by which FGD's baselines norm
MOST_MILLI = 8000
RANDOM, DOT_PRODUCT, CLUSTERING, PACKING, BEST_FIT, FGD, LEAST_STRANDED = range(7)
# Found on arrivals of seeds 100 to 103, none of which is a published one; halving or doubling them changes little.
STRANDED_WEIGHT = 0.3
SPARE_WEIGHT = 0.02


@njit(cache=True)
def lost(left, n, count, cpu, model, mix_cpu, mix_count, mix_milli, mix_models, mix_share):  # type: ignore[no-untyped-def]
    """Thousandths of accelerators that the mix's next task, on average, cannot use in a node with this much left."""
    total = 0
    for g in range(count):
        total += left[n, g]
    if total == 0:
        return 0.0
    # Summed in the artefact's groups, since the scores are cut to whole numbers.
    lack_both = 0.0
    lack_accelerator = 0.0
    lack_cpu = 0.0
    cpu_only = 0.0
    cpu_only_lack = 0.0
    no_access = 0.0
    for k in range(len(mix_cpu)):
        milli = mix_milli[k]
        whole = mix_share[k] * total
        enough = cpu >= mix_cpu[k]
        if milli == 0:
            if enough:
                cpu_only += whole
            else:
                cpu_only_lack += whole
            continue
        if mix_models[k] != 0 and mix_models[k] & model == 0:
            no_access += whole
            continue
        fit = 0
        part = 0
        for g in range(count):
            if left[n, g] >= milli:
                fit += 1
            else:
                part += left[n, g]
        if fit >= mix_count[k]:
            if enough:
                lack_accelerator += mix_share[k] * part
            else:
                lack_cpu += whole
        elif enough:
            lack_accelerator += whole
        else:
            lack_both += whole
    return lack_both + lack_accelerator + lack_cpu + cpu_only + cpu_only_lack + no_access


@njit(cache=True)
def tightest(left, n, count, milli):  # type: ignore[no-untyped-def]
    """The accelerator with the least left that is enough, the first of alike ones; -1 where none is."""
    best = -1
    for g in range(count):
        if left[n, g] >= milli and (best < 0 or left[n, g] < left[n, best]):
            best = g
    return best


@njit(cache=True)
def baseline(policy, left, n, count, cpu, tags, task_cpu, task_count, task_milli):  # type: ignore[no-untyped-def]
    """Scores of the policies that look only at the node and the task; `tags` counts the node's tasks by kind of gang."""
    total = 0
    idle = 0
    for g in range(count):
        total += left[n, g]
        if left[n, g] == MILLI:
            idle += 1
    if policy == BEST_FIT:
        spare = (cpu - task_cpu) / MOST_CPU * 0.5
        spare += (total - task_count * task_milli) / float(MOST_MILLI) * 0.5
        return int((1.0 - spare) * 100.0)
    if policy == DOT_PRODUCT:
        product = cpu / MOST_CPU * (task_cpu / MOST_CPU)
        product += total / float(MOST_MILLI) * (task_count * task_milli / float(MOST_MILLI))
        return int(100.0 * (1.0 - product / 2.0))
    if task_count == 0:
        return 0
    if policy == CLUSTERING:
        used = 25 * (MOST_MILLI - total) // MOST_MILLI
        kinds = 0
        for tag in range(tags.shape[1]):
            if tags[n, tag] > 0:
                kinds += 1
        if tags[n, 0 if task_milli < MILLI else task_count] > 0:
            return used + (75 if kinds == 1 else 50)
        return used + (25 if kinds == 0 else 0)
    # Packing: shared accelerators first, then idle ones of a node in use, then of an idle node.
    if idle == count:
        return max(33 - idle, idle)
    if task_milli == MILLI:
        return max(50 - task_count, 33)
    chosen = left[n, tightest(left, n, count, task_milli)]
    if chosen == MILLI:
        return 49
    return max(100 - chosen * 100 // MILLI // 10, 50)


@njit(cache=True)
def descend(exact, before, left, n, after, count, cpu, model, task_cpu, task_count, task_milli, mix):  # type: ignore[no-untyped-def]
    """Score and accelerator (-1: whole ones) that lose least to fragments; `before` is what is lost without the task.

    `after` is room for one row of `left`.

    Exact: the accelerators kept from fragments. Else, as in FGD, that squeezed into whole numbers from 0 to 100.
    """
    for g in range(count):
        after[0, g] = left[n, g]
    best = -1
    score = -np.inf
    if task_count == 1 and task_milli < MILLI:
        for g in range(count):
            if left[n, g] >= task_milli:
                after[0, g] = left[n, g] - task_milli
                gain = (before - lost(after, 0, count, cpu - task_cpu, model, *mix)) / 1000.0
                after[0, g] = left[n, g]
                value = gain if exact else np.floor(1.0 / (1.0 + math.exp(-gain)) * 100.0)
                if value > score:
                    score = value
                    best = g
        return score, best
    rest = task_count
    for g in range(count):
        if rest > 0 and left[n, g] == MILLI:
            after[0, g] = 0
            rest -= 1
    gain = (before - lost(after, 0, count, cpu - task_cpu, model, *mix)) / 1000.0
    return gain if exact else np.floor(1.0 / (1.0 + math.exp(-gain)) * 100.0), best


@njit(cache=True)
def stranded(cpu, total, cpu_each):  # type: ignore[no-untyped-def]
    """Accelerators, of `total` thousandths left, for which there is no CPU at `cpu_each` thousandths of a core each."""
    return max(total / 1000.0 - cpu / cpu_each, 0.0)


@njit(cache=True)
def least_stranded(kept, left, n, count, cpu, task_cpu, task_count, task_milli, cpu_each):  # type: ignore[no-untyped-def]
    """Our own: accelerators `kept` from fragments, and from standing without CPU; among near equals the fuller node."""
    total = 0
    for g in range(count):
        total += left[n, g]
    rest = total - task_count * task_milli
    change = stranded(cpu, total, cpu_each) - stranded(cpu - task_cpu, rest, cpu_each)
    spare = (cpu - task_cpu) / MOST_CPU + rest / float(MOST_MILLI)
    return kept + STRANDED_WEIGHT * change - SPARE_WEIGHT * spare
