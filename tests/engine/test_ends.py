"""How far ends are from their predictions is learned from receipts, and becomes the interval of the next."""

from __future__ import annotations

import time

import pytest

from isthmus.domain.placement import Snapshot
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine.ends import MOST, Ends
from isthmus.placement import decide
from isthmus.placement.spreading import COLD, COLD_DECLARED
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until
from tests.placement.test_round import NOW, pool, waiting


async def test_the_interval_is_what_ends_were_off(store: Database, make_engine: EngineMaker) -> None:
    """Wide before; then 24 tasks whose ends were from 1 to 24 s after they were placed give an interval of 80 in 100 of that."""
    join(store)
    ends = Ends(store)
    snapshot = Snapshot(now=NOW, pools=(pool("null", free_cpus=16),))
    await ends.refresh(time.time())
    assert ends.into(snapshot).pools[0].spread_declared == COLD_DECLARED
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=MOST)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == MOST)
    await engine.stop()

    def as_if_spread(connection: object) -> None:
        a, t = tables.attempts, tables.tasks
        for number, row in enumerate(connection.execute(a.select().order_by(a.c.key)).all(), 1):  # type: ignore[attr-defined]
            ended = t.update().where(t.c.id == row.task_id).values(ended_at=row.created_at + number)
            connection.execute(ended)  # type: ignore[attr-defined]

    store.write_now(as_if_spread)
    await ends.refresh(time.time())
    told = ends.into(snapshot)
    assert told.pools[0].spread_declared is not None
    assert told.pools[0].spread_declared.source == "learned"
    assert told.pools[0].spread == COLD
    task = waiting()  # its run time is not known either, its limit is another: widths count, not seconds
    [receipt] = decide(told, [task]).receipts
    finish = receipt.candidates[0].finish
    assert finish is not None
    middle = receipt.candidates[0].finish_seconds or 0.0
    width = 1.0 + 0.1 * middle
    predicted = 3600.0 + 2.0  # of the 24 tasks: the limit of an hour, and the scheduler's lag
    there = 1.0 + 0.1 * predicted
    assert finish.p10 == pytest.approx(max(0.0, middle + width * (2.5 - predicted) / there), abs=0.5)
    assert finish.p90 == pytest.approx(max(0.0, middle + width * (22.5 - predicted) / there), abs=0.5)
