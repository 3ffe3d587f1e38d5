"""One's own tokens, and who one is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from fastapi import Path, Query, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import ID, IdempotencyKey, Limit, answer, fingerprint, made, nothing, once, read_body, when
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.errors import Forbidden, Invalid
from isthmus.domain.ids import is_name
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.store import tables
from isthmus.trust.access import Scope, Signed
from isthmus.trust.tokens import mint, revoke

_LONGEST = int(timedelta(days=3660).total_seconds())
_MINTABLE = [scope.value for scope in Scope if scope is not Scope.AGENT]
router = Router("people")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokenRequest:
    """A token to make; without `expires_in_seconds` it lasts until it is revoked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    scopes: Annotated[tuple[Scope, ...], Field(json_schema_extra={"minItems": 1, "items": {"enum": _MINTABLE}})]
    description: Annotated[str, Field(json_schema_extra={"maxLength": 1000, "pattern": "^[^\\u0000]*$"})] = ""
    expires_in_seconds: Annotated[int | None, Field(json_schema_extra={"minimum": 1, "maximum": _LONGEST})] = None
    user: Annotated[str, Field(json_schema_extra={"pattern": "^([a-z0-9][a-z0-9._-]{0,62})?$"})] = ""

    def __post_init__(self) -> None:
        if not self.scopes:
            raise Invalid("scopes", "is empty.", remedy="Give at least one scope.")
        if Scope.AGENT in self.scopes:
            raise Invalid("scopes", "cannot hold agent.", remedy="Enrol an agent: `isthmus site enrol SITE`.")
        if len(self.description) > 1000 or "\0" in self.description:
            raise Invalid("description", "cannot be kept.", remedy="Give at most 1000 characters, no NUL.")
        if self.expires_in_seconds is not None and not 1 <= self.expires_in_seconds <= _LONGEST:
            raise Invalid("expires_in_seconds", f"is {self.expires_in_seconds}.", remedy=f"Give 1 to {_LONGEST}.")
        if self.user and not is_name(self.user):
            raise Invalid("user", f"{self.user[:80]!r} is not a name.", remedy="Name a user.")


def _shown(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "user": row.user,
        "scopes": orjson.loads(row.scopes),
        "description": row.description,
        "created_at": when(row.created_at),
        "expires_at": when(row.expires_at),
        "revoked_at": when(row.revoked_at),
        "last_used_at": when(row.last_used_at),
    }


@router.route("GET", "/v1/me", rule=Signed(None), answer=answers.Me)
async def who_am_i(caller: Calling) -> Response:
    """The caller, as the token says."""
    return answer(
        {
            "user": caller.user,
            "is_admin": caller.rules_all,
            "scopes": sorted(caller.scopes),
            "projects": dict(caller.projects),
            "sites": sorted(caller.sites),
        }
    )


@router.route("GET", "/v1/tokens", rule=Signed(None), answer=answers.Page[answers.Token])
async def list_tokens(
    service: Serving,
    caller: Calling,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """One's own tokens, newest first, without their secrets."""
    t = tables.tokens
    query = sa.select(t).where(t.c.user == caller.user, t.c.site == "").order_by(t.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(t.c.id < cursor)
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    following = rows[limit - 1].id if len(rows) > limit else None
    return answer({"items": [_shown(row) for row in rows[:limit]], "next_cursor": following})


@router.route(
    "POST",
    "/v1/tokens",
    rule=Signed(None),
    body=NewTokenRequest,
    answer=answers.NewToken,
    status=201,
    errors=[404, 409],
)
async def create_token(request: Request, service: Serving, caller: Calling, key: IdempotencyKey = None) -> Response:
    """Make a token; its secret is in this answer and nowhere else."""
    new = await read_body(request, NewTokenRequest)
    if new.user and new.user != caller.user and not caller.rules_all:
        raise Forbidden("Only administrators make tokens for others.")
    for scope in new.scopes:
        caller.need(scope)
    request_hash = await fingerprint(request)
    now = service.clock()
    expires_at = None if new.expires_in_seconds is None else now + new.expires_in_seconds
    if caller.expires_at is not None and new.user in ("", caller.user):
        expires_at = min(expires_at or caller.expires_at, caller.expires_at)  # a token does not outlive its maker

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            minted = mint(
                connection,
                now=now,
                user=new.user or caller.user,
                scopes=set(new.scopes),
                description=new.description,
                expires_at=expires_at,
            )
            note(connection, now, caller.user, "token.create", minted.id, {"user": new.user or caller.user})
            row = connection.execute(sa.select(tables.tokens).where(tables.tokens.c.id == minted.id)).one()
            return {**_shown(row), "token": minted.secret}

        return once(
            connection,
            now=now,
            user=caller.user,
            key=key,
            request_hash=request_hash,
            make=make,
            sealer=service.sealer,
        )

    return made(await service.database.write(store))


@router.route("DELETE", "/v1/tokens/{token_id}", rule=Signed(None), status=204)
async def revoke_token(service: Serving, caller: Calling, token_id: Annotated[str, Path(pattern=ID)]) -> Response:
    """Revoke a token of one's own (any, for administrators)."""
    now = service.clock()
    owner = None if caller.rules_all else caller.user

    def change(connection: sa.Connection) -> None:
        revoke(connection, now=now, token_id=token_id, user=owner)
        note(connection, now, caller.user, "token.revoke", token_id)

    await service.database.write(change)
    service.gate.forget()
    return nothing()
