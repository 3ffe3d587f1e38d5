"""Traces of Alibaba's clusters: instances of recommendation models (2025), requests to image generators (2026); and Philly's run times.

alibaba/clusterdata: cluster-trace-gpu-v2025, cluster-trace-lora-2026, and Microsoft Philly's run times of the analysis in v2020.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import BadLine

Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """One entry an instance, in the file's order: its role and application, what it asks for (processors, accelerators, Gbit/s
    of RDMA, GiB of memory and disk), when it was made, placed and ended (seconds of the trace; nan: outside it)."""

    role: tuple[str, ...]
    application: tuple[str, ...]
    processors: Figures
    accelerators: Figures
    rdma_gbit_per_second: Figures
    memory_gib: Figures
    disk_gib: Figures
    created_seconds: Figures
    placed_seconds: Figures
    ended_seconds: Figures
    bad_lines: tuple[BadLine, ...]

    def __len__(self) -> int:
        return len(self.role)


def read_instances(path: Path) -> Instances:
    """The instances of a file, plain or .gz; a time that is not given lies outside the trace."""
    needs = ("cpu_request", "gpu_request", "rdma_request", "memory_request", "disk_request")
    times = ("creation_time", "scheduled_time", "deletion_time")

    def read(row: dict[str, str]) -> tuple[str, str, list[float]]:
        values = [float(row[name]) for name in needs]
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise ValueError("a request is below 0 or not a number")
        moments = [float(row[name]) if row[name] else math.nan for name in times]
        return row["role"], row["app_name"], values + moments

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    table = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 8)
    names = ("processors", "accelerators", "rdma_gbit_per_second", "memory_gib", "disk_gib", "created_seconds", "placed_seconds", "ended_seconds")  # fmt: skip
    return Instances(
        role=tuple(row[0] for row in rows),
        application=tuple(row[1] for row in rows),
        bad_lines=bad,
        **{name: table[:, number].copy() for number, name in enumerate(names)},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequests:
    """One entry a request, in the file's order: seconds since the first line's time and of execution, images, steps for each,
    the model it needs and adapters (LoRA) on it, and whether it succeeded."""

    arrival_seconds: Figures
    run_seconds: Figures
    images: NDArray[np.int64]
    steps: NDArray[np.int64]
    model: tuple[str, ...]
    adapters: NDArray[np.int64]
    succeeded: NDArray[np.bool_]
    bad_lines: tuple[BadLine, ...]

    def __len__(self) -> int:
        return len(self.model)


def read_image_requests(path: Path) -> ImageRequests:
    """The requests of a file, plain or .gz. A line without its times or sizes is left out and named."""

    def read(row: dict[str, str]) -> tuple[datetime, float, int, int, str, int, bool]:
        moment = datetime.strptime(row["gmt_create"], "%Y-%m-%d %H:%M:%S")
        seconds = float(row["exec_time_seconds"])
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"exec_time_seconds is {row['exec_time_seconds']}")
        images, steps = int(float(row["num_images_per_prompt"])), int(float(row["num_inference_steps"]))
        done = row["predict_status"] == "SUCCEED"
        return moment, seconds, images, steps, row["checkpoint_model_version_id"], int(float(row["num_lora"])), done

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    return ImageRequests(
        arrival_seconds=np.array([(row[0] - rows[0][0]).total_seconds() for row in rows], dtype=np.float64),
        run_seconds=np.array([row[1] for row in rows], dtype=np.float64),
        images=np.array([row[2] for row in rows], dtype=np.int64),
        steps=np.array([row[3] for row in rows], dtype=np.int64),
        model=tuple(row[4] for row in rows),
        adapters=np.array([row[5] for row in rows], dtype=np.int64),
        succeeded=np.array([row[6] for row in rows], dtype=np.bool_),
        bad_lines=bad,
    )


def read_run_times(path: Path) -> tuple[Figures, tuple[BadLine, ...]]:
    """A file with one column, `runtime` in seconds: the values, and every line that was left out."""

    def read(row: dict[str, str]) -> float:
        seconds = float(row["runtime"])
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"runtime is {row['runtime']}")
        return seconds

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    return np.array(rows, dtype=np.float64), bad
