"""What the engine tells the brain, and keeps of what it says, on each database."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal

import pytest

from isthmus.domain.site import Energy
from isthmus.domain.task import Constraints, Output, TaskSpec
from isthmus.engine import intents
from isthmus.engine.snapshot import read_snapshot
from isthmus.engine.warming import Warming
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join, task
from tests.engine.test_life import submit, until


async def test_tasks_of_a_group_are_at_different_sites(store: Database, make_engine: EngineMaker) -> None:
    """Two sites take one each; the third waits, and goes when one of them has ended."""
    for name in ("one", "two"):
        join(store, name, config={"seconds": 3600})
    engine = make_engine(store)
    await engine.start()
    spec = TaskSpec(command=("true",), constraints=Constraints(apart="copies"))
    ids = [of[0] for of in await submit(store, spec, spec)]
    engine.wake()
    await until(lambda: count(store, tables.tasks, tables.tasks.c.state == "running") == 2)
    assert {task(store, which).site for which in ids} == {"one", "two"}
    [[third]] = await submit(store, spec)
    engine.wake()
    await asyncio.sleep(2)
    assert task(store, third).state == "waiting"
    await store.write(intents.cancel, now=time.time(), task_ids=[ids[0]], by="ada")
    engine.wake()
    await until(lambda: task(store, third).state == "running")
    assert task(store, third).site == task(store, ids[0]).site


async def test_an_output_that_stays_takes_the_task_to_a_site_that_keeps_data(
    store: Database, make_engine: EngineMaker
) -> None:
    """The other site is named with its reason; so is one whose agent was started anew without a place for data."""
    for name in ("bare", "keeps", "stopped"):
        join(store, name)
    now = time.time()
    rows = [
        {"site": "keeps", "address": "", "quota_bytes": 0, "seen_at": now},
        {"site": "stopped", "address": "", "quota_bytes": 0, "seen_at": now - 3600},
    ]
    store.write_now(lambda c: c.execute(tables.data_servers.insert(), rows))
    engine = make_engine(store)
    await engine.start()
    spec = TaskSpec(command=("true",), outputs=(Output(path="out", data="p/d", stays=True),))
    await until(lambda: len(store.read_now(read_snapshot, time.time()).pools) == 3)
    store.write_now(lambda c: c.execute(tables.sites.update().values(last_seen_at=now)))
    [receipt] = await engine.plan([spec], "ada", "p", [0])
    whys = {candidate.site: candidate.why for candidate in receipt.candidates}
    assert whys == {"bare": "site_keeps_no_data", "keeps": "chosen", "stopped": "site_keeps_no_data"}
    [[placed]] = await submit(store, spec)
    engine.wake()
    await until(lambda: bool(task(store, placed).site))
    assert task(store, placed).site == "keeps"


@pytest.mark.timeout(900)
async def test_joint_placement_is_compiled_beside_the_rounds() -> None:
    """Not ready before it was asked for, ready when the other process is done; stopping before that ends it."""
    warming = Warming("isthmus.placement.joint", "plain order")
    await warming.stop()
    assert not warming.ready
    warming.start()
    warming.start()
    await until(lambda: warming.ready, seconds=800)
    await warming.stop()
    stopped = Warming("isthmus.placement.joint", "plain order")
    stopped.start()
    await asyncio.sleep(0.2)
    await stopped.stop()
    assert not stopped.ready


async def test_declared_power_and_carbon_reach_the_brain(store: Database, make_engine: EngineMaker) -> None:
    """What an operator declares beside the prices is in the snapshot, pool by pool."""
    join(store)
    declared = {"cpu_hour": "1", "accelerator_hour": "2", "cpu_watts": "9", "pue": "1.3", "carbon_grams_per_kwh": "45"}
    store.write_now(
        lambda connection: connection.execute(tables.sites.update().values(prices=json.dumps({"*": declared})))
    )
    engine = make_engine(store)
    await engine.start()
    await until(lambda: bool(store.read_now(lambda connection: read_snapshot(connection, time.time())).pools))
    view = store.read_now(lambda connection: read_snapshot(connection, time.time())).pools[0]
    assert view.price_per_accelerator_hour == 2
    assert view.energy == Energy(watts_per_cpu=Decimal(9), pue=Decimal("1.3"), carbon_grams_per_kwh=Decimal(45))
