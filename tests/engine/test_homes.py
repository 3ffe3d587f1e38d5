"""Own users first, through the whole engine: under a virtual clock, and in the store with a queue that a site shows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from isthmus.domain.placement import Claim, HomeLine, PoolView, Snapshot
from isthmus.domain.queue import ExpectedJob
from isthmus.domain.site import Pool
from isthmus.domain.task import Constraints, Demand, TaskSpec
from isthmus.engine.homes import MOST_WAITING, NOBODY, read_homes
from isthmus.engine.snapshot import waiting_task
from isthmus.placement import decide
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.test_fairness import submit_to
from tests.world.history import World, run_history


def _spec(cpus: int, seconds: int) -> TaskSpec:
    return TaskSpec(
        command=("true",),
        env={"SECONDS": str(seconds), "EXIT": "0"},
        demand=Demand(cpus=cpus, memory_bytes=1024**2, walltime_seconds=seconds),
        max_attempts=20,
    )


def _projects(database: Database, **homes: str) -> None:
    rows = [{"name": name, "home": home, "created_at": 0.0} for name, home in homes.items()]
    database.write_now(lambda connection: connection.execute(tables.projects.insert(), rows))


@pytest.mark.parametrize("home_first", [True, False])
def test_a_guest_starts_only_where_no_own_user_waits_longer(home_first: bool) -> None:
    """Four of eight processors run for 200 s, an own task wants all eight: a guest of 600 s starts after it, one of 50 s before;
    without the row both start at once, and the own task waits for the long one."""
    started: dict[str, float] = {}

    async def play(world: World) -> None:
        _projects(world.database, own="site0", other="")
        world.settings = replace(world.settings, home_first=home_first, moves_at_once=0)
        await world.start_engine("one")
        names = {world.submit([_spec(4, 200)], "own")[0]: "first"}
        await asyncio.sleep(30)
        names[world.submit([_spec(8, 100)], "own")[0]] = "wide"
        names[world.submit([_spec(4, 600)], "other")[0]] = "long"
        names[world.submit([_spec(2, 50)], "other")[0]] = "short"
        await asyncio.sleep(1500)
        for centre in world.centres.values():
            started.update({names[run.task_id]: run.started_at for run in centre.runs})

    _, problems = run_history(7, play, lambda world: [], plain_sites=1)
    assert problems == []
    wide, long, short = (started[name] - started["first"] for name in ("wide", "long", "short"))
    if home_first:
        assert short < 100
        assert wide < 240, "as soon as the first has ended"
        assert long > wide
    else:
        assert long < 100
        assert wide > 600


async def test_homes_are_read_with_what_is_there(store: Database) -> None:
    """Nothing is read where no project has a home; then its waiting tasks, oldest first, bounded, and nobody else's."""
    await submit_to(store, "other", [TaskSpec(command=("true",))])
    assert await store.read(read_homes) is NOBODY
    _projects(store, own="alpha", other="")
    await submit_to(store, "own", [TaskSpec(command=("true",), priority=one) for one in (0, 5)])
    homes = await store.read(read_homes)
    assert dict(homes.of) == {"own": "alpha"}
    assert [row.project for row in homes.waiting] == ["own", "own"]
    ranks = [row.rank for row in homes.waiting]
    assert ranks == sorted(ranks)
    await submit_to(store, "own", [TaskSpec(command=("true",))] * (MOST_WAITING + 5))
    assert len((await store.read(read_homes)).waiting) == MOST_WAITING


async def test_strangers_in_the_queue_are_own_users(store: Database) -> None:
    """What a site's queue shows and is not ours was handed in there: it has a plan, a guest that is ours holds its room, and what is
    neither idle nor shown is taken to be down."""
    _projects(store, own="alpha", other="")
    now = time.time()
    plain = {
        "fence": 1,
        "number": 1,
        "site": "alpha",
        "pool": "cpu",
        "user": "ada",
        "created_at": now,
        "updated_at": now,
    }
    rows = [
        {"key": "a", "project": "own", "state": "queued", "native_id": "7", "cpus": 5, "task_id": "1", "walltime_seconds": 60},
        {"key": "b", "project": "other", "state": "queued", "native_id": "8", "cpus": 2, "task_id": "2", "walltime_seconds": 90},
        {"key": "c", "project": "own", "state": "placed", "native_id": "", "cpus": 1, "task_id": "3", "walltime_seconds": 30},
    ]  # fmt: skip
    store.write_now(lambda c: c.execute(tables.attempts.insert(), [{**plain, **row} for row in rows]))
    homes = await store.read(read_homes)
    shown = [
        ExpectedJob(id="5", running=True, processors=10, seconds=100.0),
        ExpectedJob(id="8", running=False, processors=2, seconds=90.0),
        ExpectedJob(id="6", running=False, processors=8, seconds=40.0),
        ExpectedJob(id="7", running=False, processors=5, seconds=60.0),
    ]
    view = PoolView(site="alpha", pool=Pool(name="cpu", cpus_per_node=16, free_cpus=5, queued_jobs=3))
    snapshot = homes.into(Snapshot(now=now, pools=(view,)), (), {("alpha", "cpu"): shown})
    line = snapshot.pools[0].home
    assert line is not None
    assert [(claim.cpus, claim.seconds) for claim in line.running] == [(10, 100.0), (2, 90.0), (1, float("inf"))]
    assert [(claim.cpus, claim.seconds) for claim in line.waiting] == [(8, 40.0), (5, 60.0), (1, 30.0)]
    guest = waiting_task("0" * 26, "bo", _spec(2, 50), input_bytes=0, run=None)
    assert decide(snapshot, [guest]).placements != ()
    assert decide(snapshot, [replace(guest, demand=_spec(2, 150).demand)]).placements == ()


async def test_a_site_that_shows_sums_keeps_its_strangers_too(store: Database) -> None:
    """Strangers that wait count as one job as wide as the pool; what they run lasts as long as the mean of what is left."""
    _projects(store, own="alpha")
    homes = await store.read(read_homes)
    pool = Pool(
        name="cpu",
        cpus_per_node=16,
        free_cpus=4,
        queued_jobs=2,
        queued_cpu_seconds=1600.0,
        running_cpu_seconds_left=1200.0,
    )
    line = homes.into(Snapshot(now=0.0, pools=(PoolView(site="alpha", pool=pool),)), (), {}).pools[0].home
    assert line is not None
    assert line.running == (Claim(cpus=12, seconds=100.0),)
    assert line.waiting == (Claim(cpus=16, seconds=100.0),)


def test_tasks_of_a_home_that_may_not_run_there_keep_nobody_out() -> None:
    """An own task that its user forbids at home has no plan there."""
    pool = Pool(name="cpu", cpus_per_node=4, memory_bytes_per_node=1024**3, immediate=True)
    own = replace(
        waiting_task("1" * 26, "ada", _spec(4, 60), input_bytes=0, run=None, home="alpha"),
        constraints=Constraints(sites_deny=("alpha",)),
    )
    guest = waiting_task("0" * 26, "bo", _spec(2, 600), input_bytes=0, run=None)
    views = (PoolView(site="alpha", pool=pool, home=HomeLine()),)
    assert decide(Snapshot(now=0.0, pools=views, homebound=(own,)), [guest]).placements != ()
