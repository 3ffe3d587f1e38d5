"""Compile what a round needs and keep it on disk, so that the first contested round does not wait for it."""

from __future__ import annotations

import numpy as np

from isthmus.placement.joint.problem import Budget, Problem, no_paths
from isthmus.placement.joint.single import choose
from isthmus.placement.joint.solve import solve


def main() -> None:
    """Solve the smallest problem there is."""
    one = np.ones(1)
    problem = Problem(
        cost=np.ones((1, 1)),
        demand=np.ones((1, 1)),
        capacity=np.ones((1, 1, 1)),
        duration=np.ones((1, 1), np.int16),
        lead=np.zeros((1, 1), np.int16),
        window=np.ones((1, 1), np.int16),
        volume=np.zeros(1),
        source=np.full(1, -1, np.int32),
        paths=no_paths(1),
        link_capacity=np.zeros((0, 1)),
        delay_cost=one,
        due=np.zeros((1, 1), np.int16),
        late_cost=one,
        defer_cost=2 * one,
        home=np.full(1, -1, np.int32),
        alone=np.zeros(0),
    )
    choose(problem, solve(problem, None, Budget(sweeps=2, passes=1)).prices)


if __name__ == "__main__":
    main()
