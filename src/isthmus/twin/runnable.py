"""Which jobs of a log a site can run, and why the others are left out: counted and named, never guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.readers.swf import SwfLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Jobs left out for one cause: the ids of all of them, in the log's order."""

    cause: str
    job_ids: tuple[int, ...]


def runnable(
    log: SwfLog, processors: int, *, needs_request: bool, within_request: bool = False
) -> tuple[SwfLog, tuple[LeftOut, ...]]:
    """The jobs that `processors` alike processors can run, and those left out, each for the first cause that holds.

    Where the request for processors is unknown, the allocated ones stand for it, as the format's authors advise.
    `needs_request` leaves out jobs without a requested time; `within_request` those that outlive it.
    """
    known = log.requested_processors > 0
    width = np.where(known, log.requested_processors, log.allocated_processors)
    log = replace(log, requested_processors=width)
    causes: list[tuple[str, NDArray[np.bool_]]] = [
        ("submission before the log's start", log.submit_seconds < 0),
        ("no run time of at least a second", log.run_seconds < 1),
        ("no number of processors", width < 1),
        (f"more than {processors} processors", width > processors),
    ]
    if needs_request:
        causes.append(("no requested time", log.requested_seconds < 1))
    if within_request:
        causes.append(("runs longer than requested", log.run_seconds > log.requested_seconds))
    keep = np.ones(len(log), dtype=np.bool_)
    left: list[LeftOut] = []
    for cause, hit in causes:
        ids = log.job_id[hit & keep].tolist()
        if ids:
            left.append(LeftOut(cause=cause, job_ids=tuple(ids)))
        keep &= ~hit
    return log.where(keep), tuple(left)
