"""Traffic matrices by the gravity model (Zhang et al., SIGMETRICS 2003), for networks of which no measured matrix is public."""

from __future__ import annotations

import numpy as np

from isthmus.network.topology import Floats, Topology


def gravity_matrix(topology: Topology, *, seed: int, total_bits_per_second: float, spread: float = 1.0) -> Floats:
    """Demands [N, N] in bits/s, d[i, j] proportional to mass[i] * mass[j], zero diagonal, with the given sum.

    The mass of a node is the capacity of the links that leave it times a log-normal factor with parameter `spread`.
    """
    capacity = np.bincount(topology.source, topology.capacity_bits_per_second, minlength=topology.node_count)
    mass = capacity * np.random.default_rng(seed).lognormal(0.0, spread, topology.node_count)
    demands = np.outer(mass, mass)
    np.fill_diagonal(demands, 0.0)
    return np.asarray(demands * (total_bits_per_second / demands.sum()))
