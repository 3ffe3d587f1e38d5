"""Transfers as fluid flows that share links max-min fairly, compiled.

Progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2): all rates grow alike; where a link is full, its flows
stay. Flows of one pair of sites have the same rate, so that the filling works on pairs, not on flows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from isthmus.twin.schedulers.backfill import FOREVER


class Flows(NamedTuple):
    """Transfers under way, and what they share. Bytes, bytes per second, seconds."""

    paths: NDArray[np.int64]  # pair x hop: links of the path, -1 after its end; pair = from * sites + to
    latency: NDArray[np.float64]  # by pair
    capacity: NDArray[np.float64]  # by link
    rate: NDArray[np.float64]  # by pair, of each of its flows
    active: NDArray[np.int64]  # by pair: flows
    busy: NDArray[np.int64]  # the pairs that have flows, in order of their numbers
    pair: NDArray[np.int64]  # by place
    job: NDArray[np.int64]  # by place
    left: NDArray[np.float64]  # by place: bytes
    clock: NDArray[np.float64]  # [time of `left`, time of the next end]
    counts: NDArray[np.int64]  # [flows, transfers ended, busy pairs]
    carried: NDArray[np.float64]  # by link: bytes


@njit(cache=True)
def make_flows(paths, latency, capacity, room):  # type: ignore[no-untyped-def]
    """No flow yet; `room` is the most at once."""
    pairs = len(paths)
    return Flows(
        paths, latency, capacity, np.zeros(pairs), np.zeros(pairs, np.int64), np.zeros(pairs, np.int64),
        np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room), np.array([0.0, 4e18]),
        np.zeros(3, np.int64), np.zeros(len(capacity)),
    )  # fmt: skip


@njit(cache=True)
def moved_flows(flows, place, room):  # type: ignore[no-untyped-def]
    """The same flows of jobs with other numbers: `place` is the new number of each."""
    count = flows.counts[0]
    pair = np.zeros(room, np.int64)
    job = np.zeros(room, np.int64)
    left = np.zeros(room)
    pair[:count] = flows.pair[:count]
    left[:count] = flows.left[:count]
    for i in range(count):
        job[i] = place[flows.job[i]]
    return Flows(
        flows.paths, flows.latency, flows.capacity, flows.rate, flows.active, flows.busy, pair, job, left, flows.clock,
        flows.counts, flows.carried,
    )  # fmt: skip


@njit(cache=True)
def fair_rates(paths, active, busy, capacity, rate):  # type: ignore[no-untyped-def]
    """Fill `rate` with the max-min fair rate of each flow of each pair that has active flows: of `busy`, whose order is lost."""
    links = len(capacity)
    room = capacity.copy()
    weight = np.zeros(links, np.int64)
    count = len(busy)  # pairs with flows whose rate is not found yet
    for i in range(count):
        pair = busy[i]
        rate[pair] = -1.0
        for hop in range(paths.shape[1]):
            if paths[pair, hop] < 0:
                break
            weight[paths[pair, hop]] += active[pair]
    while count > 0:
        tight = -1
        level = 0.0
        for link in range(links):
            if weight[link] > 0 and (tight < 0 or room[link] / weight[link] < level):
                tight = link
                level = room[link] / weight[link]
        if tight < 0:
            return
        left = 0
        for i in range(count):
            pair = busy[i]
            crosses = False
            for hop in range(paths.shape[1]):
                crosses = crosses or paths[pair, hop] == tight
            if not crosses:
                busy[left] = pair
                left += 1
                continue
            rate[pair] = level
            for hop in range(paths.shape[1]):
                link = paths[pair, hop]
                if link < 0:
                    break
                weight[link] -= active[pair]
                room[link] = max(room[link] - level * active[pair], 0.0)
        count = left
        weight[tight] = 0


@njit(cache=True)
def flow_end(flows):  # type: ignore[no-untyped-def]
    """When the next transfer ends, in whole seconds, rounded up; FOREVER if there is none."""
    return np.int64(np.ceil(flows.clock[1])) if flows.counts[0] > 0 else FOREVER


@njit(cache=True)
def add_flow(flows, pair, job, size, now):  # type: ignore[no-untyped-def]
    """Start a transfer of `size` bytes; its latency counts as bytes at the rate of an empty path."""
    _progress(flows, now)
    place = flows.counts[0]
    flows.pair[place] = pair
    flows.job[place] = job
    flows.left[place] = size + flows.latency[pair] * empty_rate(flows, pair)
    flows.active[pair] += 1
    if flows.active[pair] == 1:
        _open(flows, pair)
    flows.counts[0] = place + 1
    for hop in range(flows.paths.shape[1]):
        if flows.paths[pair, hop] < 0:
            break
        flows.carried[flows.paths[pair, hop]] += size
    _share(flows)


@njit(cache=True)
def end_flow(flows, now):  # type: ignore[no-untyped-def]
    """End the transfer that is next, and return its job."""
    _progress(flows, now)
    place = 0
    for i in range(1, flows.counts[0]):
        if flows.left[i] * flows.rate[flows.pair[place]] < flows.left[place] * flows.rate[flows.pair[i]]:
            place = i
    job = flows.job[place]
    pair = flows.pair[place]
    flows.active[pair] -= 1
    if flows.active[pair] == 0:
        _close(flows, pair)
    last = flows.counts[0] - 1
    flows.pair[place] = flows.pair[last]
    flows.job[place] = flows.job[last]
    flows.left[place] = flows.left[last]
    flows.counts[0] = last
    flows.counts[1] += 1
    _share(flows)
    return job


@njit(cache=True)
def empty_rate(flows, pair):  # type: ignore[no-untyped-def]
    """Bytes per second of a path that nobody else uses."""
    rate = 1e18
    for hop in range(flows.paths.shape[1]):
        if flows.paths[pair, hop] < 0:
            break
        rate = min(rate, flows.capacity[flows.paths[pair, hop]])
    return rate


@njit(cache=True)
def expected_seconds(flows, pair, size):  # type: ignore[no-untyped-def]
    """How long a transfer would take if the pair's flows shared an else empty path with it, rounded up."""
    return np.int64(np.ceil(flows.latency[pair] + size * (flows.active[pair] + 1) / empty_rate(flows, pair)))


@njit(cache=True)
def _open(flows, pair):  # type: ignore[no-untyped-def]
    k = flows.counts[2]
    while k > 0 and flows.busy[k - 1] > pair:
        flows.busy[k] = flows.busy[k - 1]
        k -= 1
    flows.busy[k] = pair
    flows.counts[2] += 1


@njit(cache=True)
def _close(flows, pair):  # type: ignore[no-untyped-def]
    k = 0
    while flows.busy[k] != pair:
        k += 1
    flows.counts[2] -= 1
    for i in range(k, flows.counts[2]):
        flows.busy[i] = flows.busy[i + 1]


@njit(cache=True)
def _progress(flows, now):  # type: ignore[no-untyped-def]
    passed = now - flows.clock[0]
    if passed > 0:
        for i in range(flows.counts[0]):
            flows.left[i] = max(flows.left[i] - flows.rate[flows.pair[i]] * passed, 0.0)
    flows.clock[0] = now


@njit(cache=True)
def _share(flows):  # type: ignore[no-untyped-def]
    fair_rates(flows.paths, flows.active, flows.busy[: flows.counts[2]].copy(), flows.capacity, flows.rate)
    first = 4e18
    for i in range(flows.counts[0]):
        first = min(first, flows.left[i] / flows.rate[flows.pair[i]])
    flows.clock[1] = flows.clock[0] + first
