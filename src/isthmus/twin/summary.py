"""What a schedule comes to: the figures by which schedules are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.schedulers import bounded_slowdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Waits in seconds; AVEbsld is the mean bounded slowdown (10 s); makespan from first submission to last end.

    Utilisation: processor seconds used over processors times makespan. All 0 for no job.
    """

    jobs: int
    mean_wait_s: float
    p95_wait_s: float
    avebsld: float
    utilisation: float
    makespan_s: int


def summarise(
    submit: NDArray[np.int64],
    run: NDArray[np.int64],
    width: NDArray[np.int64],
    wait: NDArray[np.int64],
    processors: int,
) -> Summary:
    """The figures of jobs (seconds and processors, one entry a job) that ran on `processors` processors in all."""
    if len(submit) == 0:
        return Summary(jobs=0, mean_wait_s=0.0, p95_wait_s=0.0, avebsld=0.0, utilisation=0.0, makespan_s=0)
    makespan = int((submit + wait + run).max() - submit.min())
    used = float((run.astype(np.float64) * width).sum())
    return Summary(
        jobs=len(submit),
        mean_wait_s=float(wait.mean()),
        p95_wait_s=float(np.percentile(wait, 95)),
        avebsld=float(bounded_slowdown(wait, run).mean()),
        utilisation=used / (processors * makespan) if makespan else 0.0,
        makespan_s=makespan,
    )


NAMES = {
    "jobs": "jobs",
    "mean_wait_s": "mean wait, passage of data included (s)",
    "p95_wait_s": "95 % of the jobs wait no longer than (s)",
    "avebsld": "mean bounded slowdown (1 = no wait)",
    "utilisation": "share of all processors in use, first submission to last end",
    "makespan_s": "first submission to last end (s)",
    "energy_kwh": "energy at the meter (kWh)",
    "cost": "cost of energy (in the tariffs' unit)",
    "carbon_kg": "carbon (kg CO2)",
    "moved_jobs": "jobs that ran away from home",
    "moved_bytes": "input that moved (GB)",
    "lost_attempts": "attempts that outages ended",
    "lost_processor_hours": "processor hours lost with them",
}


def named(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Figures as people read them: a name with its unit, and the value."""
    return [(NAMES[key], shown(value / 1e9 if key == "moved_bytes" else value)) for key, value in figures.items()]


def shown(value: float) -> str:
    """A figure as people read it: whole numbers whole, others with four digits that count."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
