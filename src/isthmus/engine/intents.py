"""What people ask of the engine, each as one transaction: submit, cancel, hold, release, retry.

Each function takes an open writing connection, changes rows and adds events; it may be run again by the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import Conflict, Invalid, NotFound
from isthmus.domain.ids import is_id
from isthmus.domain.lifecycle import ATTEMPT_ENDED, TASK_ENDED, EndReason, TaskState
from isthmus.domain.task import DependencyCondition, TaskSpec
from isthmus.engine.admission import check_blobs, check_room, check_secrets, check_sites, chunks, input_bytes
from isthmus.engine.clock import new_id
from isthmus.engine.endings import end_tasks
from isthmus.engine.gangs import join_gangs, reopen, with_their_gangs
from isthmus.engine.settings import AGEING_SECONDS, PREEMPTIBLE_RANK, EngineSettings
from isthmus.engine.taskdata import resolve
from isthmus.engine.taskdata import task_rows as task_rows_of_data
from isthmus.store import events, tables
from isthmus.store.documents import dump

_DEFAULTS = EngineSettings()
_CHUNK = 500  # values in one IN list


def submit(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    project: str,
    specs: Sequence[TaskSpec],
    face: str = "v1",
    manifests: Mapping[str, frozenset[str]] | None = None,
    max_waiting: int = _DEFAULTS.max_waiting,
    home_region: str = "",
    unsent: bool = False,
) -> list[list[str]]:
    """Store tasks, all or none; answers the ids made for each spec (several for an array).

    `manifests` maps the hash of each directory manifest that the specs name to the hashes in it. With `unsent`, content may
    still be missing: only for a rehearsal that is rolled back.
    """
    check_room(connection, project, sum(spec.size for spec in specs), max_waiting)
    if not unsent:
        check_blobs(connection, project, specs, manifests or {})
    check_secrets(connection, project, specs)
    check_sites(connection, specs)
    specs = resolve(connection, specs, home_region)
    sizes = [spec.size for spec in specs]
    in_order = iter(sorted(new_id(now) for _ in range(sum(sizes))))  # lists and the queue then keep the order given
    ids = [list(islice(in_order, size)) for size in sizes]
    needed = _resolve(connection, project, specs, ids)
    to_bring = input_bytes(connection, project, specs, manifests or {})
    gangs = join_gangs(connection, now, user, project, specs, ids)
    task_rows: list[dict[str, Any]] = []
    tag_rows: list[dict[str, Any]] = []
    dependency_rows: list[dict[str, Any]] = []
    data_rows: list[dict[str, Any]] = []
    doomed: list[str] = []
    for index, spec in enumerate(specs):
        links = needed[index]
        unmet = [link for link in links if not link["satisfied"]]
        state = TaskState.HELD if spec.hold else TaskState.BLOCKED if unmet else TaskState.WAITING
        many = len(ids[index]) > 1 or spec.array is not None
        array_id = ids[index][0] if many else ""
        plain = replace(spec, array=None, depends_on=(), hold=False)
        shared = dump(plain)
        for position, task_id in enumerate(ids[index]):
            text = shared
            if spec.array and spec.array.values:
                own = {name: values[position] for name, values in spec.array.values.items()}
                text = dump(replace(plain, env={**plain.env, **own}))
            task_rows.append(
                {
                    "id": task_id,
                    "project": project,
                    "user": user,
                    "name": spec.name,
                    "face": face,
                    "spec": text,
                    "state": state.value,
                    "priority": spec.priority,
                    "rank": now - spec.priority * AGEING_SECONDS + (PREEMPTIBLE_RANK if spec.preemptible else 0.0),
                    "array_id": array_id,
                    "array_index": position if many else None,
                    **gangs.get(task_id, {"gang": "", "part": None}),
                    "blocked_by": len(unmet),
                    "max_attempts": spec.max_attempts,
                    "input_bytes": to_bring[index],
                    "created_at": now,
                    "updated_at": now,
                }
            )
            data_rows.extend(task_rows_of_data(task_id, spec))
            tag_rows.extend({"task_id": task_id, "key": k, "value": v} for k, v in spec.tags.items())
            dependency_rows.extend(
                {k: link[k] for k in ("on_task_id", "condition", "satisfied")} | {"task_id": task_id} for link in links
            )
            if any(link["hopeless"] for link in links):
                doomed.append(task_id)
    connection.execute(tables.tasks.insert(), task_rows)
    if tag_rows:
        connection.execute(tables.task_tags.insert(), tag_rows)
    if data_rows:
        connection.execute(tables.task_data.insert(), data_rows)
    if dependency_rows:
        connection.execute(tables.dependencies.insert(), dependency_rows)
    events.add(
        connection,
        [events.event(now, f"task.{row['state']}", project=project, task_id=row["id"]) for row in task_rows],
    )
    if doomed:
        end_tasks(connection, now, dict.fromkeys(doomed, (TaskState.CANCELLED, EndReason.DEPENDENCY_FAILED)))
    return ids


def cancel(connection: sa.Connection, *, now: float, task_ids: Sequence[str], by: str) -> int:
    """Write the intent to cancel; what never reached a site ends at once. Answers how many were still alive."""
    rows = _lock(connection, with_their_gangs(connection, task_ids))
    alive = [row for row in rows if TaskState(row.state) not in TASK_ENDED]
    idle = {TaskState.BLOCKED, TaskState.HELD, TaskState.WAITING}
    mark = [row for row in alive if row.cancel_requested_at is None]
    if mark:
        connection.execute(
            tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("key")),
            [{"key": row.id, "cancel_requested_at": now, "updated_at": now} for row in mark],
        )
        for part in chunks([row.attempt for row in mark if row.attempt]):
            connection.execute(
                tables.attempts.update()
                .where(tables.attempts.c.key.in_(part))
                .where(tables.attempts.c.state.notin_([s.value for s in ATTEMPT_ENDED]))
                .values(cancel_requested=True, due_at=0.0)
            )
        events.add(
            connection,
            [
                events.event(now, "task.cancel_requested", project=row.project, task_id=row.id, body={"by": by})
                for row in mark
            ],
        )
    end_tasks(
        connection,
        now,
        {r.id: (TaskState.CANCELLED, EndReason.CANCELLED_BY_USER) for r in alive if TaskState(r.state) in idle},
    )
    return len(alive)


def hold(connection: sa.Connection, *, now: float, task_ids: Sequence[str], by: str) -> int:
    """Keep tasks that are not placed yet from being placed."""
    rows = _lock(connection, with_their_gangs(connection, task_ids))
    for row in rows:
        if row.state not in (TaskState.WAITING, TaskState.BLOCKED, TaskState.HELD):
            raise Conflict(f"Task {row.id} {_stands(row.state)}.", remedy="Only a task that still waits can be held.")
    return _set_state(connection, now, [row for row in rows if row.state != TaskState.HELD], TaskState.HELD, by)


def release(connection: sa.Connection, *, now: float, task_ids: Sequence[str], by: str) -> int:
    """Let held tasks go on."""
    named = set(task_ids)
    rows = _lock(connection, with_their_gangs(connection, task_ids))
    rows = [row for row in rows if row.id in named or row.state == TaskState.HELD]
    task_ids = [row.id for row in rows]
    for row in rows:
        if row.state != TaskState.HELD:
            raise Conflict(f"Task {row.id} is {row.state}, not held.", remedy="Nothing needs to be released.")
    blocked = Counter(link.task_id for link in _open_dependencies(connection, task_ids))
    wrong = [{"key": row.id, "blocked_by": blocked[row.id]} for row in rows if row.blocked_by != blocked[row.id]]
    if wrong:
        connection.execute(tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("key")), wrong)
    return _let_go(connection, now, rows, blocked, by)


def _let_go(connection: sa.Connection, now: float, rows: Sequence[Any], blocked: Mapping[str, int], by: str) -> int:
    """Let tasks wait for a place, or for the tasks that still block them."""
    changed = _set_state(connection, now, [row for row in rows if not blocked[row.id]], TaskState.WAITING, by)
    return changed + _set_state(connection, now, [row for row in rows if blocked[row.id]], TaskState.BLOCKED, by)


def retry(connection: sa.Connection, *, now: float, task_ids: Sequence[str], by: str) -> int:
    """Give failed or cancelled tasks one more attempt, anywhere. What they wait for and is still on its way, they wait for;
    what failed holds them up no longer."""
    task_ids = with_their_gangs(connection, task_ids)
    awaited = _open_dependencies(connection, task_ids)
    locked = {row.id: row for row in _lock(connection, [*task_ids, *{link.on_task_id for link in awaited}])}
    rows = [locked[task_id] for task_id in sorted(set(task_ids))]
    for row in rows:
        if row.state not in (TaskState.FAILED, TaskState.CANCELLED):
            raise Conflict(
                f"Task {row.id} {_stands(row.state)}.", remedy="Only a failed or cancelled task can be retried."
            )
    again = {row.id for row in rows}
    over = [
        {"one": link.task_id, "other": link.on_task_id}
        for link in awaited
        if link.on_task_id not in again and TaskState(locked[link.on_task_id].state) in TASK_ENDED
    ]
    if over:
        d = tables.dependencies
        which = (d.c.task_id == sa.bindparam("one"), d.c.on_task_id == sa.bindparam("other"))
        connection.execute(d.update().where(*which).values(satisfied=True), over)
    blocked = Counter(link.task_id for link in awaited)
    blocked.subtract(pair["one"] for pair in over)
    if rows:
        connection.execute(
            tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("key")),
            [
                {
                    "key": row.id,
                    "max_attempts": max(row.max_attempts, row.attempts + 1),
                    "cancel_requested_at": None,
                    "started_at": None,
                    "ended_at": None,
                    "exit_code": None,
                    "reason": "",
                    "message": "",
                    "avoid_sites": "[]",
                    "blocked_by": blocked[row.id],
                    "due_at": 0.0,
                }
                for row in rows
            ],
        )
        reopen(connection, [row.gang for row in rows if row.gang])
    return _let_go(connection, now, rows, blocked, by)


def _open_dependencies(connection: sa.Connection, task_ids: Sequence[str]) -> list[Any]:
    """Task and awaited task of each dependency that is not satisfied."""
    d = tables.dependencies.c
    found: list[Any] = []
    for part in chunks(sorted(set(task_ids))):
        query = sa.select(d.task_id, d.on_task_id).where(d.task_id.in_(part)).where(d.satisfied.is_(False))
        found.extend(connection.execute(query))
    return found


def _set_state(connection: sa.Connection, now: float, rows: Sequence[Any], state: TaskState, by: str) -> int:
    if rows:
        connection.execute(
            tables.tasks.update().where(tables.tasks.c.id == sa.bindparam("key")),
            [{"key": row.id, "state": state.value, "updated_at": now} for row in rows],
        )
        events.add(
            connection,
            [
                events.event(now, f"task.{state.value}", project=row.project, task_id=row.id, body={"by": by})
                for row in rows
            ],
        )
    return len(rows)


def _lock(connection: sa.Connection, task_ids: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    for part in chunks(sorted(set(task_ids))):
        query = tables.tasks.select().where(tables.tasks.c.id.in_(part)).order_by(tables.tasks.c.id)
        rows.extend(connection.execute(query.with_for_update()))
    absent = set(task_ids) - {row.id for row in rows}
    if absent:
        raise NotFound(f"There is no task {min(absent)}.", remedy="`isthmus ls` shows your tasks.")
    return rows


def _resolve(
    connection: sa.Connection, project: str, specs: Sequence[TaskSpec], ids: Sequence[Sequence[str]]
) -> list[list[dict[str, Any]]]:
    """For each spec its dependency rows; names of one submission come before ids of older tasks."""
    by_name: dict[str, int] = {}
    for index, spec in enumerate(specs):
        if spec.name:
            by_name.setdefault(spec.name, index)
    _check_cycles(specs, by_name)
    older_ids = {d.task for spec in specs for d in spec.depends_on if d.task not in by_name}
    older: dict[str, Any] = {}
    for part in chunks(task_id for task_id in older_ids if is_id(task_id)):
        columns = (tables.tasks.c.id, tables.tasks.c.state)
        query = sa.select(*columns).where(tables.tasks.c.id.in_(part)).where(tables.tasks.c.project == project)
        older.update((row.id, TaskState(row.state)) for row in connection.execute(query.with_for_update()))
    rows: list[list[dict[str, Any]]] = []
    for index, spec in enumerate(specs):
        links: dict[str, dict[str, Any]] = {}
        for place, dependency in enumerate(spec.depends_on):
            needs_success = dependency.condition is DependencyCondition.SUCCEEDED
            if dependency.task in by_name:
                targets = [(task_id, TaskState.WAITING) for task_id in ids[by_name[dependency.task]]]
            elif dependency.task in older:
                targets = [(dependency.task, older[dependency.task])]
            else:
                raise Invalid(
                    f"tasks.{index}.depends_on.{place}.task",
                    f"{dependency.task!r} is neither a task of project {project} nor a name in this submission.",
                    remedy="Give a task id or a name.",
                )
            for task_id, state in targets:
                met = state is TaskState.SUCCEEDED or (state in TASK_ENDED and not needs_success)
                links[task_id] = {
                    "on_task_id": task_id,
                    "condition": dependency.condition.value,
                    "satisfied": met,
                    "hopeless": needs_success and state in (TaskState.FAILED, TaskState.CANCELLED),
                }
        rows.append(list(links.values()))
    return rows


def _check_cycles(specs: Sequence[TaskSpec], by_name: Mapping[str, int]) -> None:
    follows = [[by_name[d.task] for d in spec.depends_on if d.task in by_name] for spec in specs]
    state = [0] * len(specs)  # 0 new, 1 on the way, 2 done
    for start in range(len(specs)):
        stack = [(start, iter(follows[start]))] if state[start] == 0 else []
        while stack:
            index, rest = stack[-1]
            state[index] = 1
            step = next(rest, None)
            if step is None:
                state[index] = 2
                stack.pop()
            elif state[step] == 1:
                raise Invalid(
                    f"tasks.{index}.depends_on",
                    f"{specs[index].name!r} waits for itself, through {specs[step].name!r}.",
                    remedy="Remove one of the dependencies.",
                )
            elif state[step] == 0:
                stack.append((step, iter(follows[step])))


def _stands(state: str) -> str:
    """A state as the rest of a sentence about its task."""
    words = {TaskState.SUCCEEDED: "has succeeded", TaskState.FAILED: "has failed", TaskState.CANCELLED: "was cancelled"}
    return words.get(TaskState(state), f"is {state}")
