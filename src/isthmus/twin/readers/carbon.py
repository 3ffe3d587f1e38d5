"""Carbon intensity of a grid, hour by hour: CSV of Electricity Maps (ODbL; name them where its figures are shown)."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.columns import good_rows, lines_of
from isthmus.twin.readers.swf import BadLine


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonSeries:
    """Grams of CO2 equivalent for a kWh in each hour from `start` (UTC) on: of the plants alone, and over their lives."""

    zone: str
    start: datetime
    direct: NDArray[np.float64]
    life_cycle: NDArray[np.float64]
    bad_lines: tuple[BadLine, ...]

    def __len__(self) -> int:
        return len(self.direct)


def read_carbon(path: Path) -> CarbonSeries:
    """The series of a file, plain or .gz. Invalid where an hour is missing or comes twice: a gap is never filled in."""

    def read(row: dict[str, str]) -> tuple[datetime, str, float, float]:
        moment = datetime.strptime(row["Datetime (UTC)"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        direct = float(row["Carbon Intensity gCO₂eq/kWh (direct)"])
        life_cycle = float(row["Carbon Intensity gCO₂eq/kWh (LCA)"])
        if not (math.isfinite(direct) and math.isfinite(life_cycle) and min(direct, life_cycle) >= 0):
            raise ValueError("an intensity is below 0 or not a number")
        return moment, row["Zone Id"], direct, life_cycle

    rows, bad = good_rows(csv.DictReader(lines_of(path)), read, first_line=2)
    if not rows:
        raise Invalid("path", f"{path.name} holds no hour that can be read.", remedy="Give an hourly series.")
    hours = [(row[0] - rows[0][0]).total_seconds() / 3600 for row in rows]
    wrong = next((i for i, hour in enumerate(hours) if hour != i), None)
    if wrong is not None:
        moment = rows[wrong][0]
        raise Invalid("path", f"{path.name} is not hourly at {moment:%Y-%m-%d %H:%M}.", remedy="Give every hour once.")
    return CarbonSeries(
        zone=rows[0][1],
        start=rows[0][0],
        direct=np.array([row[2] for row in rows], dtype=np.float64),
        life_cycle=np.array([row[3] for row in rows], dtype=np.float64),
        bad_lines=bad,
    )
