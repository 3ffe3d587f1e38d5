"""Preemptible tasks at a real site make room, are started again and go on from what they saved; waiting work moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Unavailable
from isthmus.domain.task import Demand, Output, TaskSpec
from isthmus.sites.null import NullSite
from isthmus.sites.port import Full, Job, JobRef, Observation, Sighting, SubmitOutcome
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import QUICK, EngineMaker, count, join, task
from tests.engine.test_life import assert_whole, submit, until

# Counts to 60, ten a second; when it is warned it saves how far it came; only then is it asked to end by itself.
COUNT = """
n=0; [ -f state ] && read -r n <state
trap 'echo "$n" >state; exit 0' USR1
echo "begins at $n, restart $ISTHMUS_RESTART" >>history
while [ "$n" -lt 60 ]; do sleep 0.1; n=$((n + 1)); done
echo "$n" >result
"""


def _attempts(store: Database, task_id: str) -> list[Any]:
    query = tables.attempts.select().where(tables.attempts.c.task_id == task_id).order_by(tables.attempts.c.number)
    return store.read_now(lambda connection: list(connection.execute(query)))


def _order(store: Database, key: str, kind: str) -> int:
    """Where an attempt's event stands among all."""
    e = tables.events.c
    query = sa.select(e.seq).where(e.attempt == key, e.kind == kind)
    return int(store.read_now(lambda connection: connection.execute(query).scalar_one()))


def _receipts(store: Database, task_id: str) -> list[dict[str, Any]]:
    query = tables.receipts.select().where(tables.receipts.c.task_id == task_id)
    rows = store.read_now(lambda connection: list(connection.execute(query)))
    return [orjson.loads(row.body) for row in sorted(rows, key=lambda row: row.decided_at)]


@pytest.mark.real
async def test_a_preempted_task_goes_on_from_what_it_saved(
    sqlite_store: Database, make_engine: EngineMaker, tmp_path: Path
) -> None:
    """On a host of one processor: it makes room within its grace, waits until the other has ended, takes up its count, and ends
    well; both tries are accounted, and neither counts against its one."""
    store = sqlite_store
    join(store, kind="local", config={"root": str(tmp_path / "site"), "cpus": 1})
    engine = make_engine(store)
    await engine.start()
    spec = TaskSpec(
        command=("/bin/sh", "-c", COUNT),
        demand=Demand(memory_bytes=64 * 1024**2, walltime_seconds=600),
        outputs=(Output(path="result"), Output(path="history")),
        preemptible=True,
        checkpoint=("state", "history"),
        checkpoint_signal="USR1",
        checkpoint_grace_seconds=20,
        max_attempts=1,
    )
    [[patient]] = await submit(store, spec)
    engine.wake()
    await until(lambda: task(store, patient).state == "running")
    await asyncio.sleep(1.5)
    other = TaskSpec(command=("sleep", "1"), demand=Demand(memory_bytes=64 * 1024**2), max_attempts=1)
    [[urgent]] = await submit(store, other)
    engine.wake()
    await until(lambda: task(store, urgent).state == "succeeded", 90)
    await until(lambda: task(store, patient).state in ("succeeded", "failed"), 90)
    first, second = _attempts(store, patient)
    assert (first.state, first.reason, first.ending) == ("cancelled", "preempted", "preempt")
    assert (second.state, second.reason) == ("succeeded", "exit_zero")
    assert task(store, patient).restarts == 1
    blobs = DirectoryBlobStore(tmp_path / "blobs")
    outputs = {
        row.path: row.sha256
        for row in store.read_now(lambda connection: list(connection.execute(tables.outputs.select())))
        if row.task_id == patient
    }

    async def content(path: str) -> str:
        return b"".join([chunk async for chunk in blobs.read(outputs[path])]).decode()

    assert await content("result") == "60\n"
    begun = (await content("history")).splitlines()
    assert begun[0] == "begins at 0, restart 0"
    assert begun[1].endswith("restart 1")
    assert 1 <= int(begun[1].split()[2].rstrip(",")) < 60, "it went on, not from the beginning"
    assert _receipts(store, patient)[-1]["after"] == f"made room for task {urgent}"
    await until(lambda: count(store, tables.usage_records) == 3)
    assert_whole(store)


async def _north_waits(site: NullSite, refs: Sequence[JobRef]) -> dict[str, Observation]:
    """The jobs of one site wait in its queue for ever."""
    seen = await _plain_observe(site, refs)
    return {
        key: replace(one, sighting=Sighting.QUEUED, started_at=None)
        if one.sighting is Sighting.RUNNING and site._name == "north"
        else one
        for key, one in seen.items()
    }


MOVING = replace(
    QUICK,
    move_interval=0.3,
    move_after=0.5,
    move_least_seconds=1.0,
    move_least_part=0.1,
    describe_interval=0.3,
    idle_describe_interval=0.3,
)


async def _describe_as_queue(site: NullSite) -> Any:
    description = await _plain_describe(site)
    backlog = 1e6 if site._name == "north" and _State.full_north else 0.0
    pool = replace(
        description.pools[0],
        immediate=False,
        free_cpus=0 if backlog else 100,
        queued_jobs=5 if backlog else 0,
        queued_cpu_seconds=backlog * 1e6,
        up=site._name == "north" or _State.south_up,
    )
    return replace(description, pools=(pool,))


_plain_describe, _plain_observe, _plain_cancel = NullSite.describe, NullSite.observe, NullSite.cancel


class _State:
    full_north = False
    south_up = False


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_waiting_job_moves_when_the_world_changed(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    """It waits at the one site (or is refused there, its queue being full); the other opens; it is ended there first, and then
    begins here, under a new fence, with the reason in its receipt, and counts as one try."""
    _State.full_north = _State.south_up = False
    monkeypatch.setattr(NullSite, "observe", _north_waits)
    monkeypatch.setattr(NullSite, "describe", _describe_as_queue)
    if refuses:
        take = NullSite.submit

        async def submit_unless_full(site: NullSite, jobs: Sequence[Job]) -> dict[str, SubmitOutcome]:
            if site._name == "north":
                return {job.key: Full(message="AssocMaxSubmitJobLimit") for job in jobs}
            return dict(await take(site, jobs))

        monkeypatch.setattr(NullSite, "submit", submit_unless_full)
    for name in ("north", "south"):
        join(store, name, config={"seconds": 3600})
    engine = make_engine(store, settings=MOVING)
    await engine.start()
    await until(lambda: count(store, tables.sites, tables.sites.c.description != "") == 2)
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=1, demand=Demand(walltime_seconds=60)))
    engine.wake()
    await until(lambda: task(store, one).state == ("staging" if refuses else "queued"))
    assert task(store, one).site == "north"
    await asyncio.sleep(1.5)
    assert len(_attempts(store, one)) == 1, "nothing is better elsewhere"
    _State.full_north = _State.south_up = True
    await until(lambda: task(store, one).state == "running")
    first, second = _attempts(store, one)
    assert (first.site, first.state, first.reason) == ("north", "cancelled", "moved")
    assert (second.site, second.fence) == ("south", 2)
    assert _order(store, first.key, "attempt.cancelled") < _order(store, second.key, "attempt.placed")
    assert "sooner at south" in _receipts(store, one)[-1]["after"]
    assert task(store, one).moves == 1
    assert_whole(store)


async def test_a_job_that_started_unseen_is_not_moved(
    sqlite_store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is to move while its site cannot be reached; the site answers again, the job runs: it is left alone. One that still waits
    is ended, and that is known before the site is asked."""
    store = sqlite_store
    sighting, noted = [Sighting.QUEUED], []

    async def look(site: NullSite, refs: Sequence[JobRef]) -> dict[str, Observation]:
        if sighting[0] is Sighting.UNSEEN:
            raise Unavailable("The site does not answer.")
        seen = await _plain_observe(site, refs)
        return {
            key: replace(one, sighting=sighting[0], started_at=None) if one.sighting is Sighting.RUNNING else one
            for key, one in seen.items()
        }

    async def cancel(site: NullSite, refs: Sequence[JobRef]) -> None:
        rows = store.read_now(lambda connection: connection.execute(tables.attempts.select()).all())
        noted.append({row.key: row.cancel_sent_at for row in rows if row.key in {ref.key for ref in refs}})
        await _plain_cancel(site, refs)

    def give_back(key: str) -> None:
        a = tables.attempts
        values = {"ending": "move", "ending_at": 1.0, "ending_note": "moved"}
        store.write_now(lambda connection: connection.execute(a.update().where(a.c.key == key).values(**values)))

    monkeypatch.setattr(NullSite, "observe", look)
    monkeypatch.setattr(NullSite, "cancel", cancel)
    join(store, config={"seconds": 3600})
    engine = make_engine(store)
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=1))
    engine.wake()
    await until(lambda: task(store, one).state == "queued")
    sighting[0] = Sighting.UNSEEN
    await asyncio.sleep(0.3)
    give_back(_attempts(store, one)[0].key)
    await asyncio.sleep(0.5)
    assert noted == []
    sighting[0] = Sighting.RUNNING
    await until(lambda: task(store, one).state == "running")
    await until(lambda: _attempts(store, one)[0].ending == "")
    await asyncio.sleep(0.5)
    assert (noted, task(store, one).state) == ([], "running")
    sighting[0] = Sighting.QUEUED
    [[other]] = await submit(store, TaskSpec(command=("true",), max_attempts=1))
    engine.wake()
    await until(lambda: task(store, other).state == "queued")
    key = _attempts(store, other)[0].key
    give_back(key)
    await until(lambda: task(store, other).moves == 1)
    assert noted
    assert noted[0][key] is not None


async def test_a_task_moves_so_often_and_no_more(
    sqlite_store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sites that look better in turn: a task is moved as often as the bound says, then stays."""
    store = sqlite_store

    async def turning(site: NullSite) -> Any:
        """Whichever site has the task has a long queue."""
        description = await _plain_describe(site)
        row = store.read_now(lambda connection: connection.execute(tables.tasks.select()).first())
        here = row is not None and row.site == site._name
        pool = replace(
            description.pools[0],
            immediate=False,
            free_cpus=0 if here else 100,
            queued_jobs=5 if here else 0,
            queued_cpu_seconds=1e12 if here else 0.0,
        )
        return replace(description, pools=(pool,))

    async def all_wait(site: NullSite, refs: Sequence[JobRef]) -> dict[str, Observation]:
        seen = await _plain_observe(site, refs)
        return {
            key: replace(one, sighting=Sighting.QUEUED, started_at=None) if one.sighting is Sighting.RUNNING else one
            for key, one in seen.items()
        }

    monkeypatch.setattr(NullSite, "describe", turning)
    monkeypatch.setattr(NullSite, "observe", all_wait)
    for name in ("north", "south"):
        join(store, name, config={"seconds": 3600})
    engine = make_engine(store, settings=replace(MOVING, moves_most=2))
    await engine.start()
    [[one]] = await submit(store, TaskSpec(command=("true",), max_attempts=1, demand=Demand(walltime_seconds=60)))
    engine.wake()
    await until(lambda: task(store, one).moves == 2)
    await until(lambda: task(store, one).state == "queued")
    await asyncio.sleep(3)
    assert len(_attempts(store, one)) == 3
    assert task(store, one).state == "queued"
    assert_whole(store)
