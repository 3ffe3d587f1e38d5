"""Moves attempts from state to state, with their tasks and events, in one transaction: the only place that does.

Moves come in bulk. Each is checked against the row as it is now: an attempt that ended, or that may not go from its
state to the wanted one, is left alone. The caller holds a lease, checked in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState, EndReason, TaskState, may_follow
from isthmus.engine.endings import end_tasks
from isthmus.engine.leases import Lease, guard
from isthmus.engine.taskdata import Made, store_made
from isthmus.engine.withdrawing import reason_of
from isthmus.store import events, tables

_CHUNK = 500
_NOT_THE_SITES = frozenset({EndReason.PEERS_LATE, EndReason.PEER_ENDED})  # no reason to avoid the site
_A = AttemptState


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One attempt to a state. `fields` are further columns of `attempts`; the same state just sets the fields."""

    key: str
    to: AttemptState
    reason: EndReason | None = None
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Mapping[str, Any]] = ()
    made: Sequence[Made] = ()  # dataset versions
    home_region: str = ""


def apply(connection: sa.Connection, now: float, lease: Lease, moves: Sequence[Move]) -> set[str]:
    """Apply moves; answers the keys that were moved. LostLease when somebody else owns the work now."""
    guard(connection, lease)
    wanted = {move.key: move for move in moves}
    rows = [row for row in lock(connection, list(wanted)) if _allowed(row, wanted[row.key])]
    if not rows:
        return set()
    for row in rows:
        move = wanted[row.key]
        reason = reason_of(row, move.reason)
        if reason is not move.reason:  # the engine asked for this end, and says why
            wanted[row.key] = replace(move, reason=reason, message=row.ending_note)
    updates = [_update(now, row, wanted[row.key]) for row in rows]
    _write_attempts(connection, updates)
    changed = [row for row in rows if wanted[row.key].to != row.state]
    events.add(connection, [_event(now, row, wanted[row.key]) for row in changed])
    _mirror(connection, now, [(row, wanted[row.key]) for row in changed if wanted[row.key].to not in ATTEMPT_ENDED])
    _finish(connection, now, [(row, wanted[row.key]) for row in changed if wanted[row.key].to in ATTEMPT_ENDED])
    return {row.key for row in rows}


def lock(connection: sa.Connection, keys: Sequence[str]) -> list[Any]:
    """The rows of these attempts, locked in the order of their keys."""
    rows: list[Any] = []
    listed = sorted(keys)
    for start in range(0, len(listed), _CHUNK):
        query = (
            tables.attempts.select()
            .where(tables.attempts.c.key.in_(listed[start : start + _CHUNK]))
            .order_by(tables.attempts.c.key)
        )
        rows.extend(connection.execute(query.with_for_update()))
    return rows


def _allowed(row: Any, move: Move) -> bool:
    now = AttemptState(row.state)
    return now not in ATTEMPT_ENDED and (now is move.to or may_follow(now, move.to))


def _update(now: float, row: Any, move: Move) -> dict[str, Any]:
    values: dict[str, Any] = {**move.fields, "which": row.key, "state": move.to.value, "updated_at": now}
    if move.reason is not None:
        values["reason"] = move.reason.value
    if move.message:
        values["message"] = move.message[:4000]
    if move.to in ATTEMPT_ENDED:
        was_at_site = row.state not in (_A.PLACED,)
        values.setdefault("ended_at", row.ended_at if row.ended_at is not None else now)
        values["usage_state"] = "due" if row.submitted_at is not None or row.native_id else "none"
        values["clean_state"] = "due" if was_at_site else "none"
        values["due_at"] = 0.0
        values["tries"] = 0
    elif move.to != row.state and "due_at" not in values:
        values["due_at"] = 0.0
        values["tries"] = 0
    return values


def _write_attempts(connection: sa.Connection, updates: Sequence[dict[str, Any]]) -> None:
    """One executemany for each set of columns, so that mixed moves still go in bulk."""
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for values in updates:
        by_columns.setdefault(tuple(sorted(values)), []).append(values)
    for rows in by_columns.values():
        connection.execute(tables.attempts.update().where(tables.attempts.c.key == sa.bindparam("which")), rows)


def _event(now: float, row: Any, move: Move) -> dict[str, Any]:
    body: dict[str, Any] = {"pool": row.pool, "number": row.number}
    native_id = move.fields.get("native_id") or row.native_id
    if native_id:
        body["native_id"] = native_id
    if move.reason is not None:
        body["reason"] = move.reason.value
    if move.message:
        body["message"] = move.message[:400]
    if move.fields.get("exit_code") is not None:
        body["exit_code"] = move.fields["exit_code"]
    return events.event(
        now,
        f"attempt.{move.to.value}",
        project=row.project,
        task_id=row.task_id,
        attempt=row.key,
        site=row.site,
        body=body,
    )


def _mirror(connection: sa.Connection, now: float, moved: Sequence[tuple[Any, Move]]) -> None:
    if not moved:
        return
    connection.execute(
        tables.tasks.update()
        .where(tables.tasks.c.id == sa.bindparam("which"))
        .where(tables.tasks.c.attempt == sa.bindparam("own")),
        [
            {
                "which": row.task_id,
                "own": row.key,
                "state": move.to.value,
                "updated_at": now,
                "started_at": move.fields.get("started_at", row.started_at),
            }
            for row, move in moved
        ],
    )


def _finish(connection: sa.Connection, now: float, ended: Sequence[tuple[Any, Move]]) -> None:
    """End, or queue again, the task of each attempt that ended."""
    if not ended:
        return
    tasks: dict[str, Any] = {}
    ids = sorted(row.task_id for row, _ in ended)
    for start in range(0, len(ids), _CHUNK):
        query = (
            tables.tasks.select().where(tables.tasks.c.id.in_(ids[start : start + _CHUNK])).order_by(tables.tasks.c.id)
        )
        tasks.update((row.id, row) for row in connection.execute(query.with_for_update()))
    refused = _refused_before(connection, [row for row, move in ended if move.reason is EndReason.REJECTED_BY_SITE])
    endings: dict[str, tuple[TaskState, EndReason]] = {}
    details: dict[str, dict[str, Any]] = {}
    again: list[tuple[Any, Any, Move]] = []
    output_rows: list[Mapping[str, Any]] = []
    for row, move in ended:
        task = tasks[row.task_id]
        if task.attempt != row.key:
            continue  # a later attempt owns the task
        reason = move.reason or EndReason(row.reason or EndReason.EXIT_ZERO)
        state = verdict(task, move.to, reason, refused_before=task.id in refused)
        if state is TaskState.WAITING:
            again.append((task, row, move))
            continue
        endings[task.id] = (state, reason)
        details[task.id] = {
            "exit_code": move.fields.get("exit_code", row.exit_code),
            "message": (move.message or row.message)[:4000],
            "started_at": row.started_at,
        }
        if state is TaskState.SUCCEEDED:
            output_rows.extend(move.outputs)
            for made in move.made:
                store_made(connection, now, row.user, row.task_id, made, move.home_region)
    saved = [(task.id, move.outputs) for task, _, move in again if move.outputs]
    if saved:
        _keep_checkpoints(connection, now, saved)
    if output_rows:
        _store_outputs(connection, now, output_rows)
    _queue_again(connection, now, again)
    end_tasks(connection, now, endings, details)


def _refused_before(connection: sa.Connection, rows: Sequence[Any]) -> set[str]:
    """The tasks of these attempts that the same site refused once already."""
    a = tables.attempts.c
    here = {(row.task_id, row.site): row.key for row in rows}
    ids = sorted({row.task_id for row in rows})
    found: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        query = (
            sa.select(a.key, a.task_id, a.site)
            .where(a.task_id.in_(ids[start : start + _CHUNK]))
            .where(a.reason == EndReason.REJECTED_BY_SITE.value)
        )
        for row in connection.execute(query):
            if here.get((row.task_id, row.site), row.key) != row.key:
                found.add(row.task_id)
    return found


def verdict(task: Any, ended: AttemptState, reason: EndReason, *, refused_before: bool) -> TaskState:
    """What becomes of a task when its attempt ended so: its end state, or WAITING for another attempt. `refused_before`: the
    site said no to it once already."""
    if ended is AttemptState.SUCCEEDED:
        return TaskState.SUCCEEDED
    if task.cancel_requested_at is not None or reason is EndReason.CANCELLED_BY_USER:
        return TaskState.CANCELLED
    if is_uncounted(task, reason):
        return TaskState.WAITING
    if (
        task.attempts - task.moves - task.restarts >= task.max_attempts or reason is EndReason.POISON
    ):  # a poisoned row is not read again
        return TaskState.FAILED
    if reason is EndReason.REJECTED_BY_SITE and refused_before:
        return TaskState.FAILED  # nowhere else to go
    retry_on_exit = bool(orjson.loads(task.spec).get("retry_on_exit"))
    if reason.is_site_fault or retry_on_exit:
        return TaskState.WAITING
    return TaskState.FAILED


def is_uncounted(task: Any, reason: EndReason) -> bool:
    """Whether an attempt that ended so is none of those that the task may have: it moved, or made room as agreed."""
    return reason is EndReason.MOVED or (
        reason is EndReason.PREEMPTED and bool(orjson.loads(task.spec).get("preemptible"))
    )


def _keep_checkpoints(connection: sa.Connection, now: float, saved: Sequence[tuple[str, Any]]) -> None:
    """What an attempt saved takes the place of what an earlier one did."""
    c = tables.checkpoints
    rows = [row for _, files in saved for row in files]
    for start in range(0, len(saved), _CHUNK):
        connection.execute(c.delete().where(c.c.task_id.in_([task_id for task_id, _ in saved[start : start + _CHUNK]])))
    names = ("task_id", "path", "attempt", "sha256", "size_bytes", "executable")
    connection.execute(c.insert(), [{name: row[name] for name in names} for row in rows])
    grant(connection, now, {(row["project"], row["sha256"]): row["size_bytes"] for row in rows})


def _queue_again(connection: sa.Connection, now: float, again: Sequence[tuple[Any, Any, Move]]) -> None:
    if not again:
        return
    connection.execute(
        tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("which")),
        [
            {
                "which": task.id,
                "state": TaskState.WAITING.value,
                "avoid_sites": task.avoid_sites
                if is_uncounted(task, _reason(row, move)) or _reason(row, move) in _NOT_THE_SITES
                else _avoid_too(task, row.site),
                "moves": task.moves + (_reason(row, move) is EndReason.MOVED),
                "restarts": task.restarts
                + (_reason(row, move) is EndReason.PREEMPTED and is_uncounted(task, EndReason.PREEMPTED)),
                "started_at": None,
                "due_at": 0.0,
                "updated_at": now,
            }
            for task, row, move in again
        ],
    )
    events.add(
        connection,
        [
            events.event(
                now,
                "task.waiting",
                project=task.project,
                task_id=task.id,
                attempt=row.key,
                site=row.site,
                body={"after": (move.reason or EndReason.GIVEN_UP).value, "attempt_number": row.number},
            )
            for task, row, move in again
        ],
    )


def _reason(row: Any, move: Move) -> EndReason:
    return move.reason or EndReason(row.reason or EndReason.EXIT_ZERO)


def _avoid_too(task: Any, site: str) -> str:
    """The sites that a task avoids, with one more."""
    return orjson.dumps([*(s for s in orjson.loads(task.avoid_sites) if s != site), site]).decode()


def _store_outputs(connection: sa.Connection, now: float, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows` are columns of `outputs` plus `project`, which from now on may read the content."""
    ids = sorted({row["task_id"] for row in rows})
    for start in range(0, len(ids), _CHUNK):
        connection.execute(tables.outputs.delete().where(tables.outputs.c.task_id.in_(ids[start : start + _CHUNK])))
    connection.execute(tables.outputs.insert(), [{k: v for k, v in row.items() if k != "project"} for row in rows])
    grant(connection, now, {(row["project"], row["sha256"]): row["size_bytes"] for row in rows})


def grant(connection: sa.Connection, now: float, contents: Mapping[tuple[str, str], int]) -> None:
    """Let projects read contents: (project, SHA-256) -> size in bytes; what they may read already is left alone."""
    if not contents:
        return
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as pg_insert

        statement: Any = pg_insert(tables.blobs).on_conflict_do_nothing()
    else:
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        statement = sqlite_insert(tables.blobs).on_conflict_do_nothing()
    connection.execute(
        statement,
        [
            {"project": project, "sha256": sha256, "size_bytes": size, "created_at": now}
            for (project, sha256), size in sorted(contents.items())
        ],
    )
