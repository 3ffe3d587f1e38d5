"""Brings a store to the tables that this version needs."""

from __future__ import annotations

from isthmus.store import tables
from isthmus.store.database import Database


def prepare(database: Database) -> None:
    """Make what is missing; safe to call at every start."""
    tables.metadata.create_all(database.engine, checkfirst=True)
