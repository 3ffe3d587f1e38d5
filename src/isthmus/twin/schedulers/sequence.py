"""Sequences of jobs as RLScheduler (Zhang et al., SC 2020) cuts them from logs, and its priority rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.readers.swf import SwfLog
from isthmus.twin.schedulers.pick import pick_waits

Rule = Literal["FCFS", "WFP3", "UNI", "SJF", "F1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Jobs in order of arrival; a Workload. Seconds since the log's start, and processor counts."""

    submit_seconds: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    requested_processors: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.submit_seconds)

    def cut(self, start: int, length: int) -> Sequence:
        """The jobs from `start` on, `length` of them."""
        part = slice(start, start + length)
        return Sequence(
            submit_seconds=self.submit_seconds[part],
            run_seconds=self.run_seconds[part],
            requested_processors=self.requested_processors[part],
            requested_seconds=self.requested_seconds[part],
        )


def sequence_of(log: SwfLog) -> Sequence:
    """A log as that environment loads it: by job id; a run time below 0 is 10 s, jobs of 0 s are left out.

    The processors are the larger of allocated and requested; an unknown request is the run time.
    """
    run = np.where(log.run_seconds < 0, 10, log.run_seconds)
    request = np.where(log.requested_seconds == -1, log.run_seconds, log.requested_seconds)
    order = np.argsort(log.job_id, kind="stable")
    order = order[run[order] > 0]
    return Sequence(
        submit_seconds=np.ascontiguousarray(log.submit_seconds[order]),
        run_seconds=np.ascontiguousarray(run[order]),
        requested_processors=np.maximum(log.allocated_processors, log.requested_processors)[order],
        requested_seconds=np.ascontiguousarray(request[order]),
    )


def rule_waits(jobs: Sequence, processors: int, rule: Rule, backfilling: bool) -> NDArray[np.int64]:
    """Waits in seconds under one of the environment's rules, with or without its backfilling.

    Its rules take a waiting job's start for -1 s, so that WFP3 and UNI see a wait of -1 - submit, the same all along.
    """
    submit, width = jobs.submit_seconds.astype(np.float64), jobs.requested_processors.astype(np.float64)
    request = jobs.requested_seconds.astype(np.float64)
    second = np.zeros(len(jobs))
    if rule == "FCFS":
        first = submit
    elif rule == "SJF":
        first, second = request, submit
    elif rule == "F1":
        first = np.log10(np.where(request > 0, request, 0.1)) * width
        first = first + 870 * np.log10(np.where(submit > 0, submit, 0.1))
    elif rule == "WFP3":
        first = -np.power((-1 - submit) / request, 3) * width
    elif rule == "UNI":
        first = -(-1 - submit + 1e-15) / (np.log2(width + 1e-15) * request)
    else:
        raise Invalid("rule", f"{rule} is unknown.", remedy=f"Use one of {', '.join(get_args(Rule))}.")
    columns = (jobs.submit_seconds, jobs.run_seconds, jobs.requested_processors, jobs.requested_seconds)
    waits: NDArray[np.int64] = pick_waits(*columns, first, second, processors, backfilling)
    return waits
