"""Leave-one-out test of k nearest neighbours on a table of real measurements.

python3 neighbours.py DATA.csv K METRIC > result.json
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from operator import sub
from pathlib import Path

MOST = 31
METRICS = ("euclidean", "manhattan", "chebyshev")


def distance(metric: str, one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """How far two rows are apart, rounded so that every version of Python sorts them alike."""
    apart: list[float] = list(map(abs, map(sub, one, other)))
    if metric == "manhattan":
        return round(sum(apart), 9)
    if metric == "chebyshev":
        return max(apart)
    return round(sum([part * part for part in apart]), 9)


def read(path: Path) -> tuple[list[tuple[float, ...]], list[int]]:
    """The rows, each column scaled to 0..1, and the class of each row (the last column)."""
    lines = path.read_text(encoding="ascii").splitlines()[1:]
    table = [[float(cell) for cell in line.split(",")] for line in lines]
    columns = list(zip(*[row[:-1] for row in table]))  # noqa: B905 - old Pythons at sites know no strict=
    scales = [(min(column), (max(column) - min(column)) or 1.0) for column in columns]
    rows = [tuple((cell - low) / width for cell, (low, width) in zip(row, scales)) for row in table]  # noqa: B905
    return rows, [int(row[-1]) for row in table]


@cache
def nearest(path: Path, metric: str) -> list[list[int]]:
    """For each row the classes of its nearest other rows, nearest first."""
    rows, classes = read(path)
    apart: list[list[tuple[float, int]]] = [[] for _ in rows]
    for index, row in enumerate(rows):
        for at in range(index):
            far = distance(metric, row, rows[at])
            apart[index].append((far, at))
            apart[at].append((far, index))
    return [[classes[at] for _, at in sorted(others)[:MOST]] for others in apart]


def result(path: Path, k: int, metric: str) -> str:
    """The result file: how many rows the vote of the k nearest gets right, as JSON with the hash of the data."""
    _, classes = read(path)
    right = 0
    for own, others in zip(classes, nearest(path, metric)):  # noqa: B905
        votes = others[:k]
        right += max(sorted(set(votes)), key=votes.count) == own
    answer = {
        "k": k,
        "metric": metric,
        "right": right,
        "rows": len(classes),
        "accuracy": f"{right / len(classes):.4f}",
        "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return json.dumps(answer, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(result(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
