"""Small random problems of joint placement, and what an answer to one uses."""

from __future__ import annotations

import numpy as np

from isthmus.placement.joint.problem import Answer, Floats, Paths, Problem


def small_problem(seed: int, *, homes: int = 0) -> Problem:
    """Up to 12 tasks, 4 pools, 2 resources, 3 buckets, 4 links, 2 paths; tight on purpose."""
    rng = np.random.default_rng(seed)
    tasks, pools, kinds = int(rng.integers(1, 13)), int(rng.integers(1, 5)), int(rng.integers(1, 3))
    buckets, links, sources, paths = int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 3)), 2
    cost = rng.uniform(1.0, 10.0, (tasks, pools))
    cost[rng.random((tasks, pools)) < 0.1] = np.inf
    path_cost = rng.uniform(0.0, 1.0, (sources, pools, paths))
    path_cost[rng.random(path_cost.shape) < 0.1] = np.inf
    hops = [rng.permutation(links)[: rng.integers(0, 3)] for _ in range(path_cost.size)]
    shape = (tasks, pools)
    return Problem(
        cost=cost,
        demand=rng.integers(0, 5, (tasks, kinds)).astype(np.float64),
        capacity=rng.integers(0, 10, (pools, kinds, buckets)).astype(np.float64),
        duration=rng.integers(1, 3, shape).astype(np.int16),
        lead=rng.integers(0, 2, shape).astype(np.int16),
        window=rng.integers(1, 3, shape).astype(np.int16),
        volume=rng.uniform(0.0, 4.0, tasks),
        source=rng.integers(-1, sources, tasks).astype(np.int32),
        paths=Paths(
            cost=path_cost,
            start=np.concatenate([[0], np.cumsum([len(one) for one in hops])]).astype(np.int32),
            links=np.concatenate([*hops, []]).astype(np.int32),
        ),
        link_capacity=rng.uniform(0.0, 6.0, (links, buckets)),
        delay_cost=rng.uniform(0.0, 2.0, tasks),
        due=rng.integers(0, 4, shape).astype(np.int16),
        late_cost=rng.choice(np.array([0.0, 3.0, np.inf]), tasks),
        defer_cost=rng.uniform(10.0, 30.0, tasks),
        home=rng.integers(-1, homes, tasks).astype(np.int32) if homes else np.full(tasks, -1, np.int32),
        alone=rng.uniform(5.0, 60.0, homes),
    )


def used(problem: Problem, answer: Answer) -> tuple[Floats, Floats]:
    """What an answer uses of pools [S, R, B] and links [L, B], counted the plain way."""
    pools, links = np.zeros(problem.capacity.shape), np.zeros(problem.link_capacity.shape)
    for t, (s, k, b) in enumerate(zip(answer.pool, answer.path, answer.bucket, strict=True)):
        if s < 0:
            continue
        begin = b + problem.lead[t, s]
        assert begin < problem.buckets
        pools[s, :, begin : begin + problem.duration[t, s]] += problem.demand[t][:, None]
        if problem.source[t] >= 0:
            for link in problem.paths.of(problem.source[t], s, k):
                links[link, b : b + problem.window[t, s]] += problem.volume[t] / problem.window[t, s]
    return pools, links
