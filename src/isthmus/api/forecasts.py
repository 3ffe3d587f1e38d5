"""How good the forecasts are: what each model publishes, for everybody who is signed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import Response

from isthmus.api import answers
from isthmus.api.body import SitePath, answer, when
from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.api.task_rows import show
from isthmus.domain.errors import NotFound
from isthmus.store import tables
from isthmus.trust.access import Signed

router = Router("forecasts")
_FIELDS = (
    "kind",
    "site",
    "pool",
    "source",
    "outcomes",
    "accuracy",
    "error_seconds",
    "coverage_80",
    "coverage_90",
    "coverage_95",
    "updated_at",
)


@router.route("GET", "/v1/sites/{site}/forecasts", rule=Signed(None), answer=answers.Page[answers.ModelOfPool])
async def list_forecasts(service: Serving, site: SitePath) -> Response:
    """How good the forecasts of run times and waits were at a site's pools in the last 30 days; all at once."""
    rows = await service.database.read(_models, site)
    return answer({"items": [show(row, _FIELDS) | {"since": when(row.since)} for row in rows], "next_cursor": None})


def _models(connection: sa.Connection, site: str) -> Sequence[sa.Row[Any]]:
    m, s = tables.models, tables.sites
    if connection.execute(sa.select(s.c.name).where(s.c.name == site)).first() is None:
        raise NotFound(f"There is no site {site!r}.")
    return connection.execute(sa.select(m).where(m.c.site == site).order_by(m.c.kind, m.c.pool, m.c.source)).all()
