"""Who changed what about people and sites: written in the transaction of the change, read by administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import NAME, Limit, Since, answer, when
from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.store import tables
from isthmus.trust.access import Administrators

router = Router("audit")


def note(
    connection: sa.Connection, now: float, user: str, action: str, subject: str, body: Mapping[str, Any] | None = None
) -> None:
    """One line of the audit; `body` must hold nothing secret."""
    connection.execute(
        tables.audit.insert().values(
            at=now, user=user, action=action, subject=subject, body=orjson.dumps(body or {}).decode()
        )
    )


@router.route("GET", "/v1/audit", rule=Administrators(), answer=answers.Page[answers.AuditLine])
async def list_audit(
    service: Serving,
    user: Annotated[str | None, Query(pattern=NAME, description="Who did it.")] = None,
    action: Annotated[str | None, Query(pattern=r"^[a-z_.]{1,64}$", description="Such as site.join.")] = None,
    subject: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9._/-]{1,255}$", description="To what it was done.")
    ] = None,
    since: Since = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """What people changed, newest first."""
    a = tables.audit
    query = sa.select(a).order_by(a.c.seq.desc()).limit(limit + 1)
    for column, value in ((a.c.user, user), (a.c.action, action), (a.c.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(a.c.at >= since.timestamp())
    if cursor is not None:
        query = query.where(a.c.seq < int(cursor))
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    items = [
        {
            "seq": row.seq,
            "at": when(row.at),
            "user": row.user,
            "action": row.action,
            "subject": row.subject,
            "body": orjson.loads(row.body),
        }
        for row in rows[:limit]
    ]
    return answer({"items": items, "next_cursor": str(rows[limit - 1].seq) if len(rows) > limit else None})
