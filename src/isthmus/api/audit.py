"""Writes down who changed what about people and sites, in the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from isthmus.store import tables


def note(
    connection: sa.Connection, now: float, user: str, action: str, subject: str, body: Mapping[str, Any] | None = None
) -> None:
    """One line of the audit; `body` must hold nothing secret."""
    connection.execute(
        tables.audit.insert().values(
            at=now, user=user, action=action, subject=subject, body=orjson.dumps(body or {}).decode()
        )
    )
