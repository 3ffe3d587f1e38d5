"""The openb traces: nodes and tasks (pods) of an Alibaba cluster of 2023, as CSV, plain or .gz; cite FGD, ATC 2023."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.readers.swf import BadLine

# The trace's names of accelerator models; each is a bit of a mask, in this order.
MODELS = ("P100", "T4", "V100M16", "V100M32", "A10", "G2", "G3", "A100")
T = TypeVar("T")


def read_openb_nodes(path: Path) -> tuple[Nodes, tuple[BadLine, ...]]:
    """Nodes in the file's order, and every line that was left out."""
    rows, bad = _rows(_text(path), ("cpu_milli", "memory_mib", "gpu"), "model")
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    cpu, memory, count, model = (np.ascontiguousarray(table[:, i]) for i in range(4))
    return Nodes(cpu_milli=cpu, memory_mib=memory, accelerators=count, model=model), bad


def read_openb_tasks(path: Path) -> tuple[Tasks, tuple[BadLine, ...]]:
    """Tasks in the file's order (by name), and every line that was left out; times are not read."""
    rows, bad = _rows(_text(path), ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), "gpu_spec")
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    cpu, memory, count, milli, models = (np.ascontiguousarray(table[:, i]) for i in range(5))
    return Tasks(cpu_milli=cpu, memory_mib=memory, accelerators=count, accelerator_milli=milli, models=models), bad


def _text(path: Path) -> list[str]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return content.decode("utf-8", "replace").splitlines()


def _rows(lines: Iterable[str], numbers: tuple[str, ...], models: str) -> tuple[list[list[int]], tuple[BadLine, ...]]:
    rows: list[list[int]] = []
    bad: list[BadLine] = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            values = [int(row[name]) for name in numbers]
            if min(values) < 0:
                raise ValueError(f"{numbers[values.index(min(values))]} is below 0")
            mask = 0
            for model in filter(None, row[models].split("|")):
                mask |= 1 << MODELS.index(model)
        except (KeyError, TypeError, AttributeError) as error:
            bad.append(BadLine(number=number, cause=f"a field is missing: {error}"))
        except ValueError as error:
            bad.append(BadLine(number=number, cause=str(error)))
        else:
            rows.append([*values, mask])
    return rows, tuple(bad)
