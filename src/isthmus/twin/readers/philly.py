"""Training jobs of Microsoft Philly as Gavel converted them, one virtual cluster a file: 7 fields a line, tabs between.

Jeon et al., ATC 2019 (Philly); Narayanan et al., OSDI 2020 (Gavel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import BadLine


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobs:
    """One entry a job, in the file's order: its model and batch size, arrival, gang of accelerators, and steps to train.

    How long a step takes depends on the accelerator's model, and is not in the trace.
    """

    kind: tuple[str, ...]
    arrival_seconds: NDArray[np.float64]
    accelerators: NDArray[np.int64]
    steps: NDArray[np.int64]
    bad_lines: tuple[BadLine, ...]

    def __len__(self) -> int:
        return len(self.kind)


def read_training_jobs(path: Path) -> TrainingJobs:
    """The jobs of a file, plain or .gz; a line that does not say a whole number of steps and accelerators is left out."""

    def read(line: str) -> tuple[str, float, int, int]:
        fields = line.split("\t")
        if len(fields) != 7:
            raise ValueError(f"{len(fields)} fields, not 7")
        kind, _, _, _, steps, arrival, accelerators = fields
        if not math.isfinite(float(arrival)) or float(arrival) < 0 or int(steps) < 1 or int(accelerators) < 1:
            raise ValueError("steps, arrival or accelerators are out of range")
        return kind, float(arrival), int(accelerators), int(steps)

    rows, bad = good_rows(lines_of(path), read, first_line=1)
    return TrainingJobs(
        kind=tuple(row[0] for row in rows),
        arrival_seconds=np.array([row[1] for row in rows], dtype=np.float64),
        accelerators=np.array([row[2] for row in rows], dtype=np.int64),
        steps=np.array([row[3] for row in rows], dtype=np.int64),
        bad_lines=bad,
    )
