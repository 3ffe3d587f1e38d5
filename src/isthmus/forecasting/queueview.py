"""The visible queue of one pool, at one moment, as columns: what runs, what waits, and what is believed of each job."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.forecasting.forecast import Forecast
from isthmus.forecasting.plan import easy_start, sampled_starts

Belief = NDArray[np.float64]


def belief(forecasts: list[Forecast]) -> Belief:
    """Forecasts of run time as rows of point, p10, p50, p90 in seconds."""
    return np.array([(f.point, f.p10, f.p50, f.p90) for f in forecasts], dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """One pool at one moment. Columns have one entry a job: processor counts, seconds, beliefs (see `belief`).

    `queued` is in the order in which the site serves it. `site_forecast_seconds`: the wait that the site itself foretells
    for the job that asks, as `squeue --start` does; None where it says nothing.
    """

    processors: int
    running: NDArray[np.int64]
    running_elapsed: NDArray[np.int64]
    running_requested: NDArray[np.int64]
    running_belief: Belief
    queued: NDArray[np.int64]
    queued_requested: NDArray[np.int64]
    queued_belief: Belief
    site_forecast_seconds: float | None = None

    def __post_init__(self) -> None:
        if (
            not len(self.running)
            == len(self.running_elapsed)
            == len(self.running_requested)
            == len(self.running_belief)
        ):
            raise Invalid("running", "its columns are not of one length.", remedy="Give one entry a job.")
        if not len(self.queued) == len(self.queued_requested) == len(self.queued_belief):
            raise Invalid("queued", "its columns are not of one length.", remedy="Give one entry a job.")

    @property
    def promised_ends(self) -> NDArray[np.int64]:
        """Seconds until each running job must end, by its request; at least one."""
        ends: NDArray[np.int64] = np.maximum(1, self.running_requested - self.running_elapsed)
        return ends

    def believed_ends(self) -> NDArray[np.int64]:
        """Seconds until each running job ends by its point; one that outlived it runs half as long again."""
        point = self.running_belief[:, 0]
        longer = np.maximum(1.5 * self.running_elapsed, self.running_elapsed + 60)
        left = np.where(point > self.running_elapsed, point, longer).astype(np.int64) - self.running_elapsed
        ends: NDArray[np.int64] = np.maximum(1, np.minimum(left, self.promised_ends))
        return ends

    def plan(self, processors: int, requested_seconds: int) -> int:
        """Seconds until a new last job starts if all jobs run as long as requested: what a site itself foretells."""
        if processors > self.processors:
            raise Invalid(
                "processors", f"{processors} of {self.processors}.", remedy="Ask for no more than the pool has."
            )
        queue, requests = self._queue(processors, requested_seconds)
        promised = self.promised_ends
        return int(easy_start(self.processors, self.running, promised, promised, queue, requests, requests))

    def starts(
        self, processors: int, requested_seconds: int, run: Forecast, samples: int, seed: int
    ) -> tuple[int, int, NDArray[np.int64]]:
        """Seconds until a new last job starts: if all ran as requested, as their points, and as samples of the beliefs.

        No sample is drawn where the job starts at once by request: it then starts at once under any belief.
        """
        plan = self.plan(processors, requested_seconds)
        if plan == 0:
            return 0, 0, np.zeros(samples, np.int64)
        queue, requests = self._queue(processors, requested_seconds)
        beliefs = np.concatenate([self.queued_belief, belief([run])])
        promised = self.promised_ends
        runs = np.clip(beliefs[:, 0].astype(np.int64), 1, requests)
        pointed = easy_start(self.processors, self.running, self.believed_ends(), promised, queue, runs, requests)
        draws = np.random.default_rng(seed).random((samples, len(self.running) + len(queue)))
        sampled = sampled_starts(
            self.processors,
            self.running,
            self.running_elapsed,
            promised,
            np.log(np.maximum(1.0, self.running_belief[:, 1:])),
            queue,
            requests,
            np.log(np.maximum(1.0, beliefs[:, 1:])),
            draws,
        )
        return plan, int(pointed), sampled

    def _queue(self, processors: int, requested_seconds: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.append(self.queued, processors), np.append(self.queued_requested, requested_seconds)
