"""Requests to language models: the Azure traces of November 2023 (Patel et al., Splitwise, ISCA 2024; CC-BY-4.0)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import BadLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """One entry a request, in the file's order: seconds since the first line's time, tokens given and generated."""

    arrival_seconds: NDArray[np.float64]
    context_tokens: NDArray[np.int64]
    generated_tokens: NDArray[np.int64]
    bad_lines: tuple[BadLine, ...]

    def __len__(self) -> int:
        return len(self.arrival_seconds)


def read_requests(path: Path) -> Requests:
    """The requests of a file, plain or .gz; times to the microsecond, as the rest of their seven digits is dropped."""

    def read(row: dict[str, str]) -> tuple[datetime, int, int]:
        whole, _, fraction = row["TIMESTAMP"].partition(".")
        moment = datetime.strptime(f"{whole}.{fraction[:6] or 0}", "%Y-%m-%d %H:%M:%S.%f")
        context, generated = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        if min(context, generated) < 0:
            raise ValueError("a number of tokens is below 0")
        return moment, context, generated

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    return Requests(
        arrival_seconds=np.array([(row[0] - rows[0][0]).total_seconds() for row in rows], dtype=np.float64),
        context_tokens=np.array([row[1] for row in rows], dtype=np.int64),
        generated_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        bad_lines=bad,
    )
