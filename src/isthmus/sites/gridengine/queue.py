"""qstat: what to ask, and what its XML means.

Source: qstat(1), sge_status(5), of Grid Engine 8.1. A finished job may be listed for a while (state z) without a word on
how it ended; that is in the accounting, or, for a job that was removed before it started, nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from isthmus.sites.batch.rows import Answer, NativeJob
from isthmus.sites.port import Sighting
from isthmus.sites.slurm.values import moment

PREFIX = "isth-"  # a job's name must not begin with a digit, as keys do
_STATE = re.compile(r"[a-zA-Z]{1,8}")
_ID = re.compile(r"\d{1,18}")


def qstat_argv(users: Sequence[str]) -> list[str]:
    """Jobs that wait, run, are suspended or have just ended, of some users."""
    return ["qstat", "-u", ",".join(users) or "*", "-s", "prsz", "-xml"]


def parse_xml(text: str) -> ElementTree.Element | None:
    """The document, or None when it is not one; entities are refused, since qstat writes none."""
    if "<!" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - no entities, checked above
    except ElementTree.ParseError:
        return None


def parse_queue(text: str) -> Answer:
    """Jobs of Isthmus in qstat's answer; jobs of other names are left out."""
    document = parse_xml(text)
    if document is None or document.tag != "job_info":
        return Answer(complete=False, problem=f"qstat printed no list of jobs: {text[:200]!r}")
    rows: list[NativeJob] = []
    problem = ""
    for entry in document.iter("job_list"):
        row = _row(entry)
        if row is None:
            problem = "qstat listed a job without number or state."
        elif row.name.startswith(PREFIX):
            rows.append(row)
    stripped = tuple(_without_prefix(row) for row in rows)
    return Answer(rows=stripped, complete=not problem, problem=problem)


def _without_prefix(row: NativeJob) -> NativeJob:
    return NativeJob(
        native_id=row.native_id,
        name=row.name.removeprefix(PREFIX),
        user=row.user,
        state=row.state,
        sighting=row.sighting,
        message=row.message,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        nodes=row.nodes,
        cpus=row.cpus,
        gone=row.gone,
    )


def _row(entry: ElementTree.Element) -> NativeJob | None:
    number, state = _text(entry, "JB_job_number"), _text(entry, "state")
    if _ID.fullmatch(number) is None or _STATE.fullmatch(state) is None:
        return None
    sighting = sighting_of(state)
    host = _text(entry, "queue_name").partition("@")[2]
    slots = _text(entry, "slots")
    return NativeJob(
        native_id=number,
        name=_text(entry, "full_job_name") or _text(entry, "JB_name"),
        user=_text(entry, "JB_owner"),
        state=state,
        sighting=sighting,
        message="The site holds it in an error state; its operator must clear it." if "E" in state else "",
        submitted_at=moment(_text(entry, "JB_submission_time")),
        started_at=moment(_text(entry, "JAT_start_time")) if sighting is Sighting.RUNNING else None,
        nodes=(host,) if host else (),
        cpus=int(slots) if slots.isascii() and slots.isdigit() and len(slots) < 10 else 0,
        gone="z" in state,
    )


def sighting_of(state: str) -> Sighting:
    """What the letters of a state mean: running, transferring and suspended jobs run; what waits or is held is queued."""
    if "z" in state:
        return Sighting.UNSEEN
    if "w" in state or "h" in state:
        return Sighting.QUEUED
    if any(letter in "rtsST" for letter in state):
        return Sighting.RUNNING
    return Sighting.UNSEEN


def _text(entry: ElementTree.Element, name: str) -> str:
    return (entry.findtext(name) or "").strip()
