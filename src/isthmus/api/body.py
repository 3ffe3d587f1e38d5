"""Reads requests and writes answers: JSON straight into and out of typed values, once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import orjson
import sqlalchemy as sa
from fastapi import Header, Path, Query, Request, Response
from pydantic import BeforeValidator, ValidationError
from sqlalchemy.dialects import postgresql, sqlite

from isthmus.api.problems import InvalidBody, UnsupportedMediaType, fields_of
from isthmus.domain.errors import Conflict, Invalid
from isthmus.store import tables
from isthmus.store.documents import adapter
from isthmus.trust.sealing import Sealer

T = TypeVar("T")

NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"
ID = "^[0-7][0-9a-hjkmnp-tv-z]{25}$"
SHA256 = "^[0-9a-f]{64}$"
IDEMPOTENCY_SECONDS = 86_400.0
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")

TaskIdPath = Annotated[str, Path(pattern=ID)]
SitePath = Annotated[str, Path(pattern=NAME)]
ProjectPath = Annotated[str, Path(pattern=NAME)]
UserPath = Annotated[str, Path(pattern=NAME)]
HashPath = Annotated[str, Path(pattern=SHA256)]
InProjectQuery = Annotated[str, Query(alias="project", pattern=NAME, description="The project; it must be yours.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many items.")]
Cursor = Annotated[
    str | None, Query(max_length=128, pattern=r"^[A-Za-z0-9._:~-]+$", description="The last answer's `next_cursor`.")
]


def _moment(value: object) -> object:
    if isinstance(value, str) and _MOMENT.fullmatch(value) is None:
        raise Invalid("", f"{value[:40]!r} is no time with a zone.", remedy="Write it like 2026-11-26T18:00:00Z.")
    return value


Since = Annotated[datetime | None, BeforeValidator(_moment), Query(description="With zone, as RFC 3339 has it.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[!-~]+$", description="Makes a repeat safe."
    ),
]


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON; datetimes with Z, dataclasses as objects."""
    return Response(
        orjson.dumps(content, option=orjson.OPT_UTC_Z),
        status_code=status,
        media_type="application/json",
        headers=dict(headers) if headers else None,
    )


def nothing() -> Response:
    """204."""
    return Response(status_code=204)


def when(seconds: float | None) -> datetime | None:
    """A stored time as an answer has it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


async def read_body(request: Request, kind: type[T]) -> T:
    """The request's JSON as a value of `kind`; every wrong field is named with its full path."""
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaType(f"The body is {media[:80]}.", remedy="Send application/json.")
    raw = await request.body()
    try:
        value: T = adapter(kind).validate_json(raw, strict=True)
    except ValidationError as error:
        raise InvalidBody(fields_of(error)) from None
    return value


async def fingerprint(request: Request) -> str:
    """The hash by which a repeated request is known to be the same."""
    digest = hashlib.sha256()
    for part in (request.method, request.url.path, "&".join(sorted(request.url.query.split("&")))):
        digest.update(part.encode() + b"\0")
    digest.update(await request.body())
    return digest.hexdigest()


def once(
    connection: sa.Connection,
    *,
    now: float,
    user: str,
    key: str | None,
    request_hash: str,
    make: Callable[[], Any],
    sealer: Sealer | None = None,
) -> bytes:
    """The JSON of what `make` returns, made once for each key of a user, in the transaction of `connection`.

    A repeat of the same request gets the stored answer; another request under the key is a Conflict. With a `sealer` the
    stored answer is sealed, for answers that hold a secret.
    """
    if key is None:
        return orjson.dumps(make(), option=orjson.OPT_UTC_Z)
    t = tables.idempotency
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # Whoever inserts first makes it; on PostgreSQL a second one waits here for the first to commit.
    fresh = connection.execute(
        insert(t)
        .values(user=user, key=key, request_hash=request_hash, answer="", created_at=now)
        .on_conflict_do_nothing()
        .returning(t.c.key)
    ).first()
    context = f"answer:{user}/{key}"
    if fresh is None:
        row = connection.execute(sa.select(t).where(t.c.user == user, t.c.key == key)).one()
        if now - row.created_at > IDEMPOTENCY_SECONDS:
            connection.execute(t.delete().where(t.c.user == user, t.c.key == key))
            return once(connection, now=now, user=user, key=key, request_hash=request_hash, make=make, sealer=sealer)
        if row.request_hash != request_hash:
            raise Conflict(
                "The Idempotency-Key was used for another request.",
                remedy="Use a fresh key for a fresh request.",
                code="idempotency_conflict",
            )
        if sealer is not None:
            return sealer.unseal(bytes.fromhex(row.answer), context)
        stored: str = row.answer
        return stored.encode()
    body = orjson.dumps(make(), option=orjson.OPT_UTC_Z)
    kept = body.decode() if sealer is None else sealer.seal(body, context).hex()
    connection.execute(t.update().where(t.c.user == user, t.c.key == key).values(answer=kept))
    return body


def made(body: bytes) -> Response:
    """201 with JSON that is dumped already."""
    return Response(body, status_code=201, media_type="application/json")
