"""Standard Workload Format, version 2: 18 fields a line, header comments after ';', plain, .gz or .zip (one member)."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid

# The order of the format's definition (Feitelson, Parallel Workloads Archive); True: a whole number.
FIELDS: tuple[tuple[str, bool], ...] = (
    ("job_id", True),
    ("submit_seconds", True),
    ("wait_seconds", True),
    ("run_seconds", True),
    ("allocated_processors", True),
    ("average_cpu_seconds", False),
    ("used_memory_kib", False),
    ("requested_processors", True),
    ("requested_seconds", True),
    ("requested_memory_kib", False),
    ("status", True),
    ("user", True),
    ("group", True),
    ("executable", True),
    ("queue", True),
    ("partition", True),
    ("preceding_job", True),
    ("think_seconds", True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that was left out: its number (from 1) and what was wrong with it."""

    number: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwfLog:
    """A log as columns, one entry per good line, in the order of the file; -1 means unknown, as in the format.

    Times are seconds (submit: since the log's start), memory is KiB per processor, processors are counts.
    `header` holds the last value of each `; Name: value` comment; `bad_lines` every line that was left out.
    """

    header: dict[str, str]
    bad_lines: tuple[BadLine, ...]
    job_id: NDArray[np.int64]
    submit_seconds: NDArray[np.int64]
    wait_seconds: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    allocated_processors: NDArray[np.int64]
    average_cpu_seconds: NDArray[np.float64]
    used_memory_kib: NDArray[np.float64]
    requested_processors: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]
    requested_memory_kib: NDArray[np.float64]
    status: NDArray[np.int64]
    user: NDArray[np.int64]
    group: NDArray[np.int64]
    executable: NDArray[np.int64]
    queue: NDArray[np.int64]
    partition: NDArray[np.int64]
    preceding_job: NDArray[np.int64]
    think_seconds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.job_id)

    def where(self, keep: NDArray[np.bool_]) -> SwfLog:
        """The jobs for which `keep` (one entry a job) is true, in the same order."""
        columns = {name: getattr(self, name)[keep] for name, _ in FIELDS}
        return SwfLog(header=self.header, bad_lines=self.bad_lines, **columns)


def parse_swf(lines: Iterable[str]) -> SwfLog:
    """Columns from lines; a line that is not 18 numbers, or not whole where the format says so, is named and left out."""
    header: dict[str, str] = {}
    bad: list[BadLine] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if text.startswith(";"):
            name, colon, value = text.lstrip("; \t").partition(":")
            if colon and name.strip():
                header[name.strip()] = value.strip()
            continue
        row = text.split()
        if len(row) != len(FIELDS):
            bad.append(BadLine(number=number, cause=f"{len(row)} fields, not {len(FIELDS)}"))
            continue
        try:
            values = [float(field) for field in row]
        except ValueError as error:
            bad.append(BadLine(number=number, cause=str(error)))
            continue
        wrong = next((i for i, value in enumerate(values) if not _allowed(value, FIELDS[i][1])), None)
        if wrong is None:
            rows.append(values)
        else:
            kind = "a whole number" if FIELDS[wrong][1] else "a finite number"
            bad.append(BadLine(number=number, cause=f"{FIELDS[wrong][0]} is {row[wrong]}, not {kind}"))
    table = np.array(rows, dtype=np.float64).reshape(-1, len(FIELDS))
    columns = {
        name: np.ascontiguousarray(table[:, i]).astype(np.int64 if whole else np.float64)
        for i, (name, whole) in enumerate(FIELDS)
    }
    return SwfLog(header=header, bad_lines=tuple(bad), **columns)  # type: ignore[arg-type]


def read_swf(path: Path) -> SwfLog:
    """The log in a file; Invalid where it cannot be read, or a .zip does not hold exactly one member."""
    try:
        return _read(path)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise Invalid("path", f"{path} cannot be read: {error}.", remedy="Give a log: plain, .gz or .zip.") from error


def _read(path: Path) -> SwfLog:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise Invalid("path", f"{path.name} holds {len(members)} files.", remedy="Give a .zip with one log.")
            return parse_swf(archive.read(members[0]).decode("utf-8", "replace").splitlines())
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Headers of old logs are in several encodings; the data lines are ASCII, and a damaged one is named as bad.
    return parse_swf(content.decode("utf-8", "replace").splitlines())


def write_swf(log: SwfLog) -> str:
    """The log as text in the same format: the header's entries, then one line a job."""
    lines = [f"; {name}: {value}" for name, value in log.header.items()]
    for row in zip(*(getattr(log, name).tolist() for name, _ in FIELDS), strict=True):
        lines.append(" ".join(str(int(value)) if value == int(value) else repr(value) for value in row))
    return "\n".join(lines) + "\n"


def _allowed(value: float, whole: bool) -> bool:
    return math.isfinite(value) and (not whole or (value.is_integer() and abs(value) < 2**53))


assert [field.name for field in fields(SwfLog)][2:] == [name for name, _ in FIELDS]
