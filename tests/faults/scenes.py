"""Directed histories of the simulated world: one fault at a chosen moment, judged by the same oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import sqlalchemy as sa

from isthmus.domain.task import Demand, Output, TaskSpec
from isthmus.store import tables
from tests.world.centre import Centre
from tests.world.history import World, run_history
from tests.world.link import Link
from tests.world.nemesis import make_peace
from tests.world.oracle import judge
from tests.world.process import Process

Scene = Callable[[World], Awaitable[None]]


def tell(scene: Scene, *, sites: int = 1, seed: int = 7) -> World:
    """Run a scene with one engine, then peace until all is settled; fails when a promise was broken."""

    async def play(world: World) -> None:
        await world.start_engine("one")
        await scene(world)
        await make_peace(world)

    def also(world: World) -> list[str]:
        world.final = {"tasks": sorted(states(world)), "attempts": sorted(states(world, tables.attempts))}
        return judge(world)

    world, problems = run_history(seed, play, also, plain_sites=sites)
    assert not problems, "\n".join([*world.told, *problems])
    return world


def spec(seconds: float = 5.0, *, code: int = 0, cpus: int = 1, output: bool = True, attempts: int = 20) -> TaskSpec:
    """A task of the world."""
    return TaskSpec(
        name="t",
        command=("true",),
        env={"SECONDS": str(seconds), "EXIT": str(code)},
        demand=Demand(cpus=cpus, memory_bytes=1024**2, walltime_seconds=600),
        outputs=(Output(path="out.txt"),) if output else (),
        max_attempts=attempts,
    )


def centre(world: World, name: str = "site0") -> Centre:
    """A site."""
    return world.centres[name]


def link(world: World, name: str = "site0") -> Link:
    """The link to a site."""
    return world.links[name]


def process(world: World, owner: str = "one") -> Process:
    """The life of a control plane that is on now."""
    return world.engines[owner][0]


def states(world: World, table: sa.Table = tables.tasks) -> list[str]:
    """The states of all tasks, or attempts."""
    return world.database.read_now(lambda connection: list(connection.execute(sa.select(table.c.state)).scalars()))


async def until(world: World, condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Wait in the world's time."""
    end = world.loop.time() + seconds
    while not condition():
        assert world.loop.time() < end, f"it never came to be: {world.unsettled()}"
        await asyncio.sleep(0.25)


def runs(world: World) -> int:
    """How often a user's command was started, at all sites."""
    return sum(len(one.runs) for one in world.centres.values())


def done(world: World) -> int:
    """How many tasks have succeeded."""
    return states(world).count("succeeded")
