"""The first start: an administrator, a project, and the administrator's token in a file that only its owner reads."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.trust.access import DEFAULT_PROJECT, Role, Scope
from isthmus.trust.tokens import mint, new_secret

ADMIN = "admin"
TOKEN_FILE = "admin-token"  # noqa: S105  (the name of a file)


def prepare(database: Database, state: Path, now: float) -> bool:
    """Make user `admin`, project `default` and STATE/admin-token when the store has no user; whether it did."""
    if database.read_now(_has_users):
        return False
    # The file comes first: a crash in between leaves a file with a token that is stored by the next start.
    path = state / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_text().strip()
    else:
        secret = ""
        os.close(descriptor)
    if not secret:
        secret = new_secret()
        with path.open("w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
    return database.write_now(_make, secret, now)


def _has_users(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(tables.users.c.name).limit(1)).first() is not None


def _make(connection: sa.Connection, secret: str, now: float) -> bool:
    if _has_users(connection):
        return False
    connection.execute(tables.users.insert().values(name=ADMIN, is_admin=True, disabled=False, created_at=now))
    connection.execute(tables.projects.insert().values(name=DEFAULT_PROJECT, created_at=now))
    connection.execute(tables.members.insert().values(project=DEFAULT_PROJECT, user=ADMIN, role=Role.MANAGER))
    mint(
        connection,
        now=now,
        user=ADMIN,
        scopes=[Scope.ADMIN],
        description="made at the first start",
        secret=secret,
    )
    return True
