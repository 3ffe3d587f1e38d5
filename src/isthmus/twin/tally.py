"""What a schedule comes to, added up as jobs end: sums by day and home, and waits in bins, so that no job has to be kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.federation import Ended
from isthmus.twin.scenario.account import Accounts
from isthmus.twin.schedulers import bounded_slowdown

RATIO = 1.01  # between the edges of two bins of waits, so that a quantile is right to half a per cent
BINS = 2 + math.ceil(math.log(2**40) / math.log(RATIO))
SUMS = ("jobs", "wait_seconds", "bounded_slowdown", "ran_elsewhere", "moved_jobs", "moved_bytes", "energy_kwh", "cost", "carbon_kg")  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Sums over jobs, by day of submission and home (number); seconds, bytes, and the units of `Accounts`."""

    homes: int
    processors: int  # of all sites
    sums: NDArray[np.float64] = field(init=False)  # day x home x SUMS
    waits: NDArray[np.int64] = field(init=False)  # home x bin: jobs
    first: int = field(init=False, default=2**62)
    last: int = field(init=False, default=0)
    used: float = field(init=False, default=0.0)  # processor seconds

    def __post_init__(self) -> None:
        self.sums = np.zeros((0, self.homes, len(SUMS)))
        self.waits = np.zeros((self.homes, BINS), dtype=np.int64)

    def add(self, ended: Ended, accounts: Accounts) -> None:
        """Jobs that ended, with what they used."""
        if not len(ended):
            return
        jobs = ended.jobs
        wait = ended.start_seconds - jobs.submit_seconds
        day = jobs.submit_seconds // 86400
        days = max(int(day.max()) + 1, len(self.sums))
        if days > len(self.sums):
            self.sums = np.concatenate([self.sums, np.zeros((days - len(self.sums), *self.sums.shape[1:]))])
        moved = ended.data_seconds >= 0
        columns = (
            None, wait, bounded_slowdown(wait, jobs.run_seconds), ended.site != jobs.home, moved,
            np.where(moved, jobs.input_bytes, 0), accounts.energy_kwh, accounts.cost, accounts.carbon_kg,
        )  # fmt: skip
        low = int(day.min())
        place = (day - low) * self.homes + jobs.home
        many = (days - low) * self.homes
        for number, column in enumerate(columns):
            added = np.bincount(place, weights=column, minlength=many)
            self.sums[low:, :, number] += added.reshape(-1, self.homes)
        # Bin 0 holds those that did not wait; bin k waits from RATIO^(k-1) on.
        at = np.where(wait > 0, 1 + np.log(np.maximum(wait, 1)) / math.log(RATIO), 0).astype(np.int64)
        flat = np.bincount(jobs.home * BINS + at, minlength=self.homes * BINS)
        self.waits += flat.reshape(self.waits.shape)
        self.first = min(self.first, int(jobs.submit_seconds.min()))
        self.last = max(self.last, int((ended.start_seconds + jobs.run_seconds).max()))
        self.used += float((jobs.run_seconds * jobs.processors.astype(np.float64)).sum())

    def wait_quantile(self, share: float, home: int | None = None) -> float:
        """The wait that this share of the jobs (of a home) does not exceed, right to half a per cent; 0 for no job."""
        counts = self.waits.sum(axis=0) if home is None else self.waits[home]
        total = int(counts.sum())
        if total == 0:
            return 0.0
        found = int(np.searchsorted(np.cumsum(counts), share * total))
        return 0.0 if found == 0 else RATIO ** (found - 0.5)

    def figures(self) -> dict[str, float]:
        """The same figures as those of a run that keeps its jobs."""
        total = dict(zip(SUMS, self.sums.sum(axis=(0, 1)).tolist(), strict=True))
        jobs = total["jobs"] or 1.0
        makespan = max(self.last - self.first, 0)
        return {
            "jobs": int(total["jobs"]),
            "mean_wait_s": total["wait_seconds"] / jobs,
            "p95_wait_s": self.wait_quantile(0.95),
            "avebsld": total["bounded_slowdown"] / jobs,
            "utilisation": self.used / (self.processors * makespan) if makespan else 0.0,
            "makespan_s": makespan,
            "energy_kwh": total["energy_kwh"],
            "cost": total["cost"],
            "carbon_kg": total["carbon_kg"],
            "moved_jobs": int(total["ran_elsewhere"]),
            "moved_bytes": int(total["moved_bytes"]),
        }

    def by_day(self, names: list[str]) -> dict[str, Any]:
        """A row for each day and home with jobs, as columns; means of waits and slowdowns, sums of the rest."""
        day, home = np.nonzero(self.sums[:, :, 0])
        rows = self.sums[day, home]
        columns: dict[str, Any] = {"day": day, "home": np.array(names)[home]}
        for number, name in enumerate(SUMS):
            mean = name in ("wait_seconds", "bounded_slowdown")
            columns[f"mean_{name}" if mean else name] = rows[:, number] / (rows[:, 0] if mean else 1)
        return columns
