"""A store, on each database, and an engine over the null site."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from isthmus.data.directory import DirectoryBlobStore
from isthmus.engine.engine import Engine
from isthmus.engine.settings import EngineSettings
from isthmus.store import schema, tables
from isthmus.store.database import Database

QUICK = EngineSettings(
    poll_interval=0.1,
    describe_interval=0.5,
    round_interval=0.1,
    negative_gap=0.2,
    lease_seconds=10.0,
    hopeless_interval=0.5,
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store with all tables."""
    url = f"sqlite:///{tmp_path}/isthmus.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    schema.prepare(database)
    yield database
    database.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite store with all tables."""
    database = Database(f"sqlite:///{tmp_path}/isthmus.db")
    schema.prepare(database)
    yield database
    database.close()


def join(
    database: Database,
    name: str = "null",
    kind: str = "null",
    config: dict[str, Any] | None = None,
    accounts: dict[str, str] | None = None,
) -> None:
    """Write the row of a site."""
    row = {
        "name": name,
        "kind": kind,
        "mode": "direct",
        "state": "active",
        "config": json.dumps(config or {}),
        "accounts": json.dumps(accounts or {"*": ""}),
        "prices": '{"*": {"cpu_hour": "0.36"}}',
        "created_by": "test",
        "created_at": time.time(),
    }
    database.write_now(lambda connection: connection.execute(tables.sites.insert(), [row]))


EngineMaker = Callable[..., Engine]


@pytest.fixture
async def make_engine(tmp_path: Path) -> AsyncIterator[EngineMaker]:
    """Makes engines that are stopped at the end of the test."""
    made: list[Engine] = []

    def make(database: Database, owner: str = "one", settings: EngineSettings = QUICK) -> Engine:
        blobs = DirectoryBlobStore(tmp_path / "blobs")
        engine = Engine(database, blobs, settings, owner=owner, unseal=lambda sealed, context: sealed)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await engine.stop()


def task(database: Database, task_id: str) -> Any:
    """The row of a task."""
    query = tables.tasks.select().where(tables.tasks.c.id == task_id)
    return database.read_now(lambda connection: connection.execute(query).one())


def count(database: Database, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    """How many rows of a table match."""
    query = sa.select(sa.func.count()).select_from(table).where(*where)
    return database.read_now(lambda connection: int(connection.execute(query).scalar_one()))
