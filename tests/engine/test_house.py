"""What the engine drops, lets go and looks after by itself."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from isthmus.domain.task import Array, TaskSpec
from isthmus.engine.engine import _drop_old
from isthmus.engine.settings import EngineSettings
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, join
from tests.engine.test_life import submit


async def test_a_site_may_be_called_as_a_lease_is(sqlite_store: Database, make_engine: EngineMaker) -> None:
    """Letting go of the transfers' lease does not stop the worker of a site named so; letting go of the site's does."""
    join(sqlite_store, "transfers")
    engine = make_engine(sqlite_store)
    await engine._take_leases()
    await engine.fleet.refresh()
    await engine._take_leases()
    assert {"transfers", "site:transfers"} <= engine._held.keys()
    _, worker = engine._workers["transfers"]
    await engine._let_go("transfers")
    assert not worker.done()
    assert "transfers" in engine._workers
    await engine._let_go("site:transfers")
    assert worker.done()
    assert engine._workers == {}


async def test_what_ended_tasks_saved_is_dropped_by_its_own_rows(sqlite_store: Database) -> None:
    """Not by a look at every task that ever ended."""
    [[live, ended]] = await submit(sqlite_store, TaskSpec(command=("true",), array=Array(size=2)))
    plans: list[str] = []

    def write(connection: sa.Connection) -> list[str]:
        def before(_c: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            if statement.startswith("DELETE FROM checkpoints"):
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.extend(row[3] for row in cursor.fetchall())

        saved = {"path": "state", "attempt": "a", "sha256": "0" * 64, "size_bytes": 1}
        connection.execute(tables.checkpoints.insert(), [{**saved, "task_id": one} for one in (live, ended)])
        mine = tables.tasks.c.id == ended
        connection.execute(tables.tasks.update().where(mine).values(state="succeeded"))
        sa.event.listen(connection, "before_cursor_execute", before)
        _drop_old(connection, time.time(), EngineSettings())
        return list(connection.execute(sa.select(tables.checkpoints.c.task_id)).scalars())

    assert sqlite_store.write_now(write) == [live]
    assert any(step.startswith("SEARCH tasks") and "(id=?)" in step for step in plans), plans
