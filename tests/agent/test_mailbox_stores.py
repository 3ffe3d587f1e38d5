"""The mailbox between two control planes, on both stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from isthmus.domain.errors import NotFound
from isthmus.engine.clock import SystemClock
from isthmus.engine.mailbox import Mailbox, MailboxSettings
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.trust.sealing import Sealer


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A store with the agent site `alpha`."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    store = Database(url)
    tables.metadata.create_all(store.engine)

    def join(connection: sa.Connection) -> None:
        row = {"name": "alpha", "kind": "local", "mode": "agent", "state": "active", "created_at": 0.0}
        connection.execute(tables.sites.insert().values(**row, config="{}", accounts="{}", created_by="admin"))

    store.write_now(join)
    yield store
    store.close()


async def test_a_call_is_given_again_until_it_is_held_and_answered_once(database: Database, tmp_path: Path) -> None:
    """The agent that lost it gets it again at once, another agent only after the lease and with a warning; what is held is
    not given again; an answer at the other control plane reaches the caller; a second one changes nothing."""
    sealer = Sealer.open(tmp_path / "key")
    asking = Mailbox(database, sealer, SystemClock())
    serving = Mailbox(database, sealer, SystemClock(), MailboxSettings(lease_seconds=3600.0))
    hasty = Mailbox(database, sealer, SystemClock(), MailboxSettings(lease_seconds=-1.0))
    try:
        assert await serving.take("alpha", "one", holding=[], limit=8, wait=0.0) == []
        asked = asyncio.create_task(asking.ask("alpha", "describe", b"{}", 60.0))
        (call,) = await serving.take("alpha", "one", holding=[], limit=8, wait=30.0)
        assert (call.method, call.arguments, call.other_agent) == ("describe", b"{}", False)
        assert await serving.take("alpha", "one", holding=[], limit=8, wait=0.0) == [call]
        assert await serving.take("alpha", "one", holding=[call.id], limit=8, wait=0.0) == []
        assert await serving.take("alpha", "two", holding=[], limit=8, wait=0.0) == []
        (again,) = await hasty.take("alpha", "two", holding=[], limit=8, wait=0.0)
        assert (again.id, again.other_agent) == (call.id, True)
        with pytest.raises(NotFound):
            await serving.answer("beta", call.id, "{}")
        assert await serving.answer("alpha", call.id, '{"result":1}')
        async with asyncio.timeout(60):
            assert await asked == '{"result":1}'
        await serving.answer("alpha", call.id, '{"result":2}')
        assert not await serving.answer("alpha", "0" * 26, "{}")
    finally:
        for mailbox in (asking, serving, hasty):
            await mailbox.close()
    left = database.read_now(
        lambda c: c.execute(sa.select(sa.func.count()).select_from(tables.agent_calls)).scalar_one()
    )
    assert left == 0
