"""Parts that start together, while the control plane dies or the way to one site is cut at the worst moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from isthmus.domain.task import Together
from isthmus.engine import failpoints
from tests.faults.scenes import centre, link, process, runs, spec, states, tell, until
from tests.world.history import World
from tests.world.link import Link

pytestmark = pytest.mark.fault
BOTH = ("site0", "site1")


def pair(world: World, hold: int = 60, seconds: float = 5.0) -> list[str]:
    """A group of two parts is handed in."""
    return world.submit([replace(spec(seconds), together=Together(hold_seconds=hold))])


class CutAtTheOrder(Link):
    """A link that breaks just when held jobs are to be let go."""

    __slots__ = ()

    async def call(self, name: str, arguments: Sequence[Any] | None) -> Any:
        if name == "let_go":
            self.there = self.back = False
        return await Link.call(self, name, arguments)


def held(world: World) -> int:
    """How many jobs are at a site and have not started their command."""
    return sum(
        native.state == "RUNNING" and native.run is None for one in world.centres.values() for native in one.natives
    )


@pytest.mark.parametrize("passage", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in failpoints.NAMES if name.startswith("gang.")])
def test_killed_around_the_start(name: str, passage: int) -> None:
    """Before, between and after the orders to the two sites: both parts run, once, in their first try."""

    async def scene(world: World) -> None:
        process(world).kill_at[name] = passage
        pair(world, hold=600)
        await until(world, lambda: not world.unsettled(), 3600)

    world = tell(scene, sites=2)
    assert world.final["tasks"] == ["succeeded", "succeeded"]
    assert world.final["attempts"] == ["succeeded", "succeeded"]
    assert runs(world) == 2
    if passage == 1:
        assert world.kills == 1


def test_a_part_is_held_until_the_other_is_there() -> None:
    """One site starts nothing for a while: the part at the other has its processors, and has not begun; then both begin."""

    async def scene(world: World) -> None:
        centre(world, "site1").drained = True
        pair(world, hold=600)
        await until(world, lambda: held(world) == 1)
        await asyncio.sleep(60)
        assert (held(world), runs(world)) == (1, 0)
        centre(world, "site1").drained = False
        centre(world, "site1").schedule()

    world = tell(scene, sites=2)
    assert world.final["attempts"] == ["succeeded", "succeeded"]
    assert runs(world) == 2


def test_the_service_is_away_for_longer_than_the_hold() -> None:
    """One part is held, the other waits in its queue, the service is dead: the held job ends by itself, the other is held in turn and ends
    too. The service comes back: both are tried again, together."""

    async def scene(world: World) -> None:
        centre(world, "site1").drained = True
        pair(world, hold=20)
        await until(world, lambda: held(world) == 1)
        process(world).kill()
        centre(world, "site1").drained = False
        centre(world, "site1").schedule()
        await until(world, lambda: len(world.engines) == 1, 60)

    world = tell(scene, sites=2)
    assert world.final["tasks"] == ["succeeded", "succeeded"]
    assert runs(world) == 2


def test_the_way_to_one_site_is_cut_between_the_orders() -> None:
    """One part starts, the order to the other is lost for longer than its hold. The first is ended, the group is tried again, and neither
    runs to completion twice."""

    async def scene(world: World) -> None:
        pair(world, hold=30, seconds=300.0)
        link(world, "site1").__class__ = CutAtTheOrder
        await until(world, lambda: runs(world) == 1)
        assert centre(world, "site0").runs
        await until(world, lambda: held(world) == 0)
        link(world, "site1").__class__ = Link
        link(world, "site1").heal()

    world = tell(scene, sites=2)
    assert world.final["tasks"] == ["succeeded", "succeeded"]
    assert Counter(world.final["attempts"])["succeeded"] == 2
    assert len(world.final["attempts"]) == 4, "one try was lost, of both"
    assert runs(world) == 3


def test_a_node_is_lost_while_both_run() -> None:
    """The other part is ended, and both start together once more."""

    async def scene(world: World) -> None:
        centre(world, "site0").rng.seed(1)
        pair(world, seconds=100.0)
        await until(world, lambda: runs(world) == 2)
        while all(native.live for native in centre(world, "site0").natives):
            centre(world, "site0").lose_node()
        await until(world, lambda: runs(world) == 4)

    world = tell(scene, sites=2)
    assert world.final["tasks"] == ["succeeded", "succeeded"]
    assert runs(world) == 4


def test_the_other_part_had_succeeded_already() -> None:
    """A part that is lost after the other has succeeded is not run without it."""

    async def scene(world: World) -> None:
        first, _ = pair(world, seconds=100.0)
        await until(world, lambda: runs(world) == 2)
        quick = next(run for run in centre(world, "site0").runs + centre(world, "site1").runs if run.task_id == first)
        place = next(one for one in world.centres.values() if quick in one.runs)
        native = next(one for one in place.natives if one.run is quick)
        assert native.timer is not None
        native.timer.cancel()
        place._complete(native)
        await until(world, lambda: states(world).count("succeeded") == 1)
        other = next(one for one in world.centres.values() if one is not place)
        while all(native.live for native in other.natives):
            other.lose_node()
        await until(world, lambda: "failed" in states(world))

    world = tell(scene, sites=2)
    assert world.final["tasks"] == ["failed", "succeeded"]
    assert runs(world) == 2
