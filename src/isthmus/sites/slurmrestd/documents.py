"""slurmrestd's documents as rows: every version's way to write numbers, states and exit codes.

Up to v0.0.38 numbers are plain and a state is one word; from v0.0.39 a number may be `{"set", "infinite", "number"}`, from
v0.0.40 a state is a list of words and an exit code an object. Anything else is read as absent, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer, UsageRow, expand_hosts
from isthmus.sites.port import Sighting
from isthmus.sites.slurm import values
from isthmus.sites.slurm.states import sighting_of, state_word

_MOST = 2**62


def number(value: Any) -> float | None:
    """A number in any of the forms; None when it is not set, infinite or no number."""
    if isinstance(value, Mapping):
        if value.get("infinite") or value.get("set") is False:
            return None
        value = value.get("number")
    if isinstance(value, str):
        whole = values.whole(value)
        return float(whole) if whole is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST < value < _MOST:
        return None
    return float(value)


def integer(value: Any, default: int = 0) -> int:
    """A whole number, or the default."""
    found = number(value)
    return default if found is None else int(found)


def at(document: Any, *path: str) -> Any:
    """What lies at a path of nested objects, or None."""
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def entries(document: Any, name: str) -> list[Mapping[str, Any]] | None:
    """The objects of a list, or None when there is no list of objects."""
    found = at(document, name)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        return None
    return found


def words(value: Any) -> str | list[str]:
    """A state: one word, or a list of words."""
    if isinstance(value, str):
        return value
    return [str(word) for word in value] if isinstance(value, list) else ""


def exit_status(value: Any) -> tuple[int | None, int]:
    """Exit code and signal from a wait status (768 is exit code 3) or an object."""
    if isinstance(value, Mapping) and "return_code" in value:
        signal = value.get("signal")
        code = number(value.get("return_code"))
        found = at(signal, "id") if isinstance(signal, Mapping) and "id" in signal else at(signal, "signal_id")
        return (None if code is None else int(code)), integer(found)
    status = number(value)
    if status is None:
        return None, 0
    return (int(status) >> 8) & 0xFF, int(status) & 0x7F


def queue_answer(document: Any) -> Answer:
    """Jobs of `GET /slurm/VERSION/jobs`."""
    return _answer(document, _queue_row, "slurmrestd")


def record_answer(document: Any) -> Answer:
    """Jobs of `GET /slurmdb/VERSION/jobs`."""
    return _answer(document, _record_row, "slurmrestd's accounting")


def _answer(document: Any, parse: Any, source: str) -> Answer:
    jobs = entries(document, "jobs")
    if jobs is None:
        return Answer(complete=False, problem=f"{source} sent no list of jobs.")
    rows = [parse(job) for job in jobs]
    whole = all(row is not None for row in rows)
    problem = "" if whole else f"{source} sent a job without id or name."
    return Answer(rows=tuple(row for row in rows if row is not None), complete=whole, problem=problem)


def _queue_row(job: Mapping[str, Any]) -> NativeJob | None:
    native_id, name = integer(job.get("job_id")), job.get("name")
    if not native_id or not isinstance(name, str):
        return None
    state = state_word(words(job.get("job_state")))
    code, signal = exit_status(job.get("exit_code"))
    sighting, reason = sighting_of(state, code, signal)
    ended = sighting is Sighting.ENDED
    started_at = number(job.get("start_time")) or None
    ended_at = number(job.get("end_time")) or None
    cause = str(job.get("state_reason") or "")
    elapsed = (ended_at or started_at) - started_at if ended and started_at else 0.0
    return NativeJob(
        native_id=str(native_id),
        name=name,
        user=str(job.get("user_name") or ""),
        state=state,
        sighting=sighting,
        reason=reason,
        exit_code=code if ended else None,
        signal=signal,
        message="" if cause in {"None", ""} else cause,
        submitted_at=number(job.get("submit_time")) or None,
        started_at=started_at if sighting is not Sighting.QUEUED else None,
        ended_at=ended_at if ended else None,
        nodes=expand_hosts(str(job.get("nodes") or "")),
        cpus=integer(job.get("cpus")),
        elapsed_seconds=max(0, int(elapsed)),
    )


def _record_row(job: Mapping[str, Any]) -> NativeJob | None:
    native_id, name = integer(job.get("job_id")), job.get("name")
    if not native_id or not isinstance(name, str):
        return None
    state = state_word(words(at(job, "state", "current")))
    code, signal = exit_status(job.get("exit_code"))
    sighting, reason = sighting_of(state, code, signal)
    return NativeJob(
        native_id=str(native_id),
        name=name,
        user=str(job.get("user") or at(job, "association", "user") or ""),
        state=state,
        sighting=sighting,
        reason=reason,
        exit_code=code if sighting is Sighting.ENDED else None,
        signal=signal,
        submitted_at=number(at(job, "time", "submission")) or None,
        started_at=number(at(job, "time", "start")) or None,
        ended_at=number(at(job, "time", "end")) or None,
        nodes=expand_hosts(str(job.get("nodes") or "")),
        cpus=_tres(at(job, "tres", "allocated"), "cpu"),
        elapsed_seconds=integer(at(job, "time", "elapsed")),
        superseded=state == "REQUEUED",
    )


def usage_answer(document: Any) -> UsageAnswer:
    """Usage in `GET /slurmdb/VERSION/jobs`, steps included."""
    jobs = entries(document, "jobs")
    if jobs is None:
        return UsageAnswer(complete=False, problem="slurmrestd's accounting sent no list of jobs.")
    rows = [row for job in jobs for row in _usage_rows(job)]
    return UsageAnswer(rows=tuple(rows))


def _usage_rows(job: Mapping[str, Any]) -> Iterable[UsageRow]:
    record = _record_row(job)
    if record is None:
        return
    cpus, nodes = record.cpus, integer(job.get("allocation_nodes")) or len(record.nodes) or 1
    steps = entries(job, "steps") or []
    counted = [_step(record, step) for step in steps]
    yield UsageRow(
        native_id=record.native_id,
        name=record.name,
        user=record.user,
        state=record.state,
        final=record.ended_at is not None and (record.sighting is Sighting.ENDED or record.superseded),
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        elapsed_seconds=record.elapsed_seconds,
        cpus=cpus,
        allocated_cpu_seconds=record.elapsed_seconds * cpus,
        # slurmrestd 22.05 leaves the sum over the steps to its caller, as sacct makes it.
        cpu_seconds=_seconds(at(job, "time", "total")) or round(sum(row.cpu_seconds for row in counted), 6),
        nodes=nodes,
        accelerators=_tres(at(job, "tres", "allocated"), "gres", "gpu"),
    )
    yield from counted


def _step(record: NativeJob, step: Mapping[str, Any]) -> UsageRow:
    # "requested" is what 22.05 calls usage coming in (TRESUsageInMax), "consumed" what comes out; later versions swap
    # neither name nor meaning.
    usage_in, usage_out = at(step, "tres", "requested", "max"), at(step, "tres", "consumed", "max")
    state = state_word(words(step.get("state")))
    return UsageRow(
        native_id=record.native_id,
        name=record.name,
        user=record.user,
        step=str(at(step, "step", "id") or at(step, "step", "name") or "step"),
        state=state,
        final=bool(number(at(step, "time", "end"))),
        cpu_seconds=_seconds(at(step, "time", "total")),
        max_rss_bytes=_tres(usage_in, "mem"),
        read_bytes=_tres(usage_in, "fs", "disk"),
        written_bytes=_tres(usage_out, "fs", "disk"),
    )


def _seconds(value: Any) -> float:
    return round(integer(at(value, "seconds")) + integer(at(value, "microseconds")) / 1e6, 6)


def _tres(listed: Any, kind: str, name: str = "") -> int:
    """The count of a trackable resource; of several kinds (`gpu` and `gpu:a100`) the general one."""
    found = 0
    for item in listed if isinstance(listed, list) else []:
        if at(item, "type") == kind and (not name or str(at(item, "name") or "").split(":")[0] == name):
            found = max(found, integer(at(item, "count")))
    return found


def sinfo_text(nodes: Any, partitions: Any) -> str:
    """Nodes and partitions as the lines that sinfo would print, so that both are understood by one code."""
    lines: list[str] = []
    shown = {str(p.get("name")): p for p in entries(partitions, "partitions") or []}
    for node in entries(nodes, "nodes") or []:
        listed = node.get("partitions")
        for name in listed if isinstance(listed, list) else []:
            partition = shown.get(str(name), {})
            cpus, used = integer(node.get("cpus"), 1), integer(node.get("alloc_cpus"))
            idle = integer(node.get("idle_cpus"), max(0, cpus - used))
            limit = number(partition.get("max_time_limit", at(partition, "maximums", "time")))
            fields = [
                "1",
                _node_state(node),
                str(cpus),
                str(integer(node.get("real_memory"))),
                str(node.get("gres") or ""),
                f"{used}/{idle}/0/{cpus}",
                str(integer(node.get("temporary_disk"))),
                _availability(partition),
                "infinite" if limit is None else clock(int(limit) * 60),
                str(name),
            ]
            lines.append("|".join(fields))
    return "\n".join(lines)


def _node_state(node: Mapping[str, Any]) -> str:
    state = words(node.get("state"))
    parts = state if isinstance(state, list) else [state, *words(node.get("state_flags") or [])]
    lowered = [part.lower() for part in parts]
    for flag in ("drain", "down", "fail", "maintenance", "not_responding", "reboot_requested", "powered_down_unusable"):
        if flag in lowered:
            return flag
    return lowered[0] if lowered else "unknown"


def _availability(partition: Mapping[str, Any]) -> str:
    state = partition.get("state", at(partition, "partition", "state"))
    listed = words(state)
    return "up" if "UP" in ([listed] if isinstance(listed, str) else listed) else "down"


def clock(seconds: int) -> str:
    """`D-HH:MM:SS`."""
    return f"{seconds // 86400}-{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def queue_text(jobs: Any, now: float) -> str:
    """All jobs as the lines that squeue would print for the load, those that wait by their priority."""
    lines: list[str] = []
    for job in sorted(entries(jobs, "jobs") or [], key=lambda job: -(number(job.get("priority")) or 0.0)):
        state = state_word(words(job.get("job_state")))
        limit = number(job.get("time_limit"))
        end = number(job.get("end_time"))
        shown = "UNLIMITED" if limit is None else clock(int(limit) * 60)
        left = clock(int(max(0.0, end - now))) if end else shown
        task = number(job.get("array_task_id"))
        array = integer(job.get("array_job_id"))
        fields = [
            state,
            str(integer(job.get("cpus"), 1)),
            shown,
            left,
            f"{array}_{int(task)}" if array and task is not None else str(integer(job.get("job_id"))),
            str(integer(job.get("submit_time"))),
            str(integer(job.get("start_time"))),
            *(str(job.get(name) or "").replace("|", " ") for name in ("state_reason", "user_name")),
            str(job.get("partition") or ""),
        ]
        lines.append("|".join(fields).replace("\n", " "))
    return "\n".join(lines)


def licence_text(document: Any) -> str:
    """Licences as `scontrol show licenses -o` prints them."""
    found = entries(document, "licenses") or []
    return "\n".join(
        f"LicenseName={item.get('LicenseName')} Total={integer(item.get('Total'))}"
        for item in found
        if " " not in str(item.get("LicenseName"))
    )
