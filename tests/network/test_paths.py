"""Shortest, constrained and k shortest paths equal what trying all paths gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid, Refused
from isthmus.network.paths import Constraints, shortest_path, shortest_paths
from isthmus.network.topology import Topology
from isthmus.network.trees import distribution_tree, distribution_trees
from tests.network.drawn import topologies


def all_paths(topology: Topology, source: int, target: int) -> Iterator[tuple[int, ...]]:
    """Every path without loops."""
    waiting: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((source,), ())]
    while waiting:
        nodes, links = waiting.pop()
        if nodes[-1] == target:
            yield links
            continue
        for link in map(int, topology.links_out(nodes[-1])):
            if (there := int(topology.target[link])) not in nodes:
                waiting.append(((*nodes, there), (*links, link)))


@settings(max_examples=40, deadline=None)
@given(topology=topologies(), count=st.integers(1, 12))
def test_k_shortest_are_the_k_shortest_of_all(topology: Topology, count: int) -> None:
    """Yen's paths are different, and as long as the first k of all paths in order."""
    lengths = topology.latency_seconds
    every = sorted(float(lengths[list(links)].sum()) for links in all_paths(topology, 0, topology.node_count - 1))
    found = shortest_paths(topology, 0, topology.node_count - 1, lengths, count)
    assert len({path.links for path in found}) == len(found) == min(count, len(every))
    assert [path.length for path in found] == pytest.approx(every[:count])


@settings(max_examples=60, deadline=None)
@given(
    topology=topologies(),
    latency=st.integers(1, 20),
    hops=st.integers(1, 5),
    loss=st.sampled_from([0.0, 0.01, 0.02, 1.0]),
    capacity=st.sampled_from([0.0, 2e9]),
)
def test_constrained_paths_are_the_best_that_keep_the_constraints(
    topology: Topology, latency: int, hops: int, loss: float, capacity: float
) -> None:
    """Of all paths within latency, loss, hops and capacity the cheapest by weight is found, or none where there is none."""
    limits = Constraints(
        max_latency_seconds=latency / 1000, max_hops=hops, max_loss=loss, min_capacity_bits_per_second=capacity
    )
    kept = [
        float(topology.weight[list(links)].sum())
        for links in all_paths(topology, 0, topology.node_count - 1)
        if topology.latency_seconds[list(links)].sum() <= latency / 1000 + 1e-12
        and len(links) <= hops
        and 1 - np.prod(1 - topology.loss[list(links)]) <= loss + 1e-12
        and topology.capacity_bits_per_second[list(links)].min() >= capacity
    ]
    found = shortest_path(topology, 0, topology.node_count - 1, topology.weight, limits)
    assert (None if found is None else found.length) == (pytest.approx(min(kept)) if kept else None)
    several = shortest_paths(topology, 0, topology.node_count - 1, topology.weight, 5, limits)
    assert [path.length for path in several] == pytest.approx(sorted(kept)[:5])


@settings(max_examples=30, deadline=None)
@given(topology=topologies())
def test_avoided_links_and_nodes_are_avoided(topology: Topology) -> None:
    """No path uses a link or passes a node that it is to avoid."""
    target = topology.node_count - 1
    first = shortest_path(topology, 0, target, topology.weight)
    assert first is not None
    other = shortest_path(topology, 0, target, topology.weight, Constraints(avoid_links=frozenset(first.links)))
    assert other is None or not set(other.links) & set(first.links)
    round_one = shortest_path(topology, 0, target, topology.weight, Constraints(avoid_nodes=frozenset({1})))
    assert round_one is None or 1 not in topology.target[list(round_one.links)]


def test_lengths_that_are_not_positive_are_refused() -> None:
    """A length of zero could hide a loop."""
    topology = Topology.of("ab", [])
    with pytest.raises(Invalid):
        shortest_path(topology, 0, 1, np.zeros(3))
    assert shortest_path(topology, 0, 1, np.empty(0)) is None


@settings(max_examples=40, deadline=None)
@given(topology=topologies(), data=st.data())
def test_a_distribution_tree_reaches_each_target_once(topology: Topology, data: st.DataObject) -> None:
    """A tree enters each node at most once, reaches all targets, ends at targets, and is no longer than separate paths."""
    others = st.sets(st.integers(1, topology.node_count - 1), min_size=1)
    targets = data.draw(others)
    separate = 0.0
    for target in targets:
        path = shortest_path(topology, 0, target, topology.weight)
        assert path is not None
        separate += path.length
    for number, tree in enumerate(distribution_trees(topology, 0, targets, topology.weight, 3)):
        heads = topology.target[list(tree)].tolist()
        assert len(set(heads)) == len(heads)
        assert 0 not in heads
        reached, size = {0}, 0
        while len(reached) > size:
            size = len(reached)
            reached |= {int(topology.target[link]) for link in tree if int(topology.source[link]) in reached}
        assert targets <= reached == {0, *heads}
        assert set(heads) - set(topology.source[list(tree)].tolist()) <= targets
        if number == 0:
            assert topology.weight[list(tree)].sum() <= separate * (1 + 1e-9)


def test_a_target_that_is_cut_off_is_refused() -> None:
    """Without the links to avoid there is no tree."""
    with pytest.raises(Refused):
        distribution_tree(Topology.of("ab", []), 0, [1], np.empty(0))
