"""Logs that are no Standard Workload Format, as its columns: samples of clouds (GAIA), SURF (OpenDC), MetaCentrum (Alea).

What a log does not say is -1, as in the format; users and requested times are missing in the first two, so that a scheduler runs
them by what jobs took.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import FIELDS, BadLine, SwfLog, parse_swf


def read_cloud(path: Path) -> SwfLog:
    """Azure, PAI or Mustang as sampled by GAIA (umassos, MIT): arrival and length in hours, to the second; processors."""

    def read(row: dict[str, str]) -> tuple[int, int, int]:
        arrival, length, processors = float(row["arrival_time"]), float(row["length"]), float(row["cpus"])
        if not (math.isfinite(arrival) and math.isfinite(length) and arrival >= 0 and length >= 0):
            raise ValueError("arrival or length is below 0 or not a number")
        if processors < 1 or processors != int(processors):
            raise ValueError(f"cpus is {row['cpus']}, not a number from 1 on")
        return round(arrival * 3600), round(length * 3600), int(processors)

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    return _log(rows, bad, {"Computer": path.name.split(".")[0]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferrable:
    """A log, and for each of its jobs whether it may be put off, and until when it must end (seconds of the log, -1: unknown)."""

    log: SwfLog
    deferrable: NDArray[np.bool_]
    deadline_seconds: NDArray[np.int64]


def read_surf(path: Path) -> Deferrable:
    """SURF 2022 as Parquet of OpenDC (MIT; cite OpenDC and SURF): times in milliseconds since 1970; MB of memory for each job."""
    try:
        from pyarrow import ArrowException, parquet

        rows = parquet.read_table(path).to_pylist()
    except ModuleNotFoundError as error:
        raise Invalid("path", "pyarrow is not installed.", remedy="Install isthmus[twin].") from error
    except (OSError, ArrowException) as error:
        raise Invalid("path", f"{path} cannot be read: {error}", remedy="Give Parquet of OpenDC's tasks.") from error
    begun = min((row["submission_time"] for row in rows), default=0)

    def read(row: dict[str, Any]) -> tuple[int, int, int, bool, int]:
        if row["duration"] < 0 or row["cpu_count"] < 1:
            raise ValueError(f"duration is {row['duration']}, cpu_count {row['cpu_count']}")
        until = row.get("deadline")
        deadline = (until - begun) // 1000 if until is not None and until >= row["submission_time"] else -1
        at = (row["submission_time"] - begun) // 1000
        return at, round(row["duration"] / 1000), row["cpu_count"], bool(row.get("deferrable")), deadline

    good, bad = good_rows(rows, read, first_line=1)
    header = {"Computer": "SURF", "UnixStartTime": str(begun // 1000)}
    return Deferrable(
        log=_log([row[:3] for row in good], bad, header),
        deferrable=np.array([row[3] for row in good], dtype=np.bool_),
        deadline_seconds=np.array([row[4] for row in good], dtype=np.int64),
    )


def read_alea(path: Path) -> SwfLog:
    """MetaCentrum 2013 of Alea (D. Klusacek, CESNET): the format's 18 fields, then packages, queue and node properties, which are
    left out; submissions since 1970 become seconds since the first."""
    shorter = [line if line.startswith(";") else " ".join(line.split()[:18]) for line in lines_of(path)]
    log = parse_swf(shorter)
    if not len(log):
        return log
    begun = int(log.submit_seconds.min())
    header = {**log.header, "UnixStartTime": str(begun)}
    return replace(log, header=header, submit_seconds=log.submit_seconds - begun)


def _log(rows: Sequence[tuple[int, int, int]], bad: tuple[BadLine, ...], header: dict[str, str]) -> SwfLog:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    known = {"submit_seconds": 0, "run_seconds": 1, "allocated_processors": 2, "requested_processors": 2}
    columns: dict[str, Any] = {}
    for name, whole in FIELDS:
        kind = np.int64 if whole else np.float64
        columns[name] = table[:, known[name]].astype(kind) if name in known else np.full(len(table), -1, dtype=kind)
    columns["job_id"] = np.arange(1, len(table) + 1)
    return SwfLog(header=header, bad_lines=bad, **columns)
