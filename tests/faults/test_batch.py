"""F23 to F32: what batch systems do to their users, on the simulated one; the real ones are in test_sampled."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from isthmus.domain.task import Array
from isthmus.store import tables
from tests.faults.scenes import centre, done, link, process, runs, spec, states, tell, until
from tests.world.history import World

pytestmark = pytest.mark.fault


def test_f23_accepted_but_time_out() -> None:
    """The submission arrives and its answer is a time-out: the job is found by its key, and not submitted again."""

    async def scene(world: World) -> None:
        link(world).lose_answer = 0.0
        centre(world).blind_rate = 1.0  # every submission is Uncertain
        world.submit([spec(20), spec(30)])
        await until(world, lambda: runs(world) == 2)
        centre(world).blind_rate = 0.0
        await until(world, lambda: done(world) == 2)
        assert link(world).calls["submit"] == 1
        assert len(centre(world).natives) == 2

    tell(scene)


def test_f23_a_submission_that_arrives_minutes_late_runs_once() -> None:
    """Two negatives, a second submission under the same key, then the first arrives after all: one of them runs."""

    async def scene(world: World) -> None:
        link(world).late = 1.0
        world.submit([spec(60)])
        await until(world, lambda: link(world).calls.get("submit"))
        await asyncio.sleep(1)
        link(world).late = 0.0
        await until(world, lambda: link(world).calls["submit"] >= 2 or done(world) == 1, 3600)
        await until(world, lambda: done(world) == 1, 3600)
        assert runs(world) == 1

    for seed in range(1, 6):
        tell(scene, seed=seed)


def test_f24_rejected_after_it_was_accepted() -> None:
    """The site takes a job and ends it before it starts: the task goes to the other site and runs once."""

    async def scene(world: World) -> None:
        centre(world, "site0").reject_rate = 1.0
        world.submit([spec(5), spec(5), spec(5)])
        await until(world, lambda: done(world) == 3, 3600)
        assert {run.native_id for run in centre(world, "site0").runs} == set()
        assert len(centre(world, "site1").runs) == 3

    tell(scene, sites=2)


def test_f25_ids_are_used_again() -> None:
    """With ids that come again every few jobs each attempt still gets its own usage and outputs."""

    async def scene(world: World) -> None:
        centre(world).id_limit = 4
        for _ in range(5):
            world.submit([spec(3), spec(6), spec(9)])
            await until(world, lambda: not world.unsettled())
        assert done(world) == 15

    tell(scene)


def test_f26_the_status_is_empty_or_garbage() -> None:
    """Looks that leave jobs out or say nothing end nothing: the attempt is UNKNOWN, then goes on as it was."""

    async def scene(world: World) -> None:
        world.submit([spec(120)])
        await until(world, lambda: runs(world) == 1)
        centre(world).blind_rate = 1.0
        await until(world, lambda: states(world) == ["unknown"])
        await asyncio.sleep(60)
        assert states(world, tables.attempts) == ["unknown"]
        centre(world).blind_rate = 0.0
        await until(world, lambda: done(world) == 1)
        assert runs(world) == 1

    tell(scene)


def test_f27_accounting_is_hours_late() -> None:
    """Usage that appears three hours after the end is recorded then, once; the task did not wait for it."""

    async def scene(world: World) -> None:
        centre(world).accounting_delay = 3 * 3600.0
        world.submit([spec(5)])
        await until(world, lambda: done(world) == 1)
        count = "SELECT count(*) FROM usage_records"
        assert world.peek.execute(count).fetchone()[0] == 0
        await asyncio.sleep(3 * 3600 + 120)
        assert world.peek.execute(count).fetchone()[0] == 1

    tell(scene)


def test_f28_a_node_is_lost() -> None:
    """A job that died with its node is run again, elsewhere if it can be, and both attempts are accounted."""

    async def scene(world: World) -> None:
        world.submit([spec(60)])
        await until(world, lambda: runs(world) == 1)
        for name in ("site0", "site1"):
            while any(n.state == "RUNNING" for n in centre(world, name).natives):
                centre(world, name).lose_node()
        await until(world, lambda: done(world) == 1)
        assert sorted(states(world, tables.attempts)) == ["failed", "succeeded"]
        assert len(centre(world, "site0").runs) == len(centre(world, "site1").runs) == 1

    tell(scene, sites=2)


def test_f29_the_site_requeues_a_job() -> None:
    """A job that the site starts a second time does not run the user's command again under the same key."""

    async def scene(world: World) -> None:
        world.submit([spec(60)])
        await until(world, lambda: runs(world) == 1)
        while any(n.state == "RUNNING" for n in centre(world).natives):
            centre(world).requeue()
        await until(world, lambda: done(world) == 1)
        assert len({run.key for run in centre(world).runs}) == runs(world) == 2

    tell(scene)


def test_f30_the_site_clock_is_five_minutes_off() -> None:
    """Before or behind: nothing is concluded from the site's clock, and usage has the site's own times."""
    for drift in (300.0, -300.0):

        async def scene(world: World, drift: float = drift) -> None:
            centre(world).drift = drift
            world.submit([spec(5), spec(20)])
            await until(world, lambda: done(world) == 2)
            assert runs(world) == 2

        tell(scene)


def test_f31_a_maintenance_drain() -> None:
    """Jobs that wait behind a drain of an hour stay queued, are neither lost nor sent again, and run when it is over."""

    async def scene(world: World) -> None:
        centre(world).drained = True
        world.submit([spec(5), spec(5)])
        await asyncio.sleep(3600)
        assert states(world) == ["queued", "queued"]
        centre(world).drained = False
        centre(world).schedule()
        await until(world, lambda: done(world) == 2)
        assert link(world).calls["submit"] == 1

    tell(scene)


def test_f32_a_part_of_an_array_fails() -> None:
    """Of a batch of six the site takes a part before it breaks, and two fail by themselves: six ends, four of them good."""

    async def scene(world: World) -> None:
        link(world).partial = 1.0
        good = replace(spec(5), array=Array(size=4), name="good")
        bad = replace(spec(5, code=3), array=Array(size=2), name="bad")
        world.submit([good, bad])
        await until(world, lambda: link(world).calls.get("submit", 0) >= 1 or link(world).calls.get("stage", 0) >= 3)
        link(world).partial = 0.0
        await until(world, lambda: not world.unsettled(), 3600)
        assert sorted(states(world)) == ["failed"] * 2 + ["succeeded"] * 4
        assert runs(world) == 6
        assert process(world) is not None

    tell(scene)
