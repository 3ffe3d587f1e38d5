"""A log replayed through the models, strictly in time: what they would have forecast for each job at its submission.

The forecasts of run time are what a scheduler of the twin takes as estimates.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from isthmus.forecasting.forecast import Forecast
from isthmus.forecasting.queueview import QueueView, belief
from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel
from isthmus.forecasting.waits import WaitModel, WaitRequest


class Log(Protocol):
    """Jobs as columns in order of submission: whole seconds, processor counts, users as numbers."""

    @property
    def submit_seconds(self) -> NDArray[np.int64]: ...
    @property
    def run_seconds(self) -> NDArray[np.int64]: ...
    @property
    def requested_processors(self) -> NDArray[np.int64]: ...
    @property
    def requested_seconds(self) -> NDArray[np.int64]: ...
    @property
    def user(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One forecast a job, in the log's order; of waits also the site's own plan, in seconds."""

    forecasts: tuple[Forecast, ...]
    plans: tuple[int, ...] = ()

    def column(self, name: str) -> NDArray[np.float64]:
        """One figure of every forecast: point, p10, p50, p90, p95."""
        return np.array([getattr(forecast, name) for forecast in self.forecasts], dtype=np.float64)

    def estimates(self) -> NDArray[np.int64]:
        """The points in whole seconds, at least one: what a scheduler takes."""
        return np.maximum(1, np.rint(self.column("point"))).astype(np.int64)


def replay_run_times(log: Log, waits: NDArray[np.int64], model: RunTimeModel) -> Replayed:
    """Forecast each job's run time from the jobs that had ended, given their `waits` in seconds; trains when due."""
    columns = (log.submit_seconds, log.run_seconds, log.requested_processors, log.requested_seconds, log.user, waits)
    jobs = list(zip(*(column.tolist() for column in columns), strict=True))
    ends: list[tuple[int, int]] = []
    requests: list[RunRequest] = []
    forecasts: list[Forecast] = []
    for i, (submit, run, processors, requested, user, wait) in enumerate(jobs):
        while ends and ends[0][0] <= submit:
            ended_at, j = heapq.heappop(ends)
            record = RunRecord(request=requests[j], run_seconds=jobs[j][1], ended_at=ended_at, forecast=forecasts[j])
            model.observe(record)
            if model.due:
                model.train()
        requests.append(
            RunRequest(user=str(user), processors=processors, requested_seconds=requested, submitted_at=submit)
        )
        forecasts.append(model.predict(requests[-1]))
        heapq.heappush(ends, (submit + wait + run, i))
    return Replayed(forecasts=tuple(forecasts))


def replay_waits(log: Log, waits: NDArray[np.int64], processors: int, runs: Replayed, model: WaitModel) -> Replayed:
    """Forecast each job's wait from the queue that was to be seen at its submission, given what all `waits` came to be."""
    submits, request = log.submit_seconds.tolist(), log.requested_seconds
    starts_at = log.submit_seconds + waits
    ends_at = (starts_at + log.run_seconds).tolist()
    width = log.requested_processors
    beliefs = belief(list(runs.forecasts))
    starts: list[tuple[int, int]] = []
    ends: list[tuple[int, int]] = []
    running: dict[int, None] = {}
    queued: dict[int, None] = {}
    forecasts: list[Forecast] = []
    plans: list[int] = []
    for i, now in enumerate(submits):
        while starts and starts[0][0] <= now:
            _, j = heapq.heappop(starts)
            del queued[j]
            running[j] = None
            heapq.heappush(ends, (ends_at[j], j))
            model.started(str(j), int(waits[j]))
            if model.due:
                model.train()
        while ends and ends[0][0] < now:
            del running[heapq.heappop(ends)[1]]
        on = np.fromiter(running, np.int64, len(running))
        off = np.fromiter(queued, np.int64, len(queued))
        view = QueueView(
            processors=processors,
            running=width[on],
            running_elapsed=now - starts_at[on],
            running_requested=request[on],
            running_belief=beliefs[on],
            queued=width[off],
            queued_requested=request[off],
            queued_belief=beliefs[off],
        )
        asks = WaitRequest(
            processors=int(width[i]), requested_seconds=int(request[i]), submitted_at=now, run=runs.forecasts[i]
        )
        forecasts.append(model.submitted(str(i), asks, view))
        plans.append(view.plan(asks.processors, asks.requested_seconds))
        queued[i] = None
        heapq.heappush(starts, (int(starts_at[i]), i))
    return Replayed(forecasts=tuple(forecasts), plans=tuple(plans))
