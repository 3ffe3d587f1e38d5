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
        if task.state == TaskState.FAILED and (code == 0 or not done) and not _used_up(task, rows):
            said.append(f"task {task_id} is called failed ({task.reason}: {task.message}) without a cause")
        if task.state == TaskState.CANCELLED and task_id not in world.cancelled and task.reason != "dependency_failed":
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


def _used_up(task: Any, rows: dict[str, Any]) -> bool:
    """Whether the sites ended every try that the task had, as one does that ends whatever it accepted."""
    own = [EndReason(row.reason) for row in rows["attempts"].values() if row.task_id == task.id and not row.ending]
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
