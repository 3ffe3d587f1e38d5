"""Tokens and first start, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from isthmus.domain.errors import Conflict, NotFound, Unauthenticated
from isthmus.store import schema, tables
from isthmus.store.database import Database
from isthmus.trust import first
from isthmus.trust.access import Scope
from isthmus.trust.tokens import MEMORY_SECONDS, Gate, hash_of, look_up, mint, revoke

NOW = 1_800_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty store."""
    opened = Database(f"sqlite:///{tmp_path}/store.db")
    schema.prepare(opened)
    yield opened
    opened.close()


def test_the_first_start_makes_an_administrator_once(database: Database, tmp_path: Path) -> None:
    """The token in the file works, only its owner reads it, and a second start changes nothing."""
    assert first.prepare(database, tmp_path, NOW)
    path = tmp_path / first.TOKEN_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text().strip()
    caller = database.read_now(look_up, hash_of(secret), NOW)
    assert caller is not None
    assert (caller.user, caller.rules_all, dict(caller.projects)) == ("admin", True, {"default": "manager"})
    assert not first.prepare(database, tmp_path, NOW + 1)
    assert path.read_text().strip() == secret


def test_a_first_start_that_broke_off_is_completed(database: Database, tmp_path: Path) -> None:
    """A token file without a stored token (killed in between) is taken up by the next start."""
    (tmp_path / first.TOKEN_FILE).write_text("ist_left-behind\n")
    assert first.prepare(database, tmp_path, NOW)
    assert database.read_now(look_up, hash_of("ist_left-behind"), NOW) is not None


def test_only_the_hash_of_a_token_is_stored(database: Database, tmp_path: Path) -> None:
    """The secret is in no column of the row."""
    first.prepare(database, tmp_path, NOW)
    secret = database.write_now(mint, now=NOW, user="admin", scopes=[Scope.TASKS_READ]).secret
    assert secret.startswith("ist_")
    rows = database.read_now(lambda connection: connection.execute(sa.select(tables.tokens)).all())
    assert not any(secret in str(value) for row in rows for value in row)
    assert hash_of(secret) in {row.secret_hash for row in rows}


def test_disabled_and_unknown_users_get_no_token(database: Database, tmp_path: Path) -> None:
    """Minting for nobody or for a disabled user is refused, and a disabled user's tokens stop."""
    first.prepare(database, tmp_path, NOW)
    secret = (tmp_path / first.TOKEN_FILE).read_text().strip()
    with pytest.raises(NotFound):
        database.write_now(mint, now=NOW, user="nobody", scopes=[Scope.TASKS_READ])
    database.write_now(lambda connection: connection.execute(tables.users.update().values(disabled=True)) and None)
    with pytest.raises(Conflict):
        database.write_now(mint, now=NOW, user="admin", scopes=[Scope.TASKS_READ])
    assert database.read_now(look_up, hash_of(secret), NOW) is None


async def test_expiry_and_revocation_close_the_gate(database: Database, tmp_path: Path) -> None:
    """A token stops at its time to the second, though it is remembered; a revoked one within the memory's length."""
    first.prepare(database, tmp_path, NOW)
    now = NOW
    gate = Gate(database, lambda: now)
    short = database.write_now(mint, now=NOW, user="admin", scopes=[Scope.TASKS_READ], expires_at=NOW + 0.5)
    long = database.write_now(mint, now=NOW, user="admin", scopes=[Scope.TASKS_READ])
    assert (await gate.caller(f"Bearer {short.secret}")).scopes == {Scope.TASKS_READ}
    await gate.caller(f"bearer {long.secret}")
    now = NOW + 0.5
    with pytest.raises(Unauthenticated):
        await gate.caller(f"Bearer {short.secret}")
    database.write_now(revoke, now=now, token_id=long.id)
    now = NOW + MEMORY_SECONDS
    with pytest.raises(Unauthenticated):
        await gate.caller(f"Bearer {long.secret}")
    for header in (None, "", "Bearer", "Bearer ", f"Basic {long.secret}", long.secret, "Bearer ist_wrong"):
        with pytest.raises(Unauthenticated):
            await gate.caller(header)


async def test_last_use_is_written_by_flush(database: Database, tmp_path: Path) -> None:
    """Calls write nothing; the flush writes the time of the last one."""
    first.prepare(database, tmp_path, NOW)
    secret = (tmp_path / first.TOKEN_FILE).read_text().strip()
    gate = Gate(database, lambda: NOW + 7)
    await asyncio.gather(*(gate.caller(f"Bearer {secret}") for _ in range(5)))
    query = sa.select(tables.tokens.c.last_used_at)
    assert database.read_now(lambda connection: connection.scalar(query)) is None
    await gate.flush()
    assert database.read_now(lambda connection: connection.scalar(query)) == NOW + 7
