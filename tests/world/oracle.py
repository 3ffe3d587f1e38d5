"""The oracle: compares what the control plane stored with what really happened at the simulated sites."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import EndReason, TaskState
from isthmus.store import tables
from tests.world.centre import Run, usage_of
from tests.world.history import World


def judge(world: World) -> list[str]:
    """Everything that must never happen and did."""
    rows = world.database.read_now(_read)
    runs: dict[str, list[Run]] = defaultdict(list)
    for centre in world.centres.values():
        for run in centre.runs:
            runs[run.task_id].append(run)
    return [
        *rows["wrongs"],
        *_tasks(world, rows, runs),
        *_gangs(world, rows),
        *_usage(world, rows),
        *(line for centre in world.centres.values() for line in centre.overfull if centre.pools[0].immediate),
    ]


def _read(connection: sa.Connection) -> dict[str, Any]:
    return {
        "tasks": {row.id: row for row in connection.execute(tables.tasks.select())},
        "attempts": {row.key: row for row in connection.execute(tables.attempts.select())},
        "usage": list(connection.execute(tables.usage_records.select())),
        "outputs": list(connection.execute(tables.outputs.select())),
        "wrongs": [row[0] for row in connection.execute(sa.text("SELECT what FROM wrongs"))],
    }


def _tasks(world: World, rows: dict[str, Any], runs: dict[str, list[Run]]) -> list[str]:
    said = []
    outputs: dict[str, list[Any]] = defaultdict(list)
    for row in rows["outputs"]:
        outputs[row.task_id].append(row)
    said += [f"task {task_id} was accepted and is not stored" for task_id in world.specs.keys() - rows["tasks"].keys()]
    for task_id, task in rows["tasks"].items():
        spec = world.specs.get(task_id)
        if spec is None:
            said.append(f"task {task_id} was never submitted")
            continue
        code = int(spec.env["EXIT"])
        done = [run for run in runs[task_id] if run.completed]
        if len(done) > 1:
            keys = [(run.key, run.native_id, run.fence) for run in done]
            said.append(f"task {task_id} ran to completion {len(done)} times: {keys}")
        if task.state == TaskState.SUCCEEDED and not any(run.exit_code == 0 for run in done):
            said.append(f"task {task_id} is called succeeded and never ran to its end")
        caused = task.reason == "peer_ended" or (code != 0 and done) or _used_up(task, rows) or _alone(task, rows)
        if task.state == TaskState.FAILED and not caused:
            said.append(f"task {task_id} is called failed ({task.reason}: {task.message}) without a cause")
        brought_about = task.reason == "dependency_failed" or task.reason == "peer_ended"  # see _gangs
        if task.state == TaskState.CANCELLED and task_id not in world.cancelled and not brought_about:
            said.append(f"task {task_id} is called cancelled ({task.reason}) and nobody did so")
        over = world.ended_at.get(task_id)
        if task.state == TaskState.CANCELLED and over is not None:
            said += [f"task {task_id} ran after it was cancelled" for r in runs[task_id] if r.started_at > over]
        if task.state == TaskState.SUCCEEDED and spec.outputs:
            wanted = hashlib.sha256(f"{task_id}\n".encode()).hexdigest()
            if [row.sha256 for row in outputs[task_id]] != [wanted]:
                said.append(f"task {task_id} succeeded without its output")
            elif hashlib.sha256(world.blobs.get(wanted, b"")).hexdigest() != wanted:
                said.append(f"the output of task {task_id} is not in the blob store")
    return said


def _alone(task: Any, rows: dict[str, Any]) -> bool:
    """Whether another part of its gang succeeded, so that it could not start again."""
    return bool(task.gang) and any(
        other.gang == task.gang and other.state == TaskState.SUCCEEDED for other in rows["tasks"].values()
    )


def _gangs(world: World, rows: dict[str, Any]) -> list[str]:
    """Parts that start together: placed in one round or not at all, at different sites; the command of none begins before all were
    there, nor later than the others by more than the hold and a lost order's repetition; none ends without the other's cause."""
    said = []
    members: dict[str, list[Any]] = defaultdict(list)
    rounds: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for task in rows["tasks"].values():
        if task.gang:
            members[task.gang].append(task)
    for attempt in rows["attempts"].values():
        if attempt.gang:
            rounds[attempt.gang, attempt.number].append(attempt)
    began = {run.key: run.started_at for centre in world.centres.values() for run in centre.runs}
    there = {key: at for centre in world.centres.values() for key, at in centre.claimed.items()}
    for (gang, number), tries in rounds.items():
        hold = world.specs[gang].together.hold_seconds
        if len(tries) != 2 or len({one.site for one in tries}) != 2 or len({one.created_at for one in tries}) != 1:
            said.append(
                f"try {number} of gang {gang} was not placed as a pair: {[(t.site, t.created_at) for t in tries]}"
            )
        starts = [began[one.key] for one in tries if one.key in began]
        if starts and (len({one.let_go_at for one in tries}) != 1 or tries[0].let_go_at is None):
            said.append(f"try {number} of gang {gang} began and was not let go")
        if starts and any(there.get(one.key, float("inf")) > min(starts) for one in tries):
            said.append(f"try {number} of gang {gang} began before both were there")
        if starts and max(starts) - min(starts) > hold:
            said.append(f"try {number} of gang {gang} began {max(starts) - min(starts):.0f} s apart, held for {hold} s")
    for gang, parts in members.items():
        ends = {task.state for task in parts}
        if "succeeded" in ends and len(ends) > 1 and not all(task.attempts for task in parts):
            said.append(f"a part of gang {gang} succeeded alone")
        if ends != {"succeeded"} and all(task.reason == "peer_ended" for task in parts if task.state != "succeeded"):
            spent = [
                t for t in parts if t.reason == "peer_ended" and (t.attempts >= t.max_attempts or "succeeded" in ends)
            ]
            if not spent:
                said.append(f"gang {gang} ended, and no part of it is the cause")
    return said


def _used_up(task: Any, rows: dict[str, Any]) -> bool:
    """Whether the sites ended every try that the task had, as one does that ends whatever it accepted."""
    own = [
        EndReason(row.reason)
        for row in rows["attempts"].values()
        if row.task_id == task.id and row.ending in ("", "peer")
    ]
    return len(own) == task.max_attempts and all(reason.is_site_fault for reason in own)


def _usage(world: World, rows: dict[str, Any]) -> list[str]:
    said = []
    by_attempt: dict[str, list[Any]] = defaultdict(list)
    for row in rows["usage"]:
        by_attempt[row.attempt].append(row)
    ran = {run.key for centre in world.centres.values() for run in centre.runs}
    for key in ran - rows["attempts"].keys():
        said.append(f"a job ran under the key {key} that no attempt has")
    for key, attempt in rows["attempts"].items():
        centre = world.centres[attempt.site]
        native = centre.record_of(key)
        records = by_attempt[key]
        if len(records) > 1:
            said.append(f"attempt {key} has {len(records)} usage records")
        if key in ran and not records:
            said.append(f"attempt {key} ran and has no usage record (it is {attempt.state}, {attempt.usage_state})")
        if records and native is None:
            said.append(f"attempt {key} has a usage record and the site has none")
        if records and native is not None:
            true, stored = usage_of(native, centre.drift), records[0]
            if (stored.elapsed_seconds, stored.native_id, stored.started_at) != (
                true.elapsed_seconds,
                true.native_id,
                true.started_at,
            ):
                said.append(
                    f"attempt {key}: usage {stored.elapsed_seconds} s of job {stored.native_id}, "
                    f"the site says {true.elapsed_seconds} s of {true.native_id}"
                )
    return said
