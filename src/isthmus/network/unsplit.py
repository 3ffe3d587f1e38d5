"""One waypoint, or none, for each whole demand: rounding of the weighted splits, then a local search over links that are fullest.

For routers or owners who cannot split a demand. The search is deterministic: it lowers a smooth maximum (the sum of
exponentials of link utilisations), one demand at a time, largest share of the fullest link first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.network.ecmp import distances, split_ratios
from isthmus.network.topology import Floats, Integers, Topology
from isthmus.network.waypoints import Steering

_SHARPNESS = (20.0, 60.0, 200.0, 600.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """`waypoint` [N, N] from row to column, equal to the column where the demand goes direct; `loads` [M] in bits/s."""

    waypoint: Integers
    loads: Floats
    utilisation: float


def steer_unsplit(
    topology: Topology,
    demands: Floats,
    split: Steering,
    *,
    good_enough: float = 0.0,
    moves: int = 2000,
    ratios: Floats | None = None,
) -> Assignment:
    """Whole demands over at most one waypoint, starting from the largest share of each in `split`; never worse than direct.

    Stops at or under the utilisation `good_enough`, or after `moves` moves at each sharpness of the smooth maximum.
    """
    wanted = topology.checked_demands(demands)
    table = split_ratios(topology) if ratios is None else ratios
    count = topology.node_count
    waypoint = np.tile(np.arange(count), (count, 1))
    largest = 1.0 - _sum_by_pair(split, count)
    for source, target, middle, share in zip(split.source, split.target, split.waypoint, split.share, strict=True):
        if share > largest[source, target]:
            largest[source, target], waypoint[source, target] = share, middle
    source, target = np.nonzero(wanted)
    volume = wanted[source, target]
    capacity = topology.capacity_bits_per_second
    usable = np.isfinite(distances(topology, topology.weight))
    best = Assignment(waypoint=waypoint, loads=np.zeros(topology.link_count), utilisation=np.inf)
    for start in (waypoint[source, target], target):  # from the rounded splits, then from direct paths
        limits = np.array(_SHARPNESS), moves, good_enough
        chosen = _search(table, usable, source, target, volume, start, capacity, *limits)
        loads = volume @ (table[source, chosen] + table[chosen, target])
        utilisation = float((loads / capacity).max(initial=0.0))
        if utilisation < best.utilisation:
            pairs = waypoint.copy()
            pairs[source, target] = chosen
            best = Assignment(waypoint=pairs, loads=loads, utilisation=utilisation)
        if utilisation <= good_enough:
            break
    return best


def _sum_by_pair(split: Steering, count: int) -> Floats:
    flat = np.bincount(split.source * count + split.target, split.share, minlength=count * count)
    return np.asarray(flat.reshape(count, count))


@njit(cache=True)
def _search(
    table: Floats,
    usable: NDArray[np.bool_],
    source: Integers,
    target: Integers,
    volume: Floats,
    start: Integers,
    capacity: Floats,
    sharpness: Floats,
    moves: int,
    good_enough: float,
) -> Integers:
    nodes, links, count = table.shape[0], len(capacity), len(source)
    chosen, best = start.copy(), start.copy()
    use = np.zeros(links)
    for row in range(count):
        use += volume[row] * (table[source[row], chosen[row]] + table[chosen[row], target[row]]) / capacity
    least = use.max()
    trial = np.zeros(links)
    for sharp in sharpness:
        for _ in range(moves):
            if least <= good_enough:
                return best
            top = use.max()
            now = np.exp(sharp * (use / top - 1.0)).sum()
            moved = False
            for full in np.argsort(-use)[:4]:
                weight = np.zeros(count)
                for row in range(count):
                    at = table[source[row], chosen[row], full] + table[chosen[row], target[row], full]
                    weight[row] = volume[row] * at
                for row in np.argsort(-weight)[:60]:
                    if weight[row] <= 0.0:
                        break
                    old = table[source[row], chosen[row]] + table[chosen[row], target[row]]
                    found, pick = now * (1 - 1e-9), -1
                    for middle in range(nodes):
                        if not (usable[source[row], middle] and usable[middle, target[row]]):
                            continue
                        first, second = table[source[row], middle], table[middle, target[row]]
                        total = 0.0
                        for link in range(links):
                            trial[link] = use[link] + volume[row] / capacity[link] * (
                                first[link] + second[link] - old[link]
                            )
                            total += np.exp(sharp * (trial[link] / top - 1.0))
                            if total >= found:
                                break
                        if total < found:
                            found, pick = total, middle
                    if pick >= 0:
                        change = table[source[row], pick] + table[pick, target[row]] - old
                        use = np.maximum(use + volume[row] / capacity * change, 0.0)
                        chosen[row] = pick
                        moved = True
                        break
                if moved:
                    break
            if use.max() < least:
                least, best = use.max(), chosen.copy()
            if not moved:
                break
    return best
