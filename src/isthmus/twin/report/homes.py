"""The figures of each home, as rows of text."""

from __future__ import annotations

import numpy as np

from isthmus.twin.scenario.run import Result
from isthmus.twin.schedulers import bounded_slowdown

HOME_HEADERS = ["home", "jobs", "mean wait (s)", "AVEbsld", "ran elsewhere", "energy (kWh)", "cost", "carbon (kg)"]


def home_rows(result: Result) -> list[list[str]]:
    """The figures of each home's jobs, wherever they ran."""
    slowdown = bounded_slowdown(result.waits, result.work.run_seconds)
    rows = []
    for number, site in enumerate(result.scenario.sites):
        mine = result.work.home == number
        if not mine.any():
            continue
        away = float(np.mean(result.outcome.site[mine] != number))
        sums = (result.accounts.energy_kwh, result.accounts.cost, result.accounts.carbon_kg)
        used = [f"{column[mine].sum():,.0f}" for column in sums]
        rows.append([site.name, str(int(mine.sum())), f"{result.waits[mine].mean():,.0f}", f"{slowdown[mine].mean():.2f}", f"{away:.1%}", *used])  # fmt: skip
    return rows
