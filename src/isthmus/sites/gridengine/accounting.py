"""qacct: what to ask, and what its blocks of text mean. Source: accounting(5) of Grid Engine 8.1."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from isthmus.domain.lifecycle import EndReason
from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer, UsageRow
from isthmus.sites.gridengine.queue import PREFIX
from isthmus.sites.port import Sighting

_AMOUNT = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(?:([KMGT]?)(B|s|Bs)?)?")
_GPU = re.compile(r"(?:^|[\s,])(?P<name>[A-Za-z_]\w*)=(?P<count>\d{1,6})(?=[\s,]|$)")
_RESCHEDULED = 25
_LIMIT = 37
_KILLED = 100


def qacct_argv(users: Sequence[str], names: Sequence[str], age_seconds: int) -> list[str]:
    """Ended jobs of Isthmus since so many seconds: qacct knows one owner, one name or pattern, and whole days."""
    words = ["qacct", "-d", str(math.ceil(age_seconds / 86400) + 1)]
    if len(users) == 1:
        words += ["-o", users[0]]
    return [*words, "-j", names[0] if len(names) == 1 else f"{PREFIX}*"]


def nothing_found(complaint: str) -> bool:
    """Whether qacct failed only because it found nothing. A cell in which no job has ended yet has no file at all."""
    return "not found" in complaint or "No such file or directory" in complaint or "no jobs running" in complaint


def parse_records(text: str) -> Answer:
    """Ended jobs; not complete when a block has no number or no end."""
    rows: list[NativeJob] = []
    problem = ""
    for block in _blocks(text):
        row = _row(block)
        if row is None:
            problem = "qacct printed a record without number or exit status."
        elif row.name:
            rows.append(row)
    return Answer(rows=tuple(rows), complete=not problem, problem=problem)


def parse_usage(text: str, gpu_resource: str) -> UsageAnswer:
    """What ended jobs used; a slave task of a parallel job is a step of it."""
    rows = [row for block in _blocks(text) if (row := _usage_row(block, gpu_resource)) is not None]
    return UsageAnswer(rows=tuple(rows))


def _blocks(text: str) -> Iterable[Mapping[str, str]]:
    block: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("====="):
            if block:
                yield block
            block = {}
            continue
        name, _, value = line.strip().partition(" ")
        if name:
            block[name] = value.strip()
    if block:
        yield block


def _row(block: Mapping[str, str]) -> NativeJob | None:
    number, failed, status = block.get("jobnumber", ""), _leading(block, "failed"), _leading(block, "exit_status")
    if not number.isdigit() or failed is None or status is None:
        return None
    reason, exit_code = ending(failed, status)
    name = block.get("jobname", "")
    return NativeJob(
        native_id=number,
        name=name.removeprefix(PREFIX) if name.startswith(PREFIX) else "",
        user=block.get("owner", ""),
        state=f"failed={failed} exit_status={status}",
        sighting=Sighting.UNSEEN if failed == _RESCHEDULED else Sighting.ENDED,
        reason=reason,
        exit_code=exit_code,
        message=block.get("failed", "").partition(":")[2].strip(),
        submitted_at=_moment(block.get("qsub_time", "")),
        started_at=_moment(block.get("start_time", "")),
        ended_at=_moment(block.get("end_time", "")),
        nodes=(block["hostname"],) if block.get("hostname", "UNKNOWN") != "UNKNOWN" else (),
        cpus=_leading(block, "slots") or 0,
        elapsed_seconds=int(_amount(block.get("ru_wallclock", ""))),
        superseded=failed == _RESCHEDULED,
    )


def ending(failed: int, status: int) -> tuple[EndReason | None, int | None]:
    """Reason and exit code from the codes `failed` and `exit_status`.

    The wrapper ends by itself whatever its command does, so a job that was killed (100) was killed by the site.
    """
    if failed == _RESCHEDULED:
        return None, None
    if failed == _LIMIT:
        return EndReason.WALLTIME, None
    if failed == _KILLED:
        return EndReason.CANCELLED_AT_SITE, None
    if failed != 0:
        return EndReason.NODE_FAILED, None
    if status == 0:
        return EndReason.EXIT_ZERO, 0
    return (EndReason.SIGNALLED, None) if status > 128 else (EndReason.EXIT_NONZERO, status)


def _usage_row(block: Mapping[str, str], gpu_resource: str) -> UsageRow | None:
    row = _row(block)
    if row is None or not row.name:
        return None
    slots = max(1, row.cpus)
    task = block.get("pe_taskid", "NONE")
    return UsageRow(
        native_id=row.native_id,
        name=row.name,
        user=row.user,
        step="" if task in {"NONE", "undefined", ""} else task,
        state=row.state,
        final=True,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at or row.submitted_at,
        elapsed_seconds=row.elapsed_seconds,
        cpus=slots,
        allocated_cpu_seconds=row.elapsed_seconds * slots,
        cpu_seconds=_amount(block.get("cpu", "")),
        # The kernel counts this in KiB, and qacct 8.1 shows it as if it were bytes.
        max_rss_bytes=int(_amount(block.get("ru_maxrss", "")) * 1024),
        accelerators=_requested(block.get("category", ""), gpu_resource),
    )


def _requested(category: str, resource: str) -> int:
    return next((int(match["count"]) for match in _GPU.finditer(category) if match["name"] == resource), 0)


def _leading(block: Mapping[str, str], name: str) -> int | None:
    words = block.get(name, "").split()
    return int(words[0]) if words and words[0].isascii() and words[0].isdigit() and len(words[0]) < 10 else None


def _amount(text: str) -> float:
    """`0.197s`, `3.484MB` or a plain number, in seconds or bytes."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return 0.0
    factor: int = 1024 ** " KMGT".index(match[2]) if match[2] else 1
    return float(match[1]) * factor


def _moment(text: str) -> float | None:
    """Seconds since 1970 from `Thu Nov 26 14:27:39 2026` in UTC, or a plain number; None for `-/-`."""
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text) or None
    for form in ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S"):
        try:
            return datetime.strptime(text.partition(".")[0], form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
