"""A workload on processors that fail, are repaired and are drained, under schedulers that plan anew at each event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.schedulers.replan import TRAINED, Weights, replan_starts
from isthmus.twin.schedulers.simulate import Workload

Replanning = Literal["fcfs", "easy", "selective", "easy-sjbf", "conservative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Processors that are away from `begin_seconds` to `finish_seconds`, on the log's clock.

    A failure takes them at once, and the jobs that started last lose their work and wait again; a drain takes them as
    they become free. The schedulers do not know of an outage before it begins, nor when it will finish.
    """

    begin_seconds: int
    finish_seconds: int
    processors: int
    drain: bool = False

    def __post_init__(self) -> None:
        if self.finish_seconds <= self.begin_seconds or self.processors < 1:
            raise Invalid("outage", "It is empty.", remedy="Let it last a second, and take a processor, or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replanned:
    """Per job: seconds from submission to the start of the attempt that ended, and its attempts; and what was lost."""

    wait_seconds: NDArray[np.int64]
    attempts: NDArray[np.int64]
    lost_processor_seconds: int


def replan(
    log: Workload,
    processors: int,
    scheduler: Replanning,
    outages: tuple[Outage, ...] = (),
    estimates: NDArray[np.int64] | None = None,
    weights: Weights = TRAINED,
) -> Replanned:
    """The log's jobs on `processors` alike processors; `estimates` in seconds (default: what the users request).

    `weights` are selective's.

    Invalid where a job asks for more than there is, for nothing, or runs for less than a second.
    """
    if scheduler not in get_args(Replanning):
        raise Invalid("scheduler", f"{scheduler} is unknown.", remedy=f"Use one of {', '.join(get_args(Replanning))}.")
    estimate = log.requested_seconds if estimates is None else np.asarray(estimates, dtype=np.int64)
    width, run = log.requested_processors, log.run_seconds
    wrong = (width < 1) | (width > processors) | (run < 1) | (estimate < 1)
    if wrong.any():
        raise Invalid("log", f"{int(wrong.sum())} jobs cannot run here.", remedy="Leave them out first.")
    order = np.argsort(log.submit_seconds, kind="stable")
    columns = [np.ascontiguousarray(c[order], dtype=np.int64) for c in (log.submit_seconds, run, width, estimate)]
    ordered = sorted(outages, key=lambda outage: outage.begin_seconds)
    finish = np.array([outage.finish_seconds for outage in ordered], dtype=np.int64)
    starts, attempts, lost = replan_starts(
        *columns,
        processors,
        get_args(Replanning).index(scheduler),
        weights,
        np.array([outage.begin_seconds for outage in ordered], dtype=np.int64),
        finish,
        np.array([outage.processors for outage in ordered], dtype=np.int64),
        np.array([outage.drain for outage in ordered], dtype=np.bool_),
        np.argsort(finish, kind="stable"),
    )
    waits = np.empty(len(order), dtype=np.int64)
    tries = np.empty(len(order), dtype=np.int64)
    waits[order] = starts - columns[0]
    tries[order] = attempts
    return Replanned(wait_seconds=waits, attempts=tries, lost_processor_seconds=int(lost))
