"""Transactions are whole, are run again when the database says so, and give clear errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from isthmus.domain.errors import Corrupt, Refused, Unavailable
from isthmus.store import events, schema, tables
from isthmus.store.database import Database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store with all tables."""
    url = f"sqlite:///{tmp_path}/isthmus.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    schema.prepare(database)
    yield database
    database.close()


def test_the_migrated_store_has_the_tables_of_this_version(store: Database) -> None:
    """The steps lead exactly to the tables in the code; preparing twice changes nothing."""
    assert schema.differences(store) == []
    schema.prepare(store)
    assert schema.differences(store) == []


def test_a_newer_store_is_refused(store: Database) -> None:
    """An old version does not touch a store that a newer one made."""
    store.write_now(lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(Refused, match="9999"):
        schema.prepare(store)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE alembic_version SET version_num = '0000'", "another version: it is at step 0000"),
        ("ALTER TABLE attempts DROP COLUMN observed", "attempts has no observed"),
        ("DROP TABLE idempotency", "there is no table idempotency"),
        ("DROP TABLE alembic_version", "tables that Isthmus did not make"),
    ],
)
def test_the_store_of_another_version_is_refused_in_words(store: Database, change: str, told: str) -> None:
    """Whatever differs is found at the start, not at the first query that needs it."""
    store.write_now(lambda connection: connection.execute(sa.text(change)))
    with pytest.raises(Refused, match=told):
        schema.prepare(store)


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    """It is said so, with what to do."""
    (tmp_path / "isthmus.db").write_text("no database at all " * 100)
    database = Database(f"sqlite:///{tmp_path}/isthmus.db")
    with pytest.raises(Corrupt, match="no database"):
        schema.prepare(database)
    database.close()


def test_a_failed_transaction_leaves_nothing(store: Database) -> None:
    """An error in the middle undoes everything before it."""

    def half(connection: sa.Connection) -> None:
        connection.execute(tables.projects.insert().values(name="x", created_at=0.0))
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="middle"):
        store.write_now(half)
    assert store.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(tables.projects)).scalar()) == 0


def test_a_passing_failure_is_tried_again(store: Database) -> None:
    """A transaction that the database refused for the moment is run again from its start."""
    tries = 0

    def work(connection: sa.Connection) -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            original: Exception
            if store.is_sqlite:
                import sqlite3

                original = sqlite3.OperationalError("database is locked")
            else:
                original = psycopg.errors.SerializationFailure("could not serialize access")
            raise sa.exc.OperationalError("UPDATE", {}, original)
        return tries

    assert store.write_now(work) == 3


def test_a_lasting_failure_is_unavailable(store: Database) -> None:
    """A database that does not work gives Unavailable, with something to do."""

    def work(connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("UPDATE", {}, Exception("disk I/O error"))

    with pytest.raises(Unavailable) as caught:
        store.write_now(work)
    assert caught.value.remedy


def test_a_reader_of_events_misses_none(store: Database) -> None:
    """With many writers at once, a reader that goes on from the last number it saw gets every event once."""
    writers, each = 6, 30

    def write(number: int) -> None:
        for index in range(each):
            store.write_now(
                lambda c, index=index: events.add(c, [events.event(0.0, "task.test", task_id=f"{number}-{index}")])
            )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    last = 0
    while len(seen) < writers * each:
        writing = any(thread.is_alive() for thread in threads)
        query = tables.events.select().where(tables.events.c.seq > last).order_by(tables.events.c.seq)
        rows = store.read_now(lambda c, query=query: c.execute(query).all())
        seen += [row.task_id for row in rows]
        last = rows[-1].seq if rows else last
        if not writing and not rows:
            break
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(seen)) == writers * each


def test_many_writers_count_right(store: Database) -> None:
    """Concurrent transactions on one row do not lose an update."""
    store.write_now(lambda c: c.execute(tables.leases.insert().values(name="n", owner="", token=0, until=0.0)))

    def step(connection: sa.Connection) -> None:
        value = connection.execute(
            sa.select(tables.leases.c.token).where(tables.leases.c.name == "n").with_for_update()
        ).scalar_one()
        connection.execute(tables.leases.update().where(tables.leases.c.name == "n").values(token=value + 1))

    def add() -> None:
        for _ in range(20):
            store.write_now(step)

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_now(lambda c: c.execute(sa.select(tables.leases.c.token)).scalar()) == 100
