"""Stores on each database for fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.store import schema
from isthmus.store.database import Database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store with all tables."""
    url = f"sqlite:///{tmp_path}/isthmus.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    schema.prepare(database)
    yield database
    database.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Database]:
    """An empty store on PostgreSQL."""
    database = Database(postgres_url)
    schema.prepare(database)
    yield database
    database.close()
