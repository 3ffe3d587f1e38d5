"""Small random networks and traffic for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from isthmus.network.topology import Floats, Link, Topology


@st.composite
def topologies(draw: st.DrawFn, most_nodes: int = 6) -> Topology:
    """A ring in both directions, so that everything is reachable, with random chords, some of them parallel."""
    count = draw(st.integers(3, most_nodes))
    pairs = [(node, (node + 1) % count) for node in range(count)]
    pairs += [(end, start) for start, end in pairs]
    some = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    pairs += draw(st.lists(some, max_size=6))
    links = [
        Link(
            source=str(start),
            target=str(end),
            capacity_bits_per_second=draw(st.sampled_from([1e9, 2e9, 10e9])),
            latency_seconds=draw(st.integers(1, 9)) / 1000,
            loss=draw(st.sampled_from([0.0, 0.01])),
            weight=draw(st.integers(1, 3)),
        )
        for start, end in pairs
    ]
    return Topology.of([str(node) for node in range(count)], links)


@st.composite
def traffic(draw: st.DrawFn, topology: Topology) -> Floats:
    """A matrix of whole Mbit/s with at least one demand."""
    count = topology.node_count
    seed = draw(st.integers(0, 10_000))
    demands = np.random.default_rng(seed).integers(0, 3000, (count, count)) * 1e6
    demands[np.random.default_rng(seed + 1).random((count, count)) < 0.4] = 0.0
    np.fill_diagonal(demands, 0.0)
    demands[0, count - 1] += 1e6
    return demands


@st.composite
def cases(draw: st.DrawFn, most_nodes: int = 6) -> tuple[Topology, Floats]:
    """A topology with traffic."""
    topology = draw(topologies(most_nodes))
    return topology, draw(traffic(topology))
