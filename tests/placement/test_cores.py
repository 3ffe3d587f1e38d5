"""Tasks over two pools at once: the exact answer, whatever the order, within every capacity."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.placement.joint.problem import Prices

cores = pytest.importorskip("isthmus.placement.joint.cores", reason="needs the extra `exact` (ortools)")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_answer_is_the_cheapest_of_all(seed: int) -> None:
    """Against every combination of up to three tasks, three pairs of pools and two buckets, at random prices."""
    rng = np.random.default_rng(seed)
    tasks, kinds, buckets = int(rng.integers(1, 4)), 2, 2
    first, second = np.array([0, 0, 1], np.int32), np.array([1, 2, 2], np.int32)
    cost = rng.uniform(1.0, 9.0, (tasks, 3))
    cost[rng.random(cost.shape) < 0.2] = np.inf
    core = cores.Core(
        first=first,
        second=second,
        cost=cost,
        demand_first=rng.integers(0, 4, (tasks, kinds)).astype(float),
        demand_second=rng.integers(0, 4, (tasks, kinds)).astype(float),
        capacity=rng.integers(1, 6, (3, kinds, buckets)).astype(float),
        duration=rng.integers(1, 3, tasks).astype(np.int32),
        delay_cost=rng.uniform(0.0, 1.0, tasks),
        defer_cost=rng.uniform(8.0, 20.0, tasks),
    )
    prices = Prices(pools=rng.uniform(0.0, 1.0, (3, kinds, buckets)), links=np.zeros((0, buckets)), homes=np.zeros(0))

    def use(t: int, p: int, b: int) -> np.ndarray:
        taken = np.zeros(core.capacity.shape)
        taken[first[p], :, b : b + core.duration[t]] += core.demand_first[t][:, None]
        taken[second[p], :, b : b + core.duration[t]] += core.demand_second[t][:, None]
        return taken

    options = [None, *itertools.product(range(3), range(buckets))]
    best = np.inf
    for chosen in itertools.product(options, repeat=tasks):
        taken = sum((use(t, *option) for t, option in enumerate(chosen) if option), np.zeros(core.capacity.shape))
        if (taken > core.capacity).any():
            continue
        value = float((taken * prices.pools).sum())
        for t, option in enumerate(chosen):
            value += core.defer_cost[t] if option is None else cost[t, option[0]] + core.delay_cost[t] * option[1]
        best = min(best, value)
    answer = cores.solve_core(core, prices)
    taken = sum(
        (use(t, p, b) for t, (p, b) in enumerate(zip(answer.pair, answer.bucket, strict=True)) if p >= 0),
        np.zeros(core.capacity.shape),
    )
    assert (taken <= core.capacity).all()
    assert answer.proven
    assert answer.value == pytest.approx(best, abs=1e-4)
