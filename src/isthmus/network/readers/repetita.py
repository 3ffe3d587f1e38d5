"""REPETITA's `.graph` and `.demands` files (Gay, Schaus, Vissicchio: "REPETITA", 2017).

`NODES n`, a heading, n lines `label x y`; `EDGES m`, a heading, m lines `label source target weight bandwidth delay` with
bandwidth in kbit/s and delay in microseconds. `DEMANDS d`, a heading, d lines `label source target kbit/s`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.domain.errors import Corrupt
from isthmus.network.topology import Floats, Topology


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instance:
    """A named network with one traffic matrix: `demands` [N, N] in bits/s from row to column."""

    name: str
    topology: Topology
    demands: Floats


def read_instance(graph: Path, demands: Path) -> Instance:
    """One network with one matrix. Corrupt names the file and what was wrong."""
    topology = _topology(graph)
    matrix = np.zeros((topology.node_count, topology.node_count))
    try:
        for row in _section(demands, "DEMANDS"):
            matrix[int(row[1]), int(row[2])] += float(row[3]) * 1000
    except (IndexError, ValueError) as error:
        raise Corrupt(f"{demands.name}: {error}.") from error
    return Instance(name=graph.stem, topology=topology, demands=matrix)


def read_instances(folder: Path) -> list[Instance]:
    """Every `NAME.graph` of a folder with its first `NAME.*demands` in the order of their names; a graph without is left out."""
    found = []
    for graph in sorted(folder.glob("*.graph")):
        matrices = sorted(folder.glob(f"{graph.stem}.*demands"))
        if matrices:
            found.append(read_instance(graph, matrices[0]))
    return found


def read_optimum(table: Path) -> dict[str, float]:
    """`instance` to `lp_min_max_utilisation` of a CSV table with these columns."""
    with table.open(newline="") as rows:
        return {row["instance"]: float(row["lp_min_max_utilisation"]) for row in csv.DictReader(rows)}


def _topology(path: Path) -> Topology:
    try:
        nodes = [row[0] for row in _section(path, "NODES")]
        rows = np.array([[float(cell) for cell in row[1:6]] for row in _section(path, "EDGES")]).reshape(-1, 5)
    except (IndexError, ValueError) as error:
        raise Corrupt(f"{path.name}: {error}.") from error
    none = np.zeros(len(rows))
    return Topology(
        nodes=tuple(f"{number}:{label}" for number, label in enumerate(nodes)),  # labels of a file may repeat
        source=rows[:, 0].astype(np.int64),
        target=rows[:, 1].astype(np.int64),
        capacity_bits_per_second=rows[:, 3] * 1000,
        latency_seconds=rows[:, 4] * 1e-6,
        loss=none,
        price_per_byte=none,
        weight=rows[:, 2].copy(),
    )


def _section(path: Path, heading: str) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    start = next((number for number, line in enumerate(lines) if line.split()[:1] == [heading]), None)
    if start is None:
        raise ValueError(f"has no line {heading}")
    count = int(lines[start].split()[1])
    rows = [line.split() for line in lines[start + 2 : start + 2 + count]]
    if len(rows) != count or not all(rows):
        raise ValueError(f"promises {count} lines after {heading} and has fewer")
    return rows
