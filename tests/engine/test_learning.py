"""The engine learns run times from the usage records of tasks that ended."""

from __future__ import annotations

import time

import pytest

from isthmus.api.task_rows import receipts_of
from isthmus.domain.lifecycle import TaskState
from isthmus.domain.placement import Receipt
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine import learning
from isthmus.engine.learning import RunTimes, command_of
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import load
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until


def test_alike_commands_differ_in_numbers_only() -> None:
    """A sweep over numbers is one command; another program or image is another."""
    one, two = (TaskSpec(command=("python", "fit.py", "--k", k)) for k in ("1", "15"))
    assert command_of(one) == command_of(two)
    assert command_of(one) != command_of(TaskSpec(command=("python", "plot.py", "--k", "1")))
    assert command_of(one) != command_of(TaskSpec(command=one.command, image="python:3.12"))


async def test_run_times_are_learned_and_written_into_receipts(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tasks of a command have ended, the next one's receipt forecasts its run from them, with quantiles; a
    command that nobody ran yet still runs as long as it declares."""
    monkeypatch.setattr("isthmus.engine.engine.EVERY_SECONDS", 0.2)
    join(store, config={"seconds": 1})
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("fit", "1"), array=Array(size=learning.ENOUGH)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == learning.ENOUGH)
    run_times = engine._run_times
    await until(lambda: run_times.estimate("ada", TaskSpec(command=("fit", "9")), time.time()) is not None)
    [[known], [unknown]] = await submit(store, TaskSpec(command=("fit", "2")), TaskSpec(command=("plot",)))
    engine.wake()
    done = tables.tasks.c.state == TaskState.SUCCEEDED.value
    await until(lambda: count(store, tables.tasks, done) == learning.ENOUGH + 2)

    def run(task_id: str) -> tuple[str, float]:
        query = tables.receipts.select().where(tables.receipts.c.task_id == task_id, tables.receipts.c.attempt != "")
        receipt = load(Receipt, store.read_now(lambda connection: connection.execute(query).one()).body)
        [chosen] = receipt.candidates
        assert chosen.run is not None
        if chosen.run.source == "learned":
            assert chosen.run.p10 is not None
            assert chosen.run.p90 is not None
            assert chosen.run.p10 <= chosen.run.seconds <= chosen.run.p90 + 1
        return chosen.run.source, chosen.run.seconds

    source, seconds = run(known)
    assert source == "learned"
    assert 0.5 <= seconds <= 3
    assert run(unknown)[1] >= 0.5
    await until(lambda: count(store, tables.usage_records) == learning.ENOUGH + 2)
    told = load(Receipt, store.read_now(receipts_of, known)[-1])
    assert told.actual_run_seconds == 1
    assert told.actual_wait_seconds is not None
    assert told.actual_transfer_seconds is not None


async def test_a_missing_library_is_said_once_and_tasks_run_as_declared(
    sqlite_store: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the library that learns the engine works on."""
    run_times = RunTimes(sqlite_store)

    def broken(*_: object) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(run_times, "_learn", broken)
    monkeypatch.setattr("isthmus.engine.learning._newest", lambda *_: [object()] * learning.ENOUGH)
    assert [await run_times.refresh(), await run_times.refresh()] == [0, 0]
    assert caplog.text.count("libgomp") == 1
    assert run_times.estimate("ada", TaskSpec(command=("a",)), time.time()) is None


async def test_a_row_that_cannot_be_read_keeps_nobody_from_learning(
    sqlite_store: Database, make_engine: EngineMaker
) -> None:
    """One broken specification among the records teaches nothing; the others are learned from, each once."""
    join(sqlite_store)
    engine = make_engine(sqlite_store)
    await engine.start()
    [ids] = await submit(sqlite_store, TaskSpec(command=("fit", "1"), array=Array(size=learning.ENOUGH + 1)))
    engine.wake()
    await until(lambda: count(sqlite_store, tables.usage_records) == learning.ENOUGH + 1)
    await engine.stop()
    broken = tables.tasks.update().where(tables.tasks.c.id == ids[3]).values(spec="{")
    sqlite_store.write_now(lambda connection: connection.execute(broken))
    run_times = RunTimes(sqlite_store)
    assert [await run_times.refresh(), await run_times.refresh()] == [learning.ENOUGH + 1, 0]
