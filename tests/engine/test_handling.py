"""What handling takes is learned from what ended, site by site, and is part of the predicted end."""

from __future__ import annotations

import math
import time

import pytest

from isthmus.domain.placement import Snapshot
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine.handling import ENOUGH, Brought, Handling, learnt
from isthmus.placement import decide
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until
from tests.placement.test_round import NOW, pool, waiting


async def test_handling_is_learned_and_counts_in_the_predicted_end(store: Database, make_engine: EngineMaker) -> None:
    """Nothing is known before enough ended; then the end is predicted later by the median, also where nothing has ended yet."""
    join(store)
    handling = Handling(store)
    snapshot = Snapshot(now=NOW, pools=(pool("null", free_cpus=16), pool("other", free_cpus=16)))
    await handling.refresh(time.time())
    assert handling.into(snapshot) == snapshot
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=2 * ENOUGH)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == 2 * ENOUGH)
    await engine.stop()

    def as_if_slow(connection: object) -> None:
        a, t = tables.attempts, tables.tasks
        connection.execute(a.update().values(created_at=a.c.submitted_at - 7.0))  # type: ignore[attr-defined]
        ended = a.select().with_only_columns(a.c.started_at).where(a.c.key == t.c.attempt).scalar_subquery()
        connection.execute(t.update().values(ended_at=ended + 5.0))  # type: ignore[attr-defined]
        connection.execute(tables.usage_records.update().values(elapsed_seconds=2))  # type: ignore[attr-defined]

    store.write_now(as_if_slow)
    await handling.refresh(time.time())
    told = handling.into(snapshot)
    here, other = told.pools
    assert here.handling is not None
    assert here.handover is not None
    alone = here.handover.of(1, 0.0) + here.handling.seconds
    assert alone == pytest.approx(10.0, abs=1.0)
    assert here.handling.source == "learned"
    assert (other.handling, other.handover) == (here.handling, here.handover)
    [receipt] = decide(told, [waiting()]).receipts
    [before] = decide(snapshot, [waiting()]).receipts
    for one, cold in zip(receipt.candidates, before.candidates, strict=True):
        assert (one.finish_seconds or 0.0) - (cold.finish_seconds or 0.0) == pytest.approx(alone)


def test_what_is_to_be_brought_before_a_task_counts_for_each_task_and_byte() -> None:
    """Bursts of 1 to 12 tasks that are brought one after another: 2 s, then 0.3 s for each and 20 MB/s."""
    brought = []
    for burst in range(1, 13):
        there = 1000.0 * burst + 2.0
        for number in range(burst):
            size = 1e6 * ((7 * number + burst) % 10)
            there += 0.3 + size / 20e6
            brought.append(Brought(placed_at=1000.0 * burst, there_at=there, size_bytes=size))
    after, handover = learnt(brought, [3.0] * len(brought))
    assert handover.of(1, 0.0) == pytest.approx(2.3, abs=0.4)
    assert handover.of(10, 40e6) == pytest.approx(2.0 + 3.0 + 2.0, rel=0.1)
    assert after.seconds == pytest.approx(3.0, abs=0.4)


def test_the_newest_say_most_of_what_collecting_takes() -> None:
    """After a burst in which collecting took 30 s, twenty tasks of a calm hour in which it takes 2 s: that is what the next will take."""
    brought = [
        Brought(placed_at=1000.0 * number, there_at=1000.0 * number + 0.5, size_bytes=0.0) for number in range(80)
    ]
    after, _ = learnt(brought, [2.0] * 20 + [30.0] * 60)
    assert after.seconds < 5.0
    assert after.late > 15.0


def test_bringing_is_learned_before_anything_of_it_has_ended() -> None:
    """A calm past in which a task was in the queue at once, and a burst under way that takes 12 s each: the next of the burst takes as long."""
    calm = [Brought(placed_at=1000.0 * number, there_at=1000.0 * number + 0.5, size_bytes=0.0) for number in range(40)]
    burst = [
        Brought(placed_at=1e5 + 20.0 * number, there_at=1e5 + 20.0 * number + 12.0, size_bytes=0.0)
        for number in range(40)
    ]
    after, handover = learnt([*calm, *burst], [2.0] * 40)
    assert handover.of(1, 0.0) + after.seconds == pytest.approx(14.0, abs=2.0)


def test_what_is_on_its_way_or_reads_data_is_before_others_and_teaches_nothing() -> None:
    """One after another at 1 s each: forty that read data sets are brought before every other one."""
    brought = []
    for burst in range(12):
        begun = 1000.0 * burst
        brought += [Brought(begun, begun + 1 + n, 0.0, teaches=False) for n in range(40)]
        brought.append(Brought(begun + 0.1, begun + 41.0, 0.0))
        brought.append(Brought(begun + 500, begun + 501.0, 0.0))
    brought += [Brought(12000.0, math.inf, 0.0, teaches=False) for _ in range(40)]
    _, handover = learnt(brought, [1.0] * 20)
    assert handover.of(41, 0.0) == pytest.approx(41.0, rel=0.1)
    assert handover.of(1, 0.0) == pytest.approx(1.0, abs=1.0)
