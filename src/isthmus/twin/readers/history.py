"""What a control plane remembers of its own tasks, as a log in the twin's columns: one job for each attempt that used something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.twin.readers.swf import FIELDS, SwfLog


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One attempt that ended; times in seconds since 1970, processors in all.

    `submitted` is when it reached the site, `started` when the site started it; `elapsed_seconds` and `processors` are of
    the site's accounting. None or 0: not known.
    """

    key: str
    user: str
    submitted: float | None
    started: float | None
    elapsed_seconds: int
    processors: int
    requested_seconds: int
    succeeded: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An attempt that is left out, and why."""

    key: str
    cause: str


def history_log(
    attempts: Sequence[PastAttempt], name: str = ""
) -> tuple[SwfLog, tuple[PastAttempt, ...], tuple[Unusable, ...]]:
    """The log (jobs numbered from 1 in order of submission), the attempts that are its jobs, and those left out.

    Submissions are whole seconds since the first; a start before its submission, which only two clocks that differ can
    give, is a wait of 0. Users are numbered as they first come. `name` is the header's Computer.
    """
    left = tuple(Unusable(key=one.key, cause=cause) for one in attempts if (cause := _cause(one)))
    gone = {one.key for one in left}
    kept = sorted((one for one in attempts if one.key not in gone), key=lambda one: (_known(one.submitted), one.key))
    begun = int(_known(kept[0].submitted)) if kept else 0
    users: dict[str, int] = {}
    rows = np.full((len(kept), len(FIELDS)), -1.0)
    place = {field: i for i, (field, _) in enumerate(FIELDS)}
    for row, one in zip(rows, kept, strict=True):
        submitted = round(_known(one.submitted))
        for field, value in (
            ("submit_seconds", submitted - begun),
            ("wait_seconds", max(0, round(_known(one.started)) - submitted)),
            ("run_seconds", one.elapsed_seconds),
            ("allocated_processors", one.processors),
            ("requested_processors", one.processors),
            ("requested_seconds", one.requested_seconds),
            ("status", 1 if one.succeeded else 0),
            ("user", users.setdefault(one.user, len(users) + 1)),
        ):
            row[place[field]] = value
    rows[:, place["job_id"]] = np.arange(1, len(kept) + 1)
    header = {"Version": "2.2", "UnixStartTime": str(begun)} | ({"Computer": name} if name else {})
    columns = {field: rows[:, i].astype(np.int64 if whole else np.float64) for i, (field, whole) in enumerate(FIELDS)}
    return SwfLog(header=header, bad_lines=(), **columns), tuple(kept), left  # type: ignore[arg-type]


def _cause(one: PastAttempt) -> str:
    if one.submitted is None:
        return "no time of submission to the site"
    if one.started is None:
        return "never started"
    if one.elapsed_seconds < 1:
        return "ran for less than a second"
    if one.processors < 1:
        return "no number of processors"
    if one.requested_seconds < 1:
        return "no requested time"
    return ""


def _known(moment: float | None) -> float:
    assert moment is not None
    return moment
