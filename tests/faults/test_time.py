"""F43, F44: clocks that jump, seconds that come twice, hours that come twice or never."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from isthmus.domain.task import Objective
from tests.faults.scenes import done, runs, spec, tell, until
from tests.world.history import World

pytestmark = pytest.mark.fault


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86400.0 * 30, -86400.0 * 30])
def test_f43_the_clock_jumps(seconds: float) -> None:
    """An hour or a month, there or back, while jobs wait and run: everything ends, once, with one leader."""

    async def scene(world: World) -> None:
        world.submit([spec(20), spec(90)])
        await until(world, lambda: runs(world) == 2)
        world.jump += seconds
        world.submit([spec(5)])
        await until(world, lambda: done(world) == 3, 3 * 3600)
        assert runs(world) == 3

    tell(scene)


def test_f43_the_clock_goes_back_while_another_waits_for_the_lease() -> None:
    """The owner dies and the clock goes back a day: the other still takes over, though the lease looks a day long."""

    async def scene(world: World) -> None:
        await world.start_engine("two")
        world.submit([spec(40)])
        await until(world, lambda: runs(world) == 1)
        owner = world.peek.execute("SELECT owner FROM leases WHERE name = 'site:site0'").fetchone()[0]
        dead, engine = world.engines.pop(owner)
        dead.kill()
        world.jump -= 86400.0
        await until(world, lambda: done(world) == 1, 1200)
        assert engine is not None

    tell(scene)


def test_f44_a_leap_second() -> None:
    """A second that comes twice, again and again, under way."""

    async def scene(world: World) -> None:
        world.submit([spec(10), spec(15), spec(20)])
        for _ in range(30):
            await asyncio.sleep(1)
            world.jump -= 1.0
        await until(world, lambda: done(world) == 3)
        assert runs(world) == 3

    tell(scene)


def test_f44_summer_time_and_the_end_of_a_month() -> None:
    """A deadline is a moment: the hour that comes twice, the hour that never comes and the month's end mean one each."""
    berlin = ZoneInfo("Europe/Berlin")
    first = Objective(deadline=datetime(2026, 10, 25, 2, 30, tzinfo=berlin))
    second = Objective(deadline=datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin))
    assert first.deadline is not None
    assert second.deadline is not None
    assert second.deadline.timestamp() - first.deadline.timestamp() == 3600
    skipped = Objective(deadline=datetime(2026, 3, 29, 2, 30, tzinfo=berlin))
    assert skipped.deadline is not None
    assert skipped.deadline.astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    end = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)
    assert (end + timedelta(seconds=1)).timestamp() - end.timestamp() == 1
