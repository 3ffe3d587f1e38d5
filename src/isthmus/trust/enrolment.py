"""Enrolment of a site's agent: a one-time token, handed over by the site's operator, becomes the agent's own token.

The agent makes its token itself and keeps it before it asks, so that a lost answer costs nothing: the same one-time token
with the same agent token gets the same answer, with any other it is refused. A new agent replaces the one before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa

from isthmus.domain.errors import Conflict, Invalid, Unauthenticated
from isthmus.domain.site import SiteState
from isthmus.store.tables import enrolments, sites, tokens
from isthmus.trust.access import Scope
from isthmus.trust.tokens import PREFIX, hash_of, mint, new_secret

LIFE_SECONDS = 3600.0
_SECRET = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{32,128}")
_REMEDY = "Ask the site's operator for a new one: isthmus site enrol SITE."


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """An agent that was let in: its site and the id of its token."""

    site: str
    token_id: str


def invite(
    connection: sa.Connection, *, now: float, site: str, created_by: str, life_seconds: float = LIFE_SECONDS
) -> str:
    """A fresh one-time token for the agent of a site; Conflict when the site is not served by an agent."""
    row = connection.execute(sa.select(sites.c.mode, sites.c.state).where(sites.c.name == site)).first()
    if row is None or row.mode != "agent" or row.state == SiteState.LEFT:
        raise Conflict(f"The site {site} is not served by an agent.", remedy="Join it with mode=agent.")
    secret = new_secret()
    connection.execute(
        enrolments.insert().values(
            token_hash=hash_of(secret),
            site=site,
            created_by=created_by,
            created_at=now,
            expires_at=now + life_seconds,
        )
    )
    return secret


def enrol(connection: sa.Connection, *, now: float, token: str, agent_token: str) -> Enrolled:
    """Store the agent's token in exchange for the one-time token, once; Unauthenticated when that is unknown, used up by
    another agent or expired."""
    if _SECRET.fullmatch(agent_token) is None:
        raise Invalid("agent_token", "is not a token.", remedy=f"Send {PREFIX} and 32 random bytes in base64url.")
    row = connection.execute(
        sa.select(enrolments).where(enrolments.c.token_hash == hash_of(token)).with_for_update()
    ).first()
    if row is None:
        raise Unauthenticated("The one-time token is not known.", remedy=_REMEDY)
    if row.used_at is not None:
        return _again(connection, row.site, row.used_at, agent_token)
    if row.expires_at <= now:
        raise Unauthenticated("The one-time token has expired.", remedy=_REMEDY)
    site = connection.execute(sa.select(sites.c.mode, sites.c.state).where(sites.c.name == row.site)).first()
    if site is None or site.mode != "agent" or site.state == SiteState.LEFT:
        raise Unauthenticated("The one-time token's site is not served by an agent any more.", remedy=_REMEDY)
    used = connection.execute(
        enrolments.update()
        .where(enrolments.c.token_hash == row.token_hash, enrolments.c.used_at.is_(None))
        .values(used_at=now)
    )
    if used.rowcount != 1:
        raise Unauthenticated("The one-time token was used.", remedy=_REMEDY)
    if connection.execute(sa.select(tokens.c.id).where(tokens.c.secret_hash == hash_of(agent_token))).first():
        raise Conflict("The agent's token is in use.", remedy="Make a fresh one.")
    connection.execute(
        tokens.update().where(tokens.c.site == row.site, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    minted = mint(
        connection,
        now=now,
        user=row.created_by,
        scopes=[Scope.AGENT],
        description=f"agent of {row.site}",
        site=row.site,
        secret=agent_token,
    )
    return Enrolled(site=row.site, token_id=minted.id)


def _again(connection: sa.Connection, site: str, used_at: float, agent_token: str) -> Enrolled:
    found = connection.execute(
        sa.select(tokens.c.id).where(
            tokens.c.secret_hash == hash_of(agent_token),
            tokens.c.site == site,
            tokens.c.created_at == used_at,
            tokens.c.revoked_at.is_(None),
        )
    ).first()
    if found is None:
        raise Unauthenticated("The one-time token was used.", remedy=_REMEDY)
    return Enrolled(site=site, token_id=found.id)
