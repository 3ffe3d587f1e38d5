"""Compiled sweeps over all sources: cheapest trees under link prices, what goes whole on them, and how much of it fits."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.network.topology import Floats, Integers

Trees = NDArray[np.int16]


@njit(cache=True)
def route_whole(
    tail: Integers,
    head: Integers,
    out_start: Integers,
    out_links: Integers,
    prices: Floats,
    demands: Floats,
    tree: Trees,
) -> tuple[Floats, float]:
    """Loads [M] when each demand whose cheapest path costs less than 1 goes there whole; and sum(d * max(0, 1 - cost)).

    Fills `tree` [N, N]: the link by which a source's cheapest path enters a node; -1 where there is none or it costs 1
    or more, as nothing goes there.
    """
    nodes = len(out_start) - 1
    loads, profit = np.zeros(len(head)), 0.0
    cost, through = np.empty(nodes), np.empty(nodes)
    order = np.empty(nodes, np.int64)
    keys, heap = np.empty(len(head) + 2), np.empty(len(head) + 2, np.int64)
    for source in range(nodes):
        entry = tree[source]
        entry[:] = -1
        cost[:] = 1.0
        cost[source] = 0.0
        keys[0], heap[0], size, done = 0.0, source, 1, 0
        while size > 0:
            key, node = keys[0], heap[0]
            size -= 1
            last_key, last = keys[size], heap[size]
            hole, child = 0, 1
            while child < size:
                if child + 1 < size and keys[child + 1] < keys[child]:
                    child += 1
                if keys[child] >= last_key:
                    break
                keys[hole], heap[hole] = keys[child], heap[child]
                hole, child = child, 2 * child + 1
            keys[hole], heap[hole] = last_key, last
            if key > cost[node]:
                continue
            order[done] = node
            done += 1
            for at in range(out_start[node], out_start[node + 1]):
                link = out_links[at]
                there, found = head[link], key + prices[link]
                if found < cost[there]:
                    cost[there], entry[there] = found, link
                    hole = size
                    size += 1
                    while hole > 0 and keys[(hole - 1) // 2] > found:
                        keys[hole], heap[hole] = keys[(hole - 1) // 2], heap[(hole - 1) // 2]
                        hole = (hole - 1) // 2
                    keys[hole], heap[hole] = found, there
        for at in range(1, done):
            node = order[at]
            through[node] = demands[source, node]
            profit += demands[source, node] * (1.0 - cost[node])
        for at in range(done - 1, 0, -1):
            node = order[at]
            link = entry[node]
            loads[link] += through[node]
            if tail[link] != source:
                through[tail[link]] += through[node]
    return loads, profit


@njit(cache=True)
def fill(tail: Integers, trees: NDArray[np.int16], left: Floats, room: Floats, keep: Floats, share: float) -> Floats:
    """Puts demand on the paths of `trees` [K, N, N] without overfilling a link; bits/s served [N, N].

    From each tree a pair gets at most `share` of its demand `left`, thinned by the smallest `keep` [M] on its path, and
    at most the smallest `room` [M] left there. `left` and `room` are reduced by what is served.
    """
    nodes = left.shape[0]
    served = np.zeros((nodes, nodes))
    wanted = left * share
    path = np.empty(nodes, np.int64)
    for number in range(len(trees)):
        for source in range(nodes):
            for target in range(nodes):
                if left[source, target] <= 0.0 or trees[number, source, target] < 0:
                    continue
                node, hops, thin, most = target, 0, 1.0, left[source, target]
                while node != source:
                    link = trees[number, source, node]
                    path[hops] = link
                    hops += 1
                    thin, most = min(thin, keep[link]), min(most, room[link])
                    node = tail[link]
                amount = min(wanted[source, target] * thin, most)
                if amount <= 0.0:
                    continue
                for hop in range(hops):
                    room[path[hop]] -= amount
                left[source, target] -= amount
                served[source, target] += amount
    return served
