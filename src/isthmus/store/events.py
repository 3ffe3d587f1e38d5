"""Adds events in the transaction of the change they tell of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.store import tables
from isthmus.store.database import number_events_in_commit_order


def event(
    at: float,
    kind: str,
    *,
    project: str = "",
    task_id: str = "",
    attempt: str = "",
    site: str = "",
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One row for `add`; `body` must hold nothing secret."""
    return {
        "at": at,
        "kind": kind,
        "project": project,
        "task_id": task_id,
        "attempt": attempt,
        "site": site,
        "body": orjson.dumps(body).decode() if body else "{}",
    }


def add(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store events, numbered so that a reader who goes on from the last number it saw misses none."""
    if rows:
        number_events_in_commit_order(connection)
        connection.execute(tables.events.insert(), list(rows))
