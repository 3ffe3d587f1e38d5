"""The openb traces: nodes and tasks (pods) of an Alibaba cluster of 2023, as CSV, plain or .gz; cite FGD, ATC 2023."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from isthmus.twin.packing.columns import Nodes, Tasks
from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import BadLine

# The trace's names of accelerator models; each is a bit of a mask, in this order.
MODELS = ("P100", "T4", "V100M16", "V100M32", "A10", "G2", "G3", "A100")


def read_openb_nodes(path: Path) -> tuple[Nodes, tuple[BadLine, ...]]:
    """Nodes in the file's order, and every line that was left out."""
    rows, bad = _rows(path, ("cpu_milli", "memory_mib", "gpu"), "model")
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    cpu, memory, count, model = (np.ascontiguousarray(table[:, i]) for i in range(4))
    return Nodes(cpu_milli=cpu, memory_mib=memory, accelerators=count, model=model), bad


def read_openb_tasks(path: Path) -> tuple[Tasks, tuple[BadLine, ...]]:
    """Tasks in the file's order (by name), and every line that was left out; times are not read."""
    rows, bad = _rows(path, ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), "gpu_spec")
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    cpu, memory, count, milli, models = (np.ascontiguousarray(table[:, i]) for i in range(5))
    return Tasks(cpu_milli=cpu, memory_mib=memory, accelerators=count, accelerator_milli=milli, models=models), bad


def _rows(path: Path, numbers: tuple[str, ...], models: str) -> tuple[list[list[int]], tuple[BadLine, ...]]:
    def read(row: dict[str, str]) -> list[int]:
        values = [int(row[name]) for name in numbers]
        if min(values) < 0:
            raise ValueError(f"{numbers[values.index(min(values))]} is below 0")
        mask = 0
        for model in filter(None, row[models].split("|")):
            if model not in MODELS:
                raise ValueError(f"the model {model} is unknown")
            mask |= 1 << MODELS.index(model)
        return [*values, mask]

    return good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
