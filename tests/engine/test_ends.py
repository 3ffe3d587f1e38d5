"""How far ends are from their predictions is learned from receipts, and becomes the interval of the next."""

from __future__ import annotations

import time

import pytest

from isthmus.domain.placement import Snapshot
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine.ends import Ends
from isthmus.placement.spreading import spread_of
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until
from tests.placement.test_round import NOW, pool

MANY = 60


async def test_the_interval_is_what_ends_were_off(store: Database, make_engine: EngineMaker) -> None:
    """Wide before; then 60 tasks whose ends were from 1 to 60 s after they were placed, in that order, give an interval of
    80 in 100 of that, in which the last count most."""
    join(store)
    ends = Ends(store)
    snapshot = Snapshot(now=NOW, pools=(pool("null", free_cpus=16),))
    await ends.refresh(time.time())
    assert ends.into(snapshot).pools[0].spread_declared == spread_of((), declared=True)
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), array=Array(size=MANY)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == MANY)
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
    assert told.pools[0].spread == spread_of((), declared=False)
    predicted = 3600.0 + 2.0  # of each: its limit of an hour, and the scheduler's lag
    low, high = (
        predicted + figure * (1.0 + 0.1 * predicted)
        for figure in (told.pools[0].spread_declared.low, told.pools[0].spread_declared.high)
    )
    # Newest first, an end weighs 0.97 of the next: a tenth of the weight is on the newest 3, nine tenths on the newest 45.
    assert high == pytest.approx(58, abs=3)
    assert low == pytest.approx(20, abs=8)
