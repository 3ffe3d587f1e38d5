"""Topologies refuse what no network can be; readers name what a file lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.domain.errors import Corrupt, Invalid, NotFound
from isthmus.network.gravity import gravity_matrix
from isthmus.network.readers import read_instance, read_instances, read_teal_matrices, read_teal_topology
from isthmus.network.topology import Link, Topology

GRAPH = """NODES 2
label x y
a 0 0
b 1 1

EDGES 2
label src dest weight bw delay
edge_0 0 1 3 1000 250
edge_1 1 0 2 2000 250
"""
DEMANDS = "DEMANDS 1\nlabel src dest bw\ndemand_0 0 1 700\n"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"capacity_bits_per_second": 0.0}, "capacity_bits_per_second"),
        ({"capacity_bits_per_second": float("nan")}, "capacity_bits_per_second"),
        ({"latency_seconds": -1.0}, "latency_seconds"),
        ({"loss": 1.0}, "loss"),
        ({"price_per_byte": -1.0}, "price_per_byte"),
        ({"weight": 0.0}, "weight"),
        ({"target": "a"}, "target"),
    ],
)
def test_an_impossible_link_is_refused_by_column(change: dict[str, object], column: str) -> None:
    """Invalid names the column of the first link that breaks an invariant."""
    given = {"source": "a", "target": "b", "capacity_bits_per_second": 1e9} | change
    with pytest.raises(Invalid) as refused:
        Topology.of(["a", "b"], [Link(**given)])  # type: ignore[arg-type]
    assert refused.value.field == column


def test_an_end_that_is_no_node_is_not_found() -> None:
    """A link to a node that is not there is refused, and so is asking for such a node."""
    with pytest.raises(NotFound):
        Topology.of(["a"], [Link(source="a", target="b", capacity_bits_per_second=1.0)])
    with pytest.raises(NotFound):
        Topology.of(["a"], []).node("b")


def test_repetita_files_are_read_in_bits_and_seconds(tmp_path: Path) -> None:
    """kbit/s become bit/s, microseconds become seconds, and a graph without demands is left out."""
    (tmp_path / "Two.graph").write_text(GRAPH)
    (tmp_path / "Two.0000.demands").write_text(DEMANDS)
    (tmp_path / "Lonely.graph").write_text(GRAPH)
    (instance,) = read_instances(tmp_path)
    assert instance.name == "Two"
    assert instance.topology.capacity_bits_per_second.tolist() == [1e6, 2e6]
    assert instance.topology.latency_seconds == pytest.approx([250e-6, 250e-6])
    assert instance.topology.weight.tolist() == [3, 2]
    assert instance.demands.tolist() == [[0, 700_000], [0, 0]]


@pytest.mark.parametrize("cut", [10, 60, 100])
def test_a_cut_file_is_corrupt(tmp_path: Path, cut: int) -> None:
    """A file that ends too early is Corrupt by name, never half a network."""
    (tmp_path / "Two.graph").write_text(GRAPH[:cut])
    (tmp_path / "Two.0000.demands").write_text(DEMANDS)
    with pytest.raises(Corrupt, match=r"Two\.graph"):
        read_instance(tmp_path / "Two.graph", tmp_path / "Two.0000.demands")


def test_teal_files_are_read(networks: Path) -> None:
    """B4 has 12 nodes, 38 links and 36 matrices."""
    topology = read_teal_topology(networks / "teal" / "B4.json")
    matrices = read_teal_matrices(networks / "teal" / "B4.real.npz")
    assert (topology.node_count, topology.link_count, len(matrices)) == (12, 38, 36)
    assert all(topology.checked_demands(matrix).sum() > 0 for matrix in matrices)


def test_a_gravity_matrix_is_its_seed_and_its_sum() -> None:
    """The same seed gives the same matrix, another seed another; the sum is what was asked; nothing goes to itself."""
    links = [Link(source=a, target=b, capacity_bits_per_second=1e9) for a, b in ("ab", "ba", "bc", "cb")]
    topology = Topology.of("abc", links)
    one = gravity_matrix(topology, seed=1, total_bits_per_second=5e9)
    assert np.array_equal(one, gravity_matrix(topology, seed=1, total_bits_per_second=5e9))
    assert not np.allclose(one, gravity_matrix(topology, seed=2, total_bits_per_second=5e9))
    assert one.sum() == pytest.approx(5e9)
    assert np.diag(one).tolist() == [0, 0, 0]
