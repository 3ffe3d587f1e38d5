"""The twin's way in: a workload, processors, a scheduler and run-time estimates give each job's wait."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.schedulers.backfill import easy_waits
from isthmus.twin.schedulers.replan import CONSERVATIVE, SELECTIVE, TRAINED, replan_starts
from isthmus.twin.schedulers.reserve import conservative_waits

Scheduler = Literal["fcfs", "easy", "easy-sjbf", "conservative", "selective"]
Estimates = Literal["requested", "actual"]


class Workload(Protocol):
    """What a scheduler needs of a log: whole seconds and processor counts, one entry a job."""

    @property
    def submit_seconds(self) -> NDArray[np.int64]: ...
    @property
    def run_seconds(self) -> NDArray[np.int64]: ...
    @property
    def requested_processors(self) -> NDArray[np.int64]: ...
    @property
    def requested_seconds(self) -> NDArray[np.int64]: ...


def simulate(
    log: Workload, processors: int, scheduler: Scheduler, estimates: Estimates | NDArray[np.int64] = "requested"
) -> NDArray[np.int64]:
    """Waits in seconds, in the log's order, of its jobs on `processors` alike processors.

    `estimates` are the users' requests, the actual run times (clairvoyant), or given predictions in seconds. A running
    job that outlives its estimate is corrected to the request, then by growing steps (a rule of our own).
    Conservative, where some estimates are too short, plans its reservations anew at each event, and a job that outlives its
    estimate is expected to end at any moment. Invalid names the field and counts the jobs that cannot run.
    """
    submit, run, width = log.submit_seconds, log.run_seconds, log.requested_processors
    given = {"requested": log.requested_seconds, "actual": run}
    estimate = given[estimates] if isinstance(estimates, str) else np.asarray(estimates, dtype=np.int64)
    if len(estimate) != len(submit):
        raise Invalid("estimates", f"{len(estimate)} estimates for {len(submit)} jobs.", remedy="Give one a job.")
    _all("run_seconds", run > 0, "run for less than a second or for an unknown time")
    _all("requested_processors", (width > 0) & (width <= processors), f"do not ask for 1 to {processors} processors")
    _all("estimates", estimate > 0, "have an estimate under a second")
    order = np.argsort(submit, kind="stable")
    columns = [np.ascontiguousarray(column[order], dtype=np.int64) for column in (submit, run, width, estimate)]
    if scheduler == "conservative" and (estimate >= run).all():
        ordered = conservative_waits(*columns, processors)
    elif scheduler in ("conservative", "selective"):
        # Some outlive their estimate: reservations are made anew at each event.
        mode = SELECTIVE if scheduler == "selective" else CONSERVATIVE
        none = np.empty(0, dtype=np.int64)
        starts, _, _ = replan_starts(*columns, processors, mode, TRAINED, none, none, none, none.astype(np.bool_), none)
        ordered = starts - columns[0]
    elif scheduler in ("fcfs", "easy", "easy-sjbf"):
        request = np.ascontiguousarray(log.requested_seconds[order], dtype=np.int64)
        mode = ("fcfs", "easy", "easy-sjbf").index(scheduler)
        ordered = easy_waits(*columns, request, processors, mode)
    else:
        raise Invalid(
            "scheduler", f"{scheduler} is unknown.", remedy="Use fcfs, easy, easy-sjbf, conservative or selective."
        )
    waits = np.empty(len(submit), dtype=np.int64)
    waits[order] = ordered
    return waits


def bounded_slowdown(waits: NDArray[np.int64], run_seconds: NDArray[np.int64]) -> NDArray[np.float64]:
    """max(1, (wait + run) / max(run, 10 s)) of each job, without a unit (Feitelson and Rudolph 1998)."""
    slowdown: NDArray[np.float64] = np.maximum(1.0, (waits + run_seconds) / np.maximum(run_seconds, 10))
    return slowdown


def _all(field: str, good: NDArray[np.bool_], cause: str) -> None:
    if not good.all():
        raise Invalid(field, f"{int((~good).sum())} jobs {cause}.", remedy="Leave them out first.")
