"""What a round looks at beside the waiting tasks, as the store has it, and by which index it finds it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from isthmus.domain.placement import PoolView, Snapshot
from isthmus.domain.site import Pool
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine.rebalancing import RoomToCome, following, read_blocked, read_holders, read_queued
from isthmus.engine.settings import EngineSettings
from isthmus.engine.snapshot import read_apart, read_snapshot
from isthmus.placement.preempting import Holder, Room, Wanting, make_room
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import join
from tests.engine.test_life import submit

NOW = 1_000_000.0


async def _attempts(store: Database, *changed: dict[str, Any]) -> None:
    """An attempt for each, that differs from a job that has waited at the site for long."""
    join(store)
    [ids] = await submit(store, TaskSpec(command=("true",), array=Array(size=len(changed))))
    plain = {
        "project": "p",
        "user": "ada",
        "number": 1,
        "fence": 1,
        "site": "null",
        "pool": "null",
        "state": "queued",
        "grace_seconds": 0,
        "ending": "",
        "cancel_requested": False,
        "due_at": 0.0,
        "tries": 0,
        "submitted_at": NOW - 1000.0,
        "created_at": NOW - 1000.0,
        "updated_at": NOW,
    }
    rows = [
        {**plain, "key": f"key-{index}", "task_id": task_id, **own}
        for index, (task_id, own) in enumerate(zip(ids, changed, strict=True))
    ]

    def write(connection: sa.Connection) -> None:
        connection.execute(tables.attempts.insert(), rows)
        for row in rows:
            mine = tables.tasks.c.id == row["task_id"]
            connection.execute(tables.tasks.update().where(mine).values(attempt=row["key"], state=row["state"]))

    store.write_now(write)


async def test_only_a_full_queue_refuses(store: Database) -> None:
    """A job whose data are on their way is looked at again in a second, and was refused by nobody."""
    await _attempts(store, {"state": "staging", "due_at": NOW + 1.0}, {"state": "staging", "due_at": NOW + 29.0})
    found = store.read_now(read_queued, NOW, EngineSettings())
    assert [row.key for row in found] == ["key-1"]


async def test_many_that_cannot_move_hide_nobody(store: Database) -> None:
    """The next look begins behind the last task of the one before, and at the start again after the last."""
    await _attempts(store, *({"state": "staging", "due_at": NOW + 29.0} for _ in range(502)))
    first = store.read_now(read_queued, NOW, EngineSettings())
    after = following(first)
    second = store.read_now(read_queued, NOW, EngineSettings(), after)
    assert len(first) == len(second) == 500
    assert {row.key for row in first} | {row.key for row in second[:2]} == {f"key-{number}" for number in range(502)}
    assert following(second[:2]) == ""


async def test_only_what_can_be_asked_to_end_holds_room(store: Database) -> None:
    """A job that nobody sees now cannot be; one that was asked before is still on its way."""
    held = {"grace_seconds": 60}
    await _attempts(
        store,
        {**held, "state": "running"},
        {**held, "state": "unknown"},
        {**held, "state": "submitting"},
        {**held, "state": "unknown", "ending": "preempt"},
        {**held, "state": "unknown", "cancel_requested": True},
        {**held, "state": "collecting", "ending": "preempt"},
    )
    holders = store.read_now(read_holders)
    assert {holder.key: holder.ending for holder in holders} == {"key-0": False, "key-3": True, "key-4": True}


async def test_no_room_is_made_for_what_is_to_end(store: Database) -> None:
    """A waiting job that moves, or that its user cancelled, needs none."""
    await _attempts(
        store, {"grace_seconds": 60, "state": "running"}, {}, {"ending": "move"}, {"cancel_requested": True}
    )
    assert len(store.read_now(read_blocked, NOW, EngineSettings())) == 1


@pytest.mark.parametrize("immediate", [False, True])
def test_room_of_a_job_that_is_gone_is_not_made_twice_before_the_site_shows_it(immediate: bool) -> None:
    """For as long as the site's figures are of before; not at a pool without a queue, where promises say what is free."""
    pool = Pool(name="p", cpus_per_node=8, memory_bytes_per_node=1 << 40, free_cpus=0, immediate=immediate)
    snapshot = Snapshot(now=NOW, pools=(PoolView(site="a", pool=pool),))
    gone, other = (Holder(key=key, place=("a", "p"), room=Room(cpus=8), started_at=1.0) for key in ("x", "y"))
    want = Wanting(task_id="t", room=Room(cpus=8), places=(("a", "p"),))
    to_come = RoomToCome(15.0)
    assert to_come.into([gone, other], snapshot, NOW) == [gone, other]
    to_come.remember([gone], NOW)
    first = to_come.into([replace(gone, ending=True), other], snapshot, NOW + 60)
    assert len(first) == 2, "as long as it is there it is counted once"
    later = to_come.into([other], snapshot, NOW + 70)
    assert make_room({}, [want], later) == ([("y", "t")] if immediate else [])
    assert to_come.into([other], snapshot, NOW + 76) == [other]


def test_live_attempts_are_found_by_their_index(sqlite_store: Database) -> None:
    """Promises and groups do not cost more with every attempt that ever ended."""
    plans: dict[str, list[str]] = {}

    def explain(connection: sa.Connection) -> None:
        def before(_c: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            if "attempts" in statement and not statement.startswith("EXPLAIN"):
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans[name] = [row[3] for row in cursor.fetchall()]

        sa.event.listen(connection, "before_cursor_execute", before)
        name = "promises"
        read_snapshot(connection, time.time())
        name = "apart"
        read_apart(connection, ["ada"])

    sqlite_store.read_now(explain)
    assert plans.keys() == {"promises", "apart"}
    for name, steps in plans.items():
        assert any("attempts USING INDEX ix_attempts_live" in step for step in steps), (name, steps)
