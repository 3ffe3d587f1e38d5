"""F15 to F22: the network between the control plane and its sites; cut for real between agent and control plane."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faultcheck import check
from benchmarks.faultrig import Rig
from tests.agent.proxy import Weather
from tests.faults.scenes import done, link, runs, spec, tell, until
from tests.world.history import World

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("fault", "rates"),
    [
        ("f15_drop", {"drop": 0.4, "lose_answer": 0.3}),
        ("f16_delay", {"latency": 8.0, "late": 0.3}),
        ("f17_duplicate", {"twice": 1.0}),
        ("f18_reorder", {"twice": 0.5, "late": 0.5, "latency": 4.0}),
    ],
)
def test_f15_to_f18_requests_are_lost_delayed_repeated_and_reordered(fault: str, rates: dict[str, float]) -> None:
    """Five minutes of it, with tasks coming and going: each runs to completion once."""

    async def scene(world: World) -> None:
        for name, rate in rates.items():
            setattr(link(world), name, rate)
        for _ in range(4):
            world.submit([spec(4), spec(25)])
            start = world.loop.time()
            await until(world, lambda start=start: world.loop.time() > start + 75)
        link(world).heal()
        await until(world, lambda: done(world) == 8, 3600)
        assert runs(world) >= 8  # a late cancel of a surplus copy may hit the one that had just begun

    for seed in (1, 2):
        tell(scene, seed=seed)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A control plane and an agent, each a process, with a proxy between them."""
    directory: Path = tmp_path_factory.mktemp("rig")
    made = Rig(directory)
    try:
        made.start()
        made.join("far", "local", {"root": str(directory / "root"), "cpus": 8, "memory": "4G"}, mode="agent")
        yield made
    finally:
        made.stop()


def _through(rig: Rig, *weathers: tuple[Weather, float]) -> None:
    """Tasks before, during and after bad weather; then the oracle."""
    assert rig.link is not None
    accepted = set(rig.submit("far", [0.1, 2.0], secrets.token_hex(8)))
    for weather, seconds in weathers:
        rig.link.turn(weather)
        if len(accepted) < 4:
            accepted |= set(rig.submit("far", [0.1, 0.3], secrets.token_hex(8)))
        time.sleep(seconds)
        rig.link.turn(Weather.FINE)
        time.sleep(0.1)
    accepted |= set(rig.submit("far", [0.1], secrets.token_hex(8)))
    open_tasks = "SELECT 1 FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') LIMIT 1"
    open_usage = "SELECT 1 FROM attempts WHERE usage_state = 'due' LIMIT 1"
    assert rig.until(lambda: not rig.rows(open_tasks) and not rig.rows(open_usage), 120), rig.rows(
        "SELECT id, state, message FROM tasks WHERE state <> 'succeeded'"
    )
    assert check(rig, accepted).violations == []


def test_f19_a_half_open_link(rig: Rig) -> None:
    """Connections stay open and nothing comes through."""
    _through(rig, (Weather.HOLD, 3.0))


def test_f20_a_partition(rig: Rig) -> None:
    """Nothing connects; jobs end at the site meanwhile, and are seen to have ended when the link is back."""
    _through(rig, (Weather.CUT, 4.0))


def test_f21_a_partition_one_way(rig: Rig) -> None:
    """Requests of the agent arrive, the answers to it are lost."""
    _through(rig, (Weather.DEAF, 3.0))


def test_f22_many_short_partitions(rig: Rig) -> None:
    """Ten cuts in a few seconds, of every kind."""
    kinds = (Weather.CUT, Weather.DEAF, Weather.HOLD)
    _through(rig, *((kinds[number % 3], 0.2) for number in range(10)))


def test_f20_partitions_of_hours() -> None:
    """In the simulated world: three hours without the site end nothing, and run nothing twice."""

    async def scene(world: World) -> None:
        world.submit([spec(30), spec(3000)])
        await until(world, lambda: runs(world) == 2)
        link(world).there = link(world).back = False
        start = world.loop.time()
        await until(world, lambda: world.loop.time() > start + 3 * 3600, 4 * 3600)
        assert done(world) == 0
        link(world).heal()
        await until(world, lambda: done(world) == 2, 600)
        assert runs(world) == 2

    tell(scene)
