"""Fair share through the whole engine: under a virtual clock, and in the store."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest

from isthmus.domain.task import Array, Demand, TaskSpec
from isthmus.engine import serving
from isthmus.engine.settings import EngineSettings
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.test_life import submit
from tests.world.history import World, run_history


def _spec(seconds: int, cpus: int, size: int) -> TaskSpec:
    return TaskSpec(
        command=("true",),
        env={"SECONDS": str(seconds), "EXIT": "0"},
        demand=Demand(cpus=cpus, memory_bytes=1024**2, walltime_seconds=seconds),
        array=Array(size=size),
        max_attempts=20,
    )


def _used(world: World, task_ids: set[str], until: float) -> float:
    runs = [run for centre in world.centres.values() for run in centre.runs if run.task_id in task_ids]
    return sum(
        run.cpus * (min(until, run.ended_at or until) - run.started_at) for run in runs if run.started_at < until
    )


@pytest.mark.timeout(900)  # virtual time, which load cannot change; but some ten thousand transactions take their while
@pytest.mark.parametrize(("share", "ratio"), [(1.0, 1.0), (3.0, 3.0)])
def test_projects_get_their_shares_under_contention(share: float, ratio: float) -> None:
    """One has many short narrow tasks and came first, the other fewer long wide ones: while both wait, processor time is as
    their shares, within five in a hundred."""
    figures: dict[str, float] = {}

    async def play(world: World) -> None:
        world.database.write_now(
            lambda connection: connection.execute(
                tables.projects.insert(),
                [
                    {"name": "early", "share": 1.0, "created_at": 0.0},
                    {"name": "late", "share": share, "created_at": 0.0},
                ],
            )
        )
        world.settings = replace(world.settings, round_interval=8.0, poll_interval=8.0, round_tasks=40)
        await world.start_engine("one")
        early = set(world.submit([_spec(20, 1, 180)], "early"))
        await asyncio.sleep(5)
        late = set(world.submit([_spec(30, 2, 100)], "late"))
        await asyncio.sleep(600)
        figures["early"], figures["late"] = _used(world, early, world.now()), _used(world, late, world.now())
        waiting = Counter(row[0] for row in world.peek.execute("SELECT project FROM tasks WHERE state = 'waiting'"))
        figures["waiting"] = min(waiting["early"], waiting["late"])
        world.cancel([*early, *late])

    _, problems = run_history(7, play, lambda world: [], plain_sites=1)
    assert problems == []
    assert figures["waiting"] > 0, "both must have had work to the end"
    assert figures["late"] / figures["early"] == pytest.approx(ratio, rel=0.05)


async def test_the_line_of_many_projects_is_whole(store: Database) -> None:
    """Paged through, every waiting task of 230 projects comes once, and in each project by priority and then age."""
    for number in range(230):
        specs = [TaskSpec(command=("true",), priority=priority) for priority in (0, 5, -3)]
        await submit_to(store, f"p{number}", specs)
    settings = EngineSettings()
    line = await store.read(serving.open_line, time.time(), settings, 10.0)
    assert len(line.projects) == 230
    seen = []
    while True:
        rows = await store.read(serving.read_waiting, time.time(), 100, line, lambda row: 1.0, 1.0)
        if not rows:
            break
        seen += rows
    assert len({row.id for row in seen}) == len(seen) == 690
    for number in (0, 100, 229):
        ranks = [row.rank for row in seen if row.project == f"p{number}"]
        assert ranks == sorted(ranks)


async def submit_to(store: Database, project: str, specs: list[TaskSpec]) -> None:
    from isthmus.engine import intents

    await store.write(intents.submit, now=time.time(), user="ada", project=project, specs=specs)


async def test_a_held_project_is_no_part_of_the_line(store: Database) -> None:
    """Only projects with waiting tasks are asked."""
    await submit(store, TaskSpec(command=("true",), hold=True))
    await submit_to(store, "other", [TaskSpec(command=("true",))])
    assert (await store.read(serving.open_line, time.time(), EngineSettings(), 1.0)).projects == ("other",)


async def test_use_is_added_and_decays(store: Database) -> None:
    """Two uses a half-life apart: the first counts half at the second, and all of it is the project's."""
    now, half_life = 1.8e9, 1000.0
    await store.write(serving.add_usage, now, half_life, {"a": 100.0, "b": 7.0})
    await store.write(serving.add_usage, now + half_life, half_life, {"a": 30.0})
    accounts = await store.read(serving.read_accounts, now + half_life, half_life)
    assert accounts["a"].used == pytest.approx(80.0)
    assert accounts["b"].used == pytest.approx(3.5)
