"""What people ask of the engine is stored whole or not at all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from isthmus.domain.errors import Busy, Conflict, Invalid, NotFound
from isthmus.domain.lifecycle import EndReason, TaskState
from isthmus.domain.task import Array, Dependency, DependencyCondition, Input, TaskSpec
from isthmus.engine import intents
from isthmus.engine.checking import check
from isthmus.engine.endings import end_tasks
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import count, task

TRUE = ("true",)


def submit(store: Database, *specs: TaskSpec, **more: Any) -> list[list[str]]:
    return store.write_now(intents.submit, now=time.time(), user="ada", project="p", specs=specs, **more)


def end(store: Database, task_id: str, state: TaskState) -> None:
    reason = EndReason.EXIT_ZERO if state is TaskState.SUCCEEDED else EndReason.EXIT_NONZERO
    store.write_now(end_tasks, time.time(), {task_id: (state, reason)})


def test_a_task_waits_and_its_event_is_there(store: Database) -> None:
    """A submitted task is WAITING, with one event."""
    [[one]] = submit(store, TaskSpec(command=TRUE, tags={"k": "v"}))
    assert task(store, one).state == TaskState.WAITING
    assert count(store, tables.events, tables.events.c.task_id == one) == 1
    assert count(store, tables.task_tags, tables.task_tags.c.task_id == one) == 1


def test_an_array_is_expanded_with_its_values(store: Database) -> None:
    """Each element of an array has its index and its own environment."""
    spec = TaskSpec(command=TRUE, array=Array(size=3, values={"X": ("a", "b", "c")}))
    [ids] = submit(store, spec)
    rows = [task(store, one) for one in ids]
    assert [row.array_index for row in rows] == [0, 1, 2]
    assert ['"X":"b"' in row.spec for row in rows] == [False, True, False]
    assert {row.array_id for row in rows} == {ids[0]}


def test_ten_thousand_elements_in_one_call(store: Database) -> None:
    """The largest array is taken in one call."""
    [ids] = submit(store, TaskSpec(command=TRUE, array=Array(size=10_000)))
    assert len(set(ids)) == 10_000
    assert count(store, tables.tasks) == 10_000


def test_a_chain_goes_on_step_by_step(store: Database) -> None:
    """A task starts to wait when what it depends on succeeded."""
    ids = submit(
        store,
        TaskSpec(name="a", command=TRUE),
        TaskSpec(name="b", command=TRUE, depends_on=(Dependency(task="a"),)),
        TaskSpec(name="c", command=TRUE, depends_on=(Dependency(task="a"), Dependency(task="b"))),
    )
    (a,), (b,), (c,) = ids
    assert task(store, b).state == TaskState.BLOCKED
    end(store, a, TaskState.SUCCEEDED)
    assert (task(store, b).state, task(store, c).state) == (TaskState.WAITING, TaskState.BLOCKED)
    end(store, b, TaskState.SUCCEEDED)
    assert task(store, c).state == TaskState.WAITING
    found = store.read_now(lambda connection: list(check(connection)))
    assert {finding.code for finding in found} <= {"success_mismatch"}  # ended by hand, without an attempt


def test_a_failure_cancels_everything_behind_it(store: Database) -> None:
    """What needs the success of a failed task is cancelled, however deep; what only needs its end goes on."""
    ids = submit(
        store,
        TaskSpec(name="a", command=TRUE),
        TaskSpec(name="b", command=TRUE, depends_on=(Dependency(task="a"),)),
        TaskSpec(name="c", command=TRUE, depends_on=(Dependency(task="b"),)),
        TaskSpec(name="clean", command=TRUE, depends_on=(Dependency(task="c", condition=DependencyCondition.ENDED),)),
    )
    end(store, ids[0][0], TaskState.FAILED)
    states = [task(store, one[0]).state for one in ids]
    assert states == ["failed", "cancelled", "cancelled", "waiting"]
    assert task(store, ids[2][0]).reason == EndReason.DEPENDENCY_FAILED


def test_depending_on_a_task_that_failed_already_ends_at_once(store: Database) -> None:
    """A dependency that can never be met cancels the task at submission."""
    [[a]] = submit(store, TaskSpec(command=TRUE))
    end(store, a, TaskState.FAILED)
    [[b]] = submit(store, TaskSpec(command=TRUE, depends_on=(Dependency(task=a),)))
    assert task(store, b).state == TaskState.CANCELLED


def test_a_cycle_is_refused_and_nothing_is_stored(store: Database) -> None:
    """A task that waits for itself is refused by name."""
    with pytest.raises(Invalid, match="waits for itself"):
        submit(
            store,
            TaskSpec(name="a", command=TRUE, depends_on=(Dependency(task="b"),)),
            TaskSpec(name="b", command=TRUE, depends_on=(Dependency(task="a"),)),
        )
    assert count(store, tables.tasks) == 0


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (TaskSpec(command=TRUE, depends_on=(Dependency(task="nobody"),)), "tasks.1.depends_on.0.task"),
        (TaskSpec(command=TRUE, inputs=(Input(path="x", blob="a" * 64),)), "tasks.1.inputs.0.blob"),
        (TaskSpec(command=TRUE, workdir_manifest="b" * 64), "tasks.1.workdir_manifest"),
        (TaskSpec(command=TRUE, secrets={"TOKEN": "none"}), "tasks.1.secrets"),
    ],
)
def test_one_bad_task_refuses_the_whole_batch(store: Database, spec: TaskSpec, field: str) -> None:
    """The error names the field of the bad task; the good one is not stored either."""
    with pytest.raises(Invalid) as caught:
        submit(store, TaskSpec(command=TRUE), spec)
    assert caught.value.field == field
    assert count(store, tables.tasks) == 0


def test_knowing_a_hash_is_not_enough_to_read_it(store: Database) -> None:
    """Every content that a manifest names must belong to the project."""
    manifest, inner = "c" * 64, "d" * 64
    row = {"project": "p", "sha256": manifest, "size_bytes": 1, "created_at": 0.0}
    store.write_now(lambda connection: connection.execute(tables.blobs.insert(), [row]))
    spec = TaskSpec(command=TRUE, workdir_manifest=manifest)
    with pytest.raises(Invalid, match=inner):
        submit(store, spec, manifests={manifest: frozenset({inner})})


def test_too_many_tasks_are_refused_not_queued(store: Database) -> None:
    """Over the limit the answer is Busy with a time to come back."""
    submit(store, TaskSpec(command=TRUE), max_waiting=2)
    with pytest.raises(Busy) as caught:
        submit(store, TaskSpec(command=TRUE, array=Array(size=2)), max_waiting=2)
    assert caught.value.retry_after_seconds > 0
    assert count(store, tables.tasks) == 1


def test_hold_and_release(store: Database) -> None:
    """A held task goes on where it was; releasing what is not held is a conflict."""
    [[a]] = submit(store, TaskSpec(command=TRUE))
    store.write_now(intents.hold, now=1.0, task_ids=[a], by="ada")
    assert task(store, a).state == TaskState.HELD
    store.write_now(intents.release, now=1.0, task_ids=[a], by="ada")
    assert task(store, a).state == TaskState.WAITING
    with pytest.raises(Conflict):
        store.write_now(intents.release, now=1.0, task_ids=[a], by="ada")


def test_hold_and_release_mend_a_wrong_count(store: Database) -> None:
    """What `isthmus check` advises for a wrong count of open dependencies sets it right."""
    (_,), (b,) = submit(
        store, TaskSpec(name="a", command=TRUE), TaskSpec(command=TRUE, depends_on=(Dependency(task="a"),))
    )
    broken = tables.tasks.update().where(tables.tasks.c.id == b).values(state="waiting", blocked_by=0)
    store.write_now(lambda connection: connection.execute(broken))
    [finding] = store.read_now(lambda connection: list(check(connection)))
    assert finding.code == "blocked_by_mismatch"
    store.write_now(intents.hold, now=1.0, task_ids=[b], by="ada")
    store.write_now(intents.release, now=1.0, task_ids=[b], by="ada")
    assert (task(store, b).state, task(store, b).blocked_by) == (TaskState.BLOCKED, 1)
    assert store.read_now(lambda connection: list(check(connection))) == []


def test_cancel_ends_what_never_left_and_can_be_repeated(store: Database) -> None:
    """Cancelling a waiting task ends it; again changes nothing; an unknown id is not found."""
    [[a]] = submit(store, TaskSpec(command=TRUE))
    assert store.write_now(intents.cancel, now=1.0, task_ids=[a], by="ada") == 1
    assert task(store, a).state == TaskState.CANCELLED
    assert store.write_now(intents.cancel, now=2.0, task_ids=[a], by="ada") == 0
    with pytest.raises(NotFound):
        store.write_now(intents.cancel, now=1.0, task_ids=["0" * 26], by="ada")


def test_retry_gives_one_more_attempt(store: Database) -> None:
    """A cancelled task can be retried; a waiting one cannot."""
    [[a]] = submit(store, TaskSpec(command=TRUE, max_attempts=1))
    store.write_now(intents.cancel, now=1.0, task_ids=[a], by="ada")
    store.write_now(intents.retry, now=2.0, task_ids=[a], by="ada")
    row = task(store, a)
    assert (row.state, row.cancel_requested_at, row.ended_at) == (TaskState.WAITING, None, None)
    with pytest.raises(Conflict):
        store.write_now(intents.retry, now=2.0, task_ids=[a], by="ada")


def test_a_retried_task_waits_for_what_is_still_on_its_way(store: Database) -> None:
    """A retry skips no dependency that may still be met, and is not held up by one that failed."""
    (a,), (b,), (c,) = submit(
        store,
        TaskSpec(name="a", command=TRUE),
        TaskSpec(name="b", command=TRUE, depends_on=(Dependency(task="a"),)),
        TaskSpec(command=TRUE, depends_on=(Dependency(task="a"), Dependency(task="b"))),
    )
    store.write_now(intents.cancel, now=1.0, task_ids=[b], by="ada")
    assert task(store, c).reason == EndReason.DEPENDENCY_FAILED
    store.write_now(intents.retry, now=2.0, task_ids=[b, c], by="ada")
    assert [(task(store, one).state, task(store, one).blocked_by) for one in (b, c)] == [("blocked", 1), ("blocked", 2)]
    end(store, a, TaskState.FAILED)
    assert [task(store, one).state for one in (a, b, c)] == ["failed", "cancelled", "cancelled"]
    store.write_now(intents.retry, now=3.0, task_ids=[b], by="ada")
    store.write_now(intents.retry, now=3.0, task_ids=[c], by="ada")
    assert [(task(store, one).state, task(store, one).blocked_by) for one in (b, c)] == [("waiting", 0), ("blocked", 1)]
    assert store.read_now(lambda connection: list(check(connection))) == []
    end(store, b, TaskState.SUCCEEDED)
    assert task(store, c).state == TaskState.WAITING


def test_priority_ages(store: Database) -> None:
    """A point of priority is worth a minute: an old task passes a young one of higher priority."""
    [[old]] = store.write_now(
        intents.submit, now=1000.0, user="ada", project="p", specs=[TaskSpec(command=TRUE, priority=0)]
    )
    [[young]] = store.write_now(
        intents.submit, now=1000.0 + 30 * 60, user="ada", project="p", specs=[TaskSpec(command=TRUE, priority=10)]
    )
    [[urgent]] = store.write_now(
        intents.submit, now=1000.0 + 30 * 60, user="ada", project="p", specs=[TaskSpec(command=TRUE, priority=100)]
    )
    ranks = {name: task(store, one).rank for name, one in (("old", old), ("young", young), ("urgent", urgent))}
    assert sorted(ranks, key=lambda name: ranks[name]) == ["urgent", "old", "young"]
