"""Networks and matrices in the form of Teal (Xu et al., SIGCOMM 2023): a node-link JSON graph, and npz arrays `tm0`, `tm1`, ...

The files name no unit; capacities and demands of one network are in one unit, here taken for Mbit/s. Every weight is 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from isthmus.domain.errors import Corrupt
from isthmus.network.topology import Floats, Topology

_BITS = 1e6


def read_teal_topology(path: Path) -> Topology:
    """The directed network of a node-link JSON file, nodes in the order of their ids. Corrupt names what is missing."""
    try:
        graph = json.loads(path.read_text())
        ids = sorted(node["id"] for node in graph["nodes"])
        index = {name: number for number, name in enumerate(ids)}
        links = graph["links"]
        source = np.array([index[link["source"]] for link in links], dtype=np.int64)
        target = np.array([index[link["target"]] for link in links], dtype=np.int64)
        capacity = np.array([float(link["capacity"]) for link in links]) * _BITS
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{path.name}: {error}.") from error
    none = np.zeros(len(links))
    return Topology(
        nodes=tuple(str(name) for name in ids),
        source=source,
        target=target,
        capacity_bits_per_second=capacity,
        latency_seconds=none,
        loss=none,
        price_per_byte=none,
        weight=np.ones(len(links)),
    )


def read_teal_matrices(path: Path) -> list[Floats]:
    """The matrices `tm0`, `tm1`, ... [N, N] of an npz file, in bits/s from row to column, with zero diagonals."""
    with np.load(path, allow_pickle=False) as arrays:
        matrices = [arrays[f"tm{number}"].astype(np.float64) * _BITS for number in range(len(arrays.files))]
    for matrix in matrices:
        np.fill_diagonal(matrix, 0.0)
    return matrices
