"""Tokens: minted once, stored as a hash, looked up with a short memory, revoked, timed out.

A token is `ist_` and 32 random bytes; with that much chance in it a plain SHA-256 is as good as a slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import orjson
import sqlalchemy as sa

from isthmus.domain.errors import Conflict, NotFound, Unauthenticated
from isthmus.domain.ids import make_id
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.trust.access import Caller, Scope

PREFIX = "ist_"
MEMORY_SECONDS = 1.0  # another process's revocation is seen after this long
_MEMORY_LIMIT = 20_000
_UNKNOWN = "The token is not known, was revoked or has expired."
_REMEDY = "Give `Authorization: Bearer TOKEN` with a token of yours."


def hash_of(secret: str) -> str:
    """What the store keeps of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret(prefix: str = PREFIX) -> str:
    """A fresh token."""
    return prefix + secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new token: its row's id, and the secret, which is nowhere else."""

    id: str
    secret: str


def mint(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    scopes: Collection[Scope],
    description: str = "",
    expires_at: float | None = None,
    site: str = "",
    secret: str | None = None,
) -> Minted:
    """Store a new token of an existing user (an agent's token has a `site` and need not have one)."""
    if not site:
        row = connection.execute(sa.select(tables.users.c.disabled).where(tables.users.c.name == user)).first()
        if row is None:
            raise NotFound(f"There is no user {user!r}.")
        if row.disabled:
            raise Conflict(f"The user {user} is disabled.", remedy="Enable the user first.")
    minted = Minted(id=make_id(int(now * 1000), secrets.token_bytes(10)), secret=secret or new_secret())
    connection.execute(
        tables.tokens.insert().values(
            id=minted.id,
            secret_hash=hash_of(minted.secret),
            user=user,
            scopes=orjson.dumps(sorted(scopes)).decode(),
            description=description,
            created_at=now,
            expires_at=expires_at,
            site=site,
        )
    )
    return minted


def revoke(connection: sa.Connection, *, now: float, token_id: str, user: str | None = None) -> None:
    """End a token (of this user, when one is named) for good; NotFound when there is none, nothing when it had ended."""
    t = tables.tokens
    condition = t.c.id == token_id if user is None else sa.and_(t.c.id == token_id, t.c.user == user)
    row = connection.execute(sa.select(t.c.revoked_at).where(condition)).first()
    if row is None:
        raise NotFound("There is no such token of yours.")
    if row.revoked_at is None:
        connection.execute(t.update().where(condition).values(revoked_at=now))


def look_up(connection: sa.Connection, secret_hash: str, now: float) -> Caller | None:
    """The caller behind a token's hash; None when it is unknown, revoked, expired, or its user disabled."""
    t, u, m, o = tables.tokens, tables.users, tables.members, tables.site_operators
    row = connection.execute(
        sa.select(t.c.id, t.c.user, t.c.scopes, t.c.expires_at, t.c.site, u.c.is_admin, u.c.disabled)
        .select_from(t.outerjoin(u, u.c.name == t.c.user))
        .where(t.c.secret_hash == secret_hash, t.c.revoked_at.is_(None))
    ).first()
    if row is None or row.disabled or (row.disabled is None and not row.site):
        return None
    if row.expires_at is not None and row.expires_at <= now:
        return None
    agent = bool(row.site)
    projects: dict[str, str] = {}
    sites: frozenset[str] = frozenset()
    operates_network = False
    if not agent:
        projects = {
            r.project: r.role for r in connection.execute(sa.select(m.c.project, m.c.role).where(m.c.user == row.user))
        }
        sites = frozenset(connection.scalars(sa.select(o.c.site).where(o.c.user == row.user)))
        n = tables.net_operators.c.user
        operates_network = connection.execute(sa.select(n).where(n == row.user)).first() is not None
    return Caller(
        user=row.user,
        token_id=row.id,
        is_admin=bool(row.is_admin) and not agent,
        scopes=frozenset(Scope(name) for name in orjson.loads(row.scopes)),
        projects=projects,
        sites=sites,
        operates_network=operates_network,
        agent_site=row.site,
        expires_at=row.expires_at,
    )


def secret_of(authorization: str) -> str:
    """The token in an Authorization header: `Bearer TOKEN`, or HTTP basic with the token as password (GA4GH clients);
    empty when there is none."""
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    match scheme.lower():
        case "bearer":
            return secret
        case "basic":
            try:
                return base64.b64decode(secret, validate=True).decode().partition(":")[2]
            except ValueError:
                return ""
        case _:
            return ""


class Gate:
    """Finds the caller of a token; remembers each for `MEMORY_SECONDS`, and which tokens were used, until `flush`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._memory: dict[str, tuple[float, Caller]] = {}
        self._used: dict[str, float] = {}

    async def caller(self, authorization: str | None) -> Caller:
        """The caller of an Authorization header; Unauthenticated otherwise."""
        secret = secret_of(authorization or "")
        if not secret:
            raise Unauthenticated("The call has no token.", remedy=_REMEDY)
        now = self._clock()
        secret_hash = hash_of(secret)
        known = self._memory.get(secret_hash)
        if known is None or not 0 <= now - known[0] < MEMORY_SECONDS:
            found = await self._database.read(look_up, secret_hash, now)
            if found is None:
                self._memory.pop(secret_hash, None)
                raise Unauthenticated(_UNKNOWN, remedy=_REMEDY)
            if len(self._memory) >= _MEMORY_LIMIT:
                self._memory.clear()
            known = self._memory[secret_hash] = (now, found)
        caller = known[1]
        if caller.expires_at is not None and caller.expires_at <= now:
            raise Unauthenticated(_UNKNOWN, remedy=_REMEDY)
        self._used[caller.token_id] = now
        return caller

    def forget(self) -> None:
        """Look everybody up again: tokens, members or operators have changed."""
        self._memory.clear()

    async def flush(self) -> None:
        """Write when tokens were last used."""
        used, self._used = self._used, {}
        if used:
            await self._database.write(_write_used, used)


def _write_used(connection: sa.Connection, used: dict[str, float]) -> None:
    t = tables.tokens
    connection.execute(
        t.update().where(t.c.id == sa.bindparam("b_id")).values(last_used_at=sa.bindparam("b_at")),
        [{"b_id": token_id, "b_at": at} for token_id, at in sorted(used.items())],
    )
