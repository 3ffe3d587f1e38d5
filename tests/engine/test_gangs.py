"""Tasks that start together: both or none, at different sites, at the same time, and what becomes of the other when one goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus.domain.errors import Conflict
from isthmus.domain.task import Demand, TaskSpec, Together
from isthmus.engine import intents
from isthmus.sites.null import NullSite
from isthmus.sites.port import Job, JobRef, Observation, Sighting, Submitted
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join, task
from tests.engine.test_life import assert_whole, submit, until

DEMAND = Demand(memory_bytes=64 * 1024**2, walltime_seconds=60)


def _attempts(store: Database) -> list[Any]:
    query = tables.attempts.select().order_by(tables.attempts.c.number, tables.attempts.c.site)
    return store.read_now(lambda connection: list(connection.execute(query)))


def _receipts(store: Database, task_id: str) -> list[dict[str, Any]]:
    query = tables.receipts.select().where(tables.receipts.c.task_id == task_id)
    rows = store.read_now(lambda connection: list(connection.execute(query)))
    return [orjson.loads(row.body) for row in sorted(rows, key=lambda row: row.decided_at)]


def _join_both(store: Database, tmp_path: Path, cpus: int = 1) -> None:
    for name in ("north", "south"):
        join(store, name, kind="local", config={"root": str(tmp_path / name), "cpus": cpus, "grace_seconds": 1})


def _parts(store: Database) -> list[str]:
    query = tables.tasks.select().order_by(tables.tasks.c.part)
    return [row.id for row in store.read_now(lambda connection: list(connection.execute(query)))]


@pytest.mark.real
async def test_two_parts_meet(sqlite_store: Database, make_engine: EngineMaker, tmp_path: Path) -> None:
    """Each tells the other that it is there and waits to be told: only two that run at once both end."""
    store = sqlite_store
    _join_both(store, tmp_path)
    engine = make_engine(store)
    await engine.start()
    meet = f"""
    echo "$ISTHMUS_PART of $ISTHMUS_PARTS at $ISTHMUS_SITE among $ISTHMUS_PEERS" >{tmp_path}/here.$ISTHMUS_PART
    n=0; until [ -s {tmp_path}/here.$((1 - ISTHMUS_PART)) ]; do n=$((n + 1)); [ $n -gt 100 ] && exit 9; sleep 0.1; done
    """
    [ids] = await submit(store, TaskSpec(command=("/bin/sh", "-c", meet), demand=DEMAND, together=Together()))
    assert len(ids) == 2
    engine.wake()
    for task_id in ids:
        await until(lambda task_id=task_id: task(store, task_id).state in ("succeeded", "failed"), 60)
    assert [task(store, task_id).state for task_id in ids] == ["succeeded", "succeeded"]
    first, second = _attempts(store)
    assert {first.site, second.site} == {"north", "south"}
    assert first.let_go_at == second.let_go_at
    told = [(tmp_path / f"here.{part}").read_text() for part in range(2)]
    assert [line.split(" at ")[0] for line in told] == ["0 of 2", "1 of 2"]
    assert all(line.endswith(("among north,south\n", "among south,north\n")) for line in told)
    receipt = _receipts(store, ids[0])[-1]
    assert [plan["site"] for plan in receipt["together"]["plans"]] == [task(store, one).site for one in ids]
    await until(lambda: count(store, tables.usage_records) == 2)
    assert_whole(store)


class _South:
    """Whether jobs at `south` start."""

    starts = True


@pytest.fixture
def null_sites(store: Database, monkeypatch: pytest.MonkeyPatch) -> type[_South]:
    """Two sites that run nothing; those of `south` wait in its queue as long as one likes."""
    _South.starts = True

    async def observe(site: NullSite, refs: Sequence[JobRef]) -> dict[str, Observation]:
        seen = await _plain_observe(site, refs)
        return {
            key: replace(one, sighting=Sighting.QUEUED, started_at=None)
            if one.sighting is Sighting.RUNNING and site._name == "south" and not _South.starts
            else one
            for key, one in seen.items()
        }

    async def take(site: NullSite, jobs: Sequence[Job]) -> dict[str, Submitted]:
        """A job that has not started is not held yet."""
        return await _plain_submit(site, [replace(j, hold_seconds=3600) if site._name == "south" else j for j in jobs])

    monkeypatch.setattr(NullSite, "submit", take)
    monkeypatch.setattr(NullSite, "observe", observe)
    for name in ("north", "south"):
        join(store, name, config={"seconds": 1})
    return _South


_plain_observe, _plain_submit = NullSite.observe, NullSite.submit
BY_NAME = Together(name="pair", hold_seconds=60)


async def _in_state(store: Database, ids: Sequence[str], *states: str) -> None:
    await until(lambda: all(task(store, one).state in states for one in ids))


async def test_a_hold_that_runs_out_is_one_try_of_both(
    store: Database, make_engine: EngineMaker, null_sites: type[_South]
) -> None:
    """One part waits in its site's queue for longer than the other is held: both wait for a place again, together, and neither avoids
    a site for it; the second time both are there."""
    null_sites.starts = False
    engine = make_engine(store)
    await engine.start()
    [ids] = await submit(store, TaskSpec(command=("true",), max_attempts=9, together=Together(hold_seconds=2)))
    engine.wake()
    await until(lambda: count(store, tables.attempts, tables.attempts.c.reason == "peer_ended") == 1)
    null_sites.starts = True
    await _in_state(store, ids, "succeeded", "failed")
    by_site = {(row.site, row.number): (row.state, row.reason) for row in _attempts(store)}
    assert by_site["north", 1] == ("failed", "peers_late")
    assert by_site["south", 1] == ("cancelled", "peer_ended")
    tries = {task(store, one).attempts for one in ids}
    assert len(tries) == 1
    assert {by_site[site, max(tries)] for site in ("north", "south")} == {("succeeded", "exit_zero")}
    assert [task(store, one).avoid_sites for one in ids] == ["[]", "[]"]
    await until(lambda: count(store, tables.gangs, tables.gangs.c.settled) == 1)
    assert_whole(store)


async def test_the_last_try_that_is_late_fails_both(
    store: Database, make_engine: EngineMaker, null_sites: type[_South]
) -> None:
    """With one try each, both end as failed, each with its own reason; a retry of one is a retry of both."""
    null_sites.starts = False
    engine = make_engine(store)
    await engine.start()
    [ids] = await submit(store, TaskSpec(command=("true",), max_attempts=1, together=Together(hold_seconds=6)))
    engine.wake()
    await _in_state(store, ids, "failed")
    assert {task(store, one).reason for one in ids} == {"peers_late", "peer_ended"}
    null_sites.starts = True
    await store.write(intents.retry, now=time.time(), task_ids=ids[:1], by="ada")
    engine.wake()
    await _in_state(store, ids, "succeeded")
    assert_whole(store)


async def test_a_group_by_name_waits_for_its_parts(
    store: Database, make_engine: EngineMaker, null_sites: type[_South]
) -> None:
    """The first part waits, with the reason; hold and release of one are of both; with the second both go, at different sites."""
    engine = make_engine(store)
    await engine.start()
    [[first]] = await submit(store, TaskSpec(command=("true",), together=BY_NAME))
    engine.wake()
    await until(lambda: bool(_receipts(store, first)))
    assert _receipts(store, first)[-1]["together"]["why"] == "parts_missing"
    assert _receipts(store, first)[-1]["together"]["offered"] == "1 of 2 not handed in"
    await store.write(intents.hold, now=time.time(), task_ids=[first], by="ada")
    [[second]] = await submit(store, TaskSpec(command=("sleep", "1"), together=BY_NAME))
    assert (task(store, second).gang, task(store, second).part) == (first, 1)
    engine.wake()
    await until(
        lambda: "is held" in (_receipts(store, second) or [{"together": {"offered": ""}}])[-1]["together"]["offered"]
    )
    await store.write(intents.hold, now=time.time(), task_ids=[second], by="ada")
    await store.write(intents.release, now=time.time(), task_ids=[first], by="ada")
    engine.wake()
    await _in_state(store, [first, second], "succeeded")
    assert {row.site for row in _attempts(store)} == {"north", "south"}
    [[third]] = await submit(store, TaskSpec(command=("true",), together=BY_NAME, hold=True))
    assert task(store, third).gang == third, "a group that has ended takes no more parts"
    with pytest.raises(Conflict, match="and 60 s"):
        await submit(store, TaskSpec(command=("true",), together=replace(BY_NAME, hold_seconds=5)))
    assert_whole(store)


async def test_cancelling_a_part_cancels_the_group(
    store: Database, make_engine: EngineMaker, null_sites: type[_South]
) -> None:
    """While one part is held and the other waits in its queue."""
    null_sites.starts = False
    engine = make_engine(store)
    await engine.start()
    [ids] = await submit(store, TaskSpec(command=("true",), together=Together()))
    engine.wake()
    await until(lambda: sorted(task(store, one).state for one in ids) == ["queued", "running"])
    await store.write(intents.cancel, now=time.time(), task_ids=ids[1:], by="ada")
    engine.wake()
    await _in_state(store, ids, "cancelled")
    assert {task(store, one).reason for one in ids} == {"cancelled_by_user"}
    assert_whole(store)


@pytest.mark.real
async def test_a_part_that_fails_after_the_start_ends_the_other(
    sqlite_store: Database, make_engine: EngineMaker, tmp_path: Path
) -> None:
    """The command of one fails; the other is ended at its site, and its message names the part and the reason."""
    store = sqlite_store
    _join_both(store, tmp_path)
    engine = make_engine(store)
    await engine.start()
    script = f'echo $$ >{tmp_path}/pid.$ISTHMUS_PART; [ "$ISTHMUS_PART" = 0 ] && {{ sleep 1; exit 3; }}; exec sleep 300'
    [ids] = await submit(store, TaskSpec(command=("/bin/sh", "-c", script), demand=DEMAND, together=Together()))
    engine.wake()
    await _in_state(store, ids, "failed")
    first, second = (task(store, one) for one in ids)
    assert (first.reason, first.exit_code) == ("exit_nonzero", 3)
    assert second.reason == "peer_ended"
    assert ids[0] in second.message
    assert "exit_nonzero" in second.message
    assert not Path(f"/proc/{(tmp_path / 'pid.1').read_text().strip()}").exists()
    await until(lambda: count(store, tables.usage_records) == 2)
    assert_whole(store)
