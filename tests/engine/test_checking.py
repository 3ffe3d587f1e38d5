"""`isthmus check` finds every invariant that is broken, one by one, in a store that is whole otherwise."""

from __future__ import annotations

import sqlalchemy as sa

from isthmus.domain.task import Dependency, TaskSpec
from isthmus.engine.checking import check
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import assert_whole, submit, until

GHOST = "0" * 26


class _Undo(Exception):
    """Ends a transaction without a trace."""


def codes(store: Database, *changes: sa.Executable) -> set[str]:
    """The findings after the changes, which are rolled back."""
    found: set[str] = set()

    def look(connection: sa.Connection) -> None:
        for change in changes:
            connection.execute(change)
        found.update(finding.code for finding in check(connection, _unseal))
        raise _Undo

    try:
        store.write_now(look)
    except _Undo:
        return found
    raise AssertionError("unreachable")


def _unseal(sealed: bytes, context: str) -> bytes:
    if sealed != b"good":
        raise ValueError(context)
    return sealed


async def test_each_broken_invariant_is_found(store: Database, make_engine: EngineMaker) -> None:
    """A rule for each thing that must never happen: breaking it, and nothing else, is found under its name."""
    t, a, o, u = tables.tasks, tables.attempts, tables.outputs, tables.usage_records
    join(store)
    engine = make_engine(store)
    await engine.start()
    [[done], [held], [behind]] = await submit(
        store,
        TaskSpec(name="one", command=("true",)),
        TaskSpec(name="two", command=("true",), hold=True),
        TaskSpec(command=("true",), depends_on=(Dependency(task="two"),)),
    )
    engine.wake()
    await until(lambda: count(store, u) == 1 and count(store, a, a.c.clean_state == "done") == 1)
    await engine.stop()
    assert_whole(store)

    def task(task_id: str, **values: object) -> sa.Update:
        return t.update().where(t.c.id == task_id).values(**values)

    def attempt(**values: object) -> sa.Update:
        return a.update().where(a.c.task_id == done).values(**values)

    copy = sa.select(
        *(sa.literal(GHOST) if c.name == "key" else sa.literal(2) if c.name == "fence" else c for c in a.c)
    )
    second = a.insert().from_select([c.name for c in a.c], copy.where(a.c.task_id == done))
    output = o.insert().values(task_id=held, path="x", attempt=GHOST, sha256="0" * 64, size_bytes=0)
    secret = tables.secrets.insert().values(project="p", name="s", sealed=b"bad", created_by="ada", created_at=0.0)
    live = attempt(state="running")
    broken: dict[str, tuple[sa.Executable, ...]] = {
        "task_without_attempt": (task(held, state="running"),),
        "two_live_attempts": (live, second),
        "live_attempt_of_idle_task": (live,),
        "end_without_reason": (task(done, reason=""),),
        "success_mismatch": (second,),
        "fence_mismatch": (task(done, fence=7),),
        "blocked_by_mismatch": (task(behind, blocked_by=0),),
        "dependency_gone": (t.delete().where(t.c.id == held),),
        "usage_without_attempt": (attempt(usage_state="due"),),
        "usage_missing": (u.delete(),),
        "usage_not_asked": (u.delete(), attempt(usage_state="none")),
        "receipt_missing": (tables.receipts.delete(),),
        "output_without_success": (output,),
        "attempt_at_no_site": (live, tables.sites.update().values(state="left")),
        "secret_does_not_open": (secret,),
    }
    for code, changes in broken.items():
        assert code in codes(store, *changes), code
    assert codes(store, task(done, state="failed")) == {"success_mismatch"}
    assert codes(store, task(held, blocked_by=3)) == {"blocked_by_mismatch"}
    assert codes(store) == set()
