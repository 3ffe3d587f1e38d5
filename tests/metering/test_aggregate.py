"""Measurements of nodes become the capability of their pool, and slow nodes are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.capability import Quantity
from isthmus.metering import aggregate
from tests.metering.nodes import device, reference_node


def test_a_kind_is_the_median_of_its_nodes() -> None:
    """One of three nodes that differs does not move the pool's figure; the spread covers the nodes."""
    nodes = [reference_node(f"n{i}", scale={Quantity.FP64: s}) for i, s in enumerate((1.0, 1.1, 0.9))]
    (pool,) = aggregate.by_kind(nodes)
    found = pool.processor.figures[Quantity.FP64]
    assert found.median == nodes[0].processor.figures[Quantity.FP64].median
    assert found.p10 < found.median * 0.95
    assert found.p90 > found.median * 1.05
    assert pool.nodes == ("n0", "n1", "n2")
    assert pool.general == pytest.approx(2.0)
    assert 0.0 < pool.error < 0.05


def test_the_newest_measurement_of_a_node_counts() -> None:
    """A node measured again after a repair is judged by that."""
    old = reference_node("n1", scale={Quantity.MEMORY: 0.2})
    new = replace(reference_node("n1"), measured_at=old.measured_at + 1)
    for order in ([old, new], [new, old]):
        (pool,) = aggregate.by_kind(order)
        assert pool.processor.figures == new.processor.figures


def test_unlike_nodes_are_kinds_of_their_own() -> None:
    """Other processors, another number of them, or accelerators: not compared with each other."""
    other = reference_node("n3", cpus=4)
    fast = replace(reference_node("n4"), accelerators=(device(), device()))
    pools = aggregate.by_kind([reference_node("n1"), reference_node("n2"), other, fast])
    assert [(pool.nodes, pool.accelerators) for pool in pools] == [
        (("n1", "n2"), 0),
        (("n4",), 2),
        (("n3",), 0),
    ]


def test_a_slow_node_is_named_with_what_it_lacks() -> None:
    """A node with half the memory bandwidth (a missing module) stands out of eight even ones; so does one slow device."""
    nodes = [reference_node(f"n{i}", scale={Quantity.MEMORY: 1 + 0.01 * (i % 3)}) for i in range(8)]
    nodes.append(reference_node("bad", scale={Quantity.MEMORY: 0.5, Quantity.FP64: 0.9}))
    (slow,) = aggregate.slow_nodes(nodes)
    assert (slow.node, slow.quantity) == ("bad", Quantity.MEMORY)
    assert slow.ratio == pytest.approx(0.5, abs=0.02)
    with_devices = [replace(reference_node(f"g{i}"), accelerators=(device(), device())) for i in range(3)]
    with_devices[1] = replace(with_devices[1], accelerators=(device(), device(fp16=0.6)))
    (slow,) = aggregate.slow_nodes(with_devices)
    assert (slow.node, slow.quantity) == ("g1", Quantity.FP16)


def test_a_higher_latency_is_slow_and_a_lower_one_is_not() -> None:
    """The one quantity that is better when it is less."""
    nodes = [reference_node(f"n{i}") for i in range(4)]
    (slow,) = aggregate.slow_nodes([*nodes, reference_node("far", scale={Quantity.LATENCY: 2.0})])
    assert (slow.node, slow.quantity, slow.ratio) == ("far", Quantity.LATENCY, pytest.approx(0.5))
    assert aggregate.slow_nodes([*nodes, reference_node("near", scale={Quantity.LATENCY: 0.5})]) == ()


@given(st.lists(st.floats(0.98, 1.02), min_size=3, max_size=12))
def test_even_nodes_are_not_accused(scales: list[float]) -> None:
    """Differences of 2 % with a spread of 2 % inside each node name nobody."""
    nodes = [reference_node(f"n{i}", scale={Quantity.FP64: s}) for i, s in enumerate(scales)]
    assert aggregate.slow_nodes(nodes) == ()


def test_of_two_nodes_neither_is_named() -> None:
    """Nobody can say which of two is wrong."""
    pair = [reference_node("n1"), reference_node("n2", scale={Quantity.FP64: 0.1})]
    assert aggregate.slow_nodes(pair) == ()
