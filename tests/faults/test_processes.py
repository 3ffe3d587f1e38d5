"""F1 to F6: the control plane dies, stands still, or has a twin. In the simulated world, every point is tried."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import sqlalchemy as sa

from isthmus.domain.lifecycle import TaskState
from isthmus.engine import failpoints, leases
from isthmus.store import tables
from isthmus.store.database import Database
from tests.faults.scenes import centre, done, link, process, runs, spec, tell, until
from tests.world.history import World

pytestmark = pytest.mark.fault
CANCELLED_AND_DONE = {"cancelled": 1, "succeeded": 2}


async def _three_tasks(world: World) -> None:
    """Two that succeed and one that is cancelled while it runs, with the site in the way of nothing."""
    world.submit([spec(3), spec(8)])
    [third] = world.submit([spec(60)])
    await until(world, lambda: runs(world) == 3)
    world.cancel([third])
    await until(world, lambda: len(world.unsettled()) == 0, 3600)


def _passages() -> dict[str, int]:
    """How often each place is passed in the undisturbed story."""
    passed: dict[str, int] = {}

    async def scene(world: World) -> None:
        await _three_tasks(world)
        passed.update(process(world).passed)

    tell(scene)
    return passed


def test_f01_kill_at_every_commit_point() -> None:
    """Killed before or after any write that changes work, the story ends as without the kill, on every write of it."""
    passed = _passages()
    places = [("write.before", n) for n in range(1, passed["write.before"] + 1)]
    places += [("write.after", n) for n in range(1, passed["write.after"] + 1)]
    assert len(places) > 40
    for place, passage in places[:: max(1, len(places) // 20)]:

        async def scene(world: World, place: str = place, passage: int = passage) -> None:
            process(world).kill_at[place] = passage
            await _three_tasks(world)

        world = tell(scene)
        assert Counter(world.final["tasks"]) == CANCELLED_AND_DONE, (place, passage)


@pytest.mark.parametrize("name", [name for name in failpoints.NAMES if not name.startswith("gang.")])  # see test_gangs
def test_f01_kill_at_every_failpoint(name: str) -> None:
    """Killed at a named point the story ends as without the kill."""
    for passage in (1,):

        async def scene(world: World, passage: int = passage) -> None:
            process(world).kill_at[name] = passage
            await _three_tasks(world)

        world = tell(scene)
        assert Counter(world.final["tasks"]) == CANCELLED_AND_DONE
        if name != "submit.stored" and passage == 1:  # that one is passed in the API, see test_kills
            assert world.kills == 1


def test_f03_a_frozen_leader_goes_on_and_harms_nothing() -> None:
    """Frozen between its check and the submission, past its lease: another takes over, runs the job; the zombie's own
    submission arrives afterwards and runs nothing."""

    async def scene(world: World) -> None:
        world.submit([spec(5)])
        zombie = process(world)
        await until(world, lambda: zombie.passed.get("dispatch.intended"))
        zombie.thawed.clear()
        await world.start_engine("two")
        await until(world, lambda: done(world) == 1, 3600)
        zombie.thawed.set()
        await asyncio.sleep(120)
        assert runs(world) == 1

    assert tell(scene).final["tasks"] == ["succeeded"]


def test_f04_killed_anywhere() -> None:
    """The out-of-memory killer takes the process at the n-th thing it does, whatever that is."""
    for count in range(5, 400, 66):

        async def scene(world: World, count: int = count) -> None:
            process(world).kill_at["any"] = count
            await _three_tasks(world)

        assert Counter(tell(scene).final["tasks"]) == CANCELLED_AND_DONE


def test_f05_two_leaders_by_an_expired_lease(store: Database) -> None:
    """The first leader's writes change nothing once a second has the lease, though the first never gave it back."""
    first = store.write_now(leases.take, "site:a", "one", 1000.0, 60.0)
    assert first is not None
    assert store.write_now(leases.take, "site:a", "two", 1030.0, 60.0) is None
    second = store.write_now(leases.take, "site:a", "two", 1061.0, 60.0)
    assert second is not None
    assert second.token > first.token
    assert store.write_now(leases.renew, [first], "one", 1062.0, 60.0) == set()
    with pytest.raises(leases.LostLease):
        store.write_now(leases.guard, first)
    store.write_now(leases.guard, second)
    store.write_now(leases.give_back, [first])
    assert store.write_now(leases.take, "site:a", "three", 1063.0, 60.0) is None


def test_f05_a_write_and_a_takeover_exclude_each_other(postgres_store: Database) -> None:
    """On PostgreSQL a takeover waits for a write that holds the lease, so that no write is under way when it ends."""
    first = postgres_store.write_now(leases.take, "site:a", "one", 1000.0, 60.0)
    assert first is not None

    def hold(connection: sa.Connection) -> None:
        leases.guard(connection, first)
        with postgres_store.engine.begin() as other, pytest.raises(sa.exc.DBAPIError):
            other.execute(sa.text("SET LOCAL lock_timeout = '200ms'"))
            leases.take(other, "site:a", "two", 2000.0, 60.0)

    postgres_store.write_now(hold)
    assert postgres_store.write_now(leases.take, "site:a", "two", 2000.0, 60.0) is not None


@pytest.mark.parametrize("placed_before", [True, False])
def test_f06_a_poison_row_is_parked_and_holds_up_nobody(placed_before: bool) -> None:
    """Before and after it was placed: a task whose row cannot be read is parked as failed after some tries; those of its batch succeed meanwhile."""

    async def scene(world: World) -> None:
        link(world).latency = 30.0  # so that nothing is at the site before the row is spoiled
        [bad] = world.submit([spec(5)])
        world.submit([spec(5), spec(5)])
        if placed_before:
            await until(world, lambda: process(world).passed.get("place.written"))

        def spoil(connection: sa.Connection) -> None:
            t = tables.tasks
            connection.execute(t.update().where(t.c.id == bad).values(spec='{"command": "no list"'))

        world.database.write_now(spoil)
        world.specs[bad] = spec(5, code=1)  # so that the oracle lets it fail
        link(world).heal()
        await until(world, lambda: done(world) == 2)
        await until(world, lambda: not world.unsettled(), 3600)
        row = world.database.read_now(lambda c: c.execute(tables.tasks.select().where(tables.tasks.c.id == bad)).one())
        assert (row.state, row.reason) == (TaskState.FAILED, "poison")
        assert not any(run.task_id == bad for run in centre(world).runs)
        world.specs.pop(bad)
        world.database.write_now(
            lambda c: [c.execute(t.delete().where(k == bad)) for t, k in _OF_TASK] and None  # judged here already
        )

    tell(scene)


_OF_TASK = (
    (tables.tasks, tables.tasks.c.id),
    (tables.attempts, tables.attempts.c.task_id),
)
