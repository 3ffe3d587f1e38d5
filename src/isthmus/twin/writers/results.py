"""A schedule as files: CSV of waits, Standard Workload Format, Parquet. A file is complete or not there."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.swf import SwfLog, write_swf


def write_waits(path: Path, job_id: NDArray[np.int64], wait: NDArray[np.int64]) -> None:
    """A line `job_id,wait_seconds` for each job, under a header of these names."""
    rows = "".join(f"{job},{seconds}\n" for job, seconds in zip(job_id.tolist(), wait.tolist(), strict=True))
    _whole(path, lambda part: part.write_text("job_id,wait_seconds\n" + rows))


def write_schedule(path: Path, log: SwfLog, wait: NDArray[np.int64]) -> None:
    """The log with these waits (seconds) and the processors as requested, in its own format; gzip for a name in .gz."""
    text = write_swf(replace(log, wait_seconds=wait, allocated_processors=log.requested_processors))
    content = gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    _whole(path, lambda part: part.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """A text as a file, UTF-8."""
    _whole(path, lambda part: part.write_text(text, "utf-8"))


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns of equal length as a Parquet file; Invalid where pyarrow is not installed."""
    with parquet_rows(path) as add:
        add(columns)


@contextmanager
def parquet_rows(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A Parquet file that grows by columns of equal length, always of the same names and types, one group of rows each."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise Invalid("parquet", "pyarrow is not installed.", remedy="Install isthmus[twin].") from error
    with ExitStack() as open_files:
        writer: Any = None
        part = path.with_name(path.name + ".part")

        def add(columns: Mapping[str, Any]) -> None:
            nonlocal writer
            table = pyarrow.table(dict(columns))
            if writer is None:
                writer = open_files.enter_context(parquet.ParquetWriter(part, table.schema))
            writer.write_table(table)

        try:
            yield add
            open_files.close()
            if writer is not None:
                part.replace(path)
        except OSError as error:
            raise Invalid(
                "path", f"{path} cannot be written: {error.strerror}.", remedy="Give another place."
            ) from error
        finally:
            part.unlink(missing_ok=True)


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Invalid("path", f"{path} cannot be written: {error.strerror}.", remedy="Give another place.") from error
