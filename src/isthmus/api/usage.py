"""Usage records with charges, for those whose project or site it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query, Response

from isthmus.api import answers
from isthmus.api.body import NAME, Limit, Since, SitePath, answer
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.api.task_rows import USAGE_SHOWN, show, usage_query
from isthmus.store import tables
from isthmus.trust.access import OfSite, Scope, Signed

router = Router("usage")
UsageCursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,12}(\.[0-9]{1,7})?~[0-7][0-9a-hjkmnp-tv-z]{25}$")]


@router.route("GET", "/v1/usage", rule=Signed(Scope.TASKS_READ), answer=answers.Page[answers.Usage])
async def list_usage(
    service: Serving,
    caller: Calling,
    project: Annotated[str | None, Query(pattern=NAME)] = None,
    site: Annotated[str | None, Query(pattern=NAME)] = None,
    user: Annotated[str | None, Query(pattern=NAME)] = None,
    since: Since = None,
    limit: Limit = 100,
    cursor: UsageCursor = None,
) -> Response:
    """Records of one's projects, newest first."""
    if project is not None:
        caller.need_project(project)
    projects = [project] if project is not None else None if caller.rules_all else sorted(caller.projects)
    return await _page(service, projects, site, user, since, limit, cursor)


@router.route("GET", "/v1/sites/{site}/usage", rule=OfSite(), answer=answers.Page[answers.Usage])
async def list_site_usage(
    service: Serving,
    site: SitePath,
    user: Annotated[str | None, Query(pattern=NAME)] = None,
    since: Since = None,
    limit: Limit = 100,
    cursor: UsageCursor = None,
) -> Response:
    """Records of a site, whoever used it, newest first."""
    return await _page(service, None, site, user, since, limit, cursor)


async def _page(
    service: Service,
    projects: Sequence[str] | None,
    site: str | None,
    user: str | None,
    since: datetime | None,
    limit: int,
    cursor: str | None,
) -> Response:
    u = tables.usage_records
    conditions: list[sa.ColumnElement[bool]] = []
    if projects is not None:
        conditions.append(u.c.project.in_(projects))
    if site is not None:
        conditions.append(u.c.site == site)
    if user is not None:
        conditions.append(u.c.user == user)
    if since is not None:
        conditions.append(u.c.created_at >= since.timestamp())
    if cursor is not None:
        at, _, key = cursor.partition("~")
        conditions.append(sa.tuple_(u.c.created_at, u.c.attempt) < sa.tuple_(sa.literal(float(at)), sa.literal(key)))
    query = usage_query().where(*conditions).order_by(u.c.created_at.desc(), u.c.attempt.desc()).limit(limit + 1)
    rows: Sequence[sa.Row[Any]] = await service.database.read(lambda connection: connection.execute(query).all())
    last = rows[limit - 1] if len(rows) > limit else None
    return answer(
        {
            "items": [show(row, USAGE_SHOWN) for row in rows[:limit]],
            "next_cursor": None if last is None else f"{last.created_at!r}~{last.attempt}",
        }
    )
