"""squeue and sacct: what to ask, and what the answers mean.

Text with a separator is asked for, not JSON: it is the same from Slurm 17 to today and an order of magnitude smaller and
faster for ten thousand jobs, while the JSON changed its form with 21.08, 23.02 and 23.11. The one field in which a user
may write anything (the job's name) stands last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer, UsageRow, expand_hosts
from isthmus.sites.port import Sighting
from isthmus.sites.slurm import values
from isthmus.sites.slurm.states import sighting_of, state_word

MAX_NAMES = 4000  # 27 bytes each: one argument may have 128 KiB on Linux
_QUEUE_FORMAT = "%i|%u|%T|%r|%V|%S|%e|%M|%C|%N|%j"
_RECORD_FIELDS = (
    "JobIDRaw,User,State,ExitCode,Submit,Start,End,ElapsedRaw,AllocCPUS,CPUTimeRAW,TotalCPU,"
    "MaxRSS,MaxDiskRead,MaxDiskWrite,NNodes,AllocTRES,NodeList,JobName"
)
_RECORD_WIDTH = _RECORD_FIELDS.count(",")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowQueue:
    """Jobs that slurmctld knows (ended ones for MinJobAge seconds), by user, by name, or by id."""

    users: Sequence[str] = ()
    names: Sequence[str] = ()
    ids: Sequence[str] = ()

    def argv(self) -> list[str]:
        """The command."""
        words = ["squeue", "-h", "-a", "-r", "--states=all", f"--format={_QUEUE_FORMAT}"]
        if self.users:
            words.append("--user=" + ",".join(self.users))
        if self.names and len(self.names) <= MAX_NAMES:
            words.append("--name=" + ",".join(self.names))
        if self.ids:
            words.append("--jobs=" + ",".join(self.ids))
        return words

    def parse(self, text: str) -> Answer:
        """The rows; not complete when a line is not a row."""
        return _answer(text, _queue_row, "squeue")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowRecords:
    """Allocations in the accounting since some seconds ago, each start of a requeued job apart; with `steps`, also
    their steps."""

    age_seconds: int
    users: Sequence[str] = ()
    names: Sequence[str] = ()
    steps: bool = False

    def argv(self) -> list[str]:
        """The command. The window is relative, so that it holds by the site's own clock."""
        words = ["sacct", "-n", "-P", "-D", "--noconvert", f"--starttime=now-{max(60, self.age_seconds)}seconds"]
        words += [f"--format={_RECORD_FIELDS}"]
        if not self.steps:
            words.append("-X")
        if self.names and len(self.names) <= MAX_NAMES:
            # Not by user as well: sacct fails as a whole when one of the users is no longer known at the site.
            words += ["--allusers", "--name=" + ",".join(self.names)]
        else:
            words.append("--user=" + ",".join(self.users) if self.users else "--allusers")
        return words

    def parse(self, text: str) -> Answer:
        """The allocations, steps left out; not complete when a line is not a record."""
        return _answer(text, _record_row, "sacct")

    def parse_usage(self, text: str) -> UsageAnswer:
        """What allocations and steps used."""
        rows: list[UsageRow] = []
        problem = ""
        owners: dict[str, tuple[str, str]] = {}
        for line in _lines(text):
            row = _usage_row(line, owners)
            if row is None:
                problem = f"sacct printed something unexpected: {line[:200]!r}"
            else:
                rows.append(row)
        return UsageAnswer(rows=tuple(rows), complete=not problem, problem=problem)


def _lines(text: str) -> Iterable[str]:
    return (line for line in text.split("\n") if line.strip())


def _answer(text: str, parse_row: object, source: str) -> Answer:
    rows: list[NativeJob] = []
    problem = ""
    for line in _lines(text):
        found, row = parse_row(line)  # type: ignore[operator]
        if not found:
            problem = f"{source} printed something unexpected: {line[:200]!r}"
        elif row is not None:
            rows.append(row)
    return Answer(rows=tuple(rows), complete=not problem, problem=problem)


def _is_job_id(text: str) -> bool:
    return text[:1].isdigit() and text.isascii() and all(c.isalnum() or c in "_[].+-,%" for c in text)


def _queue_row(line: str) -> tuple[bool, NativeJob | None]:
    fields = line.split("|", 10)
    if len(fields) != 11 or not _is_job_id(fields[0]):
        return False, None
    native_id, user, word, cause, submitted, start, end, elapsed, cpus, nodes, name = fields
    state = state_word(word)
    # squeue does not show the exit code; FAILED without it is an error of unknown number.
    sighting, reason = sighting_of(state, None, 0)
    started = values.moment(start) if sighting is not Sighting.QUEUED else None  # else only a forecast
    return True, NativeJob(
        native_id=native_id,
        name=name,
        user=user,
        state=state,
        sighting=sighting,
        reason=_why(reason, cause),
        message="" if cause in {"None", "(null)"} else cause,
        submitted_at=values.moment(submitted),
        started_at=started,
        ended_at=values.moment(end) if sighting is Sighting.ENDED else None,
        nodes=expand_hosts(nodes),
        cpus=values.whole(cpus) or 0,
        elapsed_seconds=int(values.clock_seconds(elapsed) or 0),
    )


def _why(reason: EndReason | None, cause: str) -> EndReason | None:
    """Sharpen FAILED by squeue's cause: it gives no exit code, but names signals and impossible demands."""
    if reason is EndReason.EXIT_NONZERO:
        if cause == "RaisedSignal" or cause.startswith("RaisedSignal:"):
            return EndReason.SIGNALLED
        if cause in {"BadConstraints", "InvalidAccount", "InvalidQOS", "AssociationJobLimit"}:
            return EndReason.REJECTED_BY_SITE
        if cause in {"JobLaunchFailure", "NodeDown", "SystemFailure", "JobHeldAdmin"}:
            return EndReason.NODE_FAILED
    return reason


def _split_record(line: str) -> list[str] | None:
    fields = line.split("|", _RECORD_WIDTH)
    return fields if len(fields) == _RECORD_WIDTH + 1 and _is_job_id(fields[0]) else None


def _record_row(line: str) -> tuple[bool, NativeJob | None]:
    fields = _split_record(line)
    if fields is None:
        return False, None
    native_id, user, words, status, submitted, start, end, elapsed, cpus = fields[:9]
    if "." in native_id:
        return True, None
    state = state_word(words)
    exit_code, signal = values.exit_status(status)
    sighting, reason = sighting_of(state, exit_code, signal)
    return True, NativeJob(
        native_id=native_id,
        name=fields[17],
        user=user,
        state=state,
        sighting=sighting,
        reason=reason,
        exit_code=exit_code if sighting is Sighting.ENDED else None,
        signal=signal,
        message=words if " " in words else "",
        submitted_at=values.moment(submitted),
        started_at=values.moment(start),
        ended_at=values.moment(end),
        nodes=expand_hosts(fields[16]),
        cpus=values.whole(cpus) or 0,
        elapsed_seconds=values.whole(elapsed) or 0,
        superseded=state == "REQUEUED",
    )


def _usage_row(line: str, owners: dict[str, tuple[str, str]]) -> UsageRow | None:
    """One line as usage; a step takes name and user of its allocation, whose line comes before it."""
    fields = _split_record(line)
    if fields is None:
        return None
    job, _, step = fields[0].partition(".")
    if not step:
        owners[job] = (fields[17], fields[1])
    name, user = owners.get(job, ("", ""))
    state = state_word(fields[2])
    exit_code, signal = values.exit_status(fields[3])
    ended_at = values.moment(fields[6])
    ended = sighting_of(state, exit_code, signal)[0] is Sighting.ENDED or state == "REQUEUED"
    return UsageRow(
        native_id=job,
        name=name,
        user=user,
        step=step,
        state=state,
        final=ended and ended_at is not None,
        submitted_at=values.moment(fields[4]),
        started_at=values.moment(fields[5]),
        ended_at=ended_at,
        elapsed_seconds=values.whole(fields[7]) or 0,
        cpus=values.whole(fields[8]) or 0,
        allocated_cpu_seconds=values.whole(fields[9]) or 0,
        cpu_seconds=values.clock_seconds(fields[10]) or 0.0,
        max_rss_bytes=values.size_bytes(fields[11]),
        read_bytes=values.size_bytes(fields[12]),
        written_bytes=values.size_bytes(fields[13]),
        nodes=values.whole(fields[14]) or 1,
        accelerators=values.gpus(fields[15]),
    )
