"""How good the forecasts are, and the carbon of a site's grid by the hour: seen by everybody, brought in by operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import SitePath, answer, read_body, when
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.api.task_rows import show
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.hours import HOUR
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import ahead, carbon
from isthmus.store import tables
from isthmus.trust.access import OfSite, Signed

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


@router.route("GET", "/v1/sites/{site}/ahead", rule=Signed(None), answer=answers.SiteAhead)
async def get_ahead(
    service: Serving,
    site: SitePath,
    hours: Annotated[int, Query(ge=1, le=ahead.AHEAD, description="From this hour on.")] = 24,
) -> Response:
    """Load, price and carbon of a site's pools by the hour ahead, each with its source."""
    now = service.clock()

    def read(connection: sa.Connection) -> dict[str, Any]:
        s = tables.sites.c
        if connection.execute(sa.select(s.name).where(s.name == site)).first() is None:
            raise NotFound(f"There is no site {site!r}.")
        told = ahead.read_ahead(connection, site, now, hours)
        return {
            "site": site,
            "first_at": datetime.fromtimestamp(int(now) // HOUR * HOUR, UTC),
            "pools": [
                {"pool": pool, **{name: series.get(name) for name in ahead.SERIES}} for pool, series in told.items()
            ],
        }

    return answer(await service.database.read(read))


MOST_HOURS = carbon.KEPT_HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonSeries:
    """Hourly means of the grid's carbon intensity, in grams of CO2 equivalent for each kWh, from the hour `first_at` on."""

    __pydantic_config__: ClassVar = FORBID_UNKNOWN

    first_at: datetime
    grams_per_kwh: Annotated[
        tuple[Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=MOST_HOURS),
    ]

    @property
    def first_hour(self) -> int:
        """In hours since 1970; Invalid when the time is no whole hour."""
        seconds = self.first_at.timestamp() if self.first_at.tzinfo is not None else 0.5
        if seconds % HOUR or not 0 <= seconds < 2**37:
            raise Invalid(
                "first_at", "is no whole hour with a time zone.", remedy="Write it like 2026-12-01T13:00:00Z."
            )
        return int(seconds) // HOUR


@router.route("PUT", "/v1/sites/{site}/carbon", rule=OfSite(), body=CarbonSeries, answer=answers.Carbon)
async def bring_carbon(request: Request, service: Serving, caller: Calling, site: SitePath) -> Response:
    """Bring in hours of the grid's carbon intensity, past or ahead; they count where there is one already."""
    series = await read_body(request, CarbonSeries)
    first_hour, grams = await service.database.read(carbon.joined, site, series.first_hour, series.grams_per_kwh)
    following, error = await carbon.forecast(first_hour, grams)
    now = service.clock()

    def store(connection: sa.Connection) -> dict[str, Any]:
        carbon.keep(connection, site, now, first_hour, grams, following, error)
        note(connection, now, caller.user, "site.carbon", site, {"hours": len(series.grams_per_kwh)})
        return _carbon(connection, site)

    return answer(await service.database.write(store))


@router.route("GET", "/v1/sites/{site}/carbon", rule=Signed(None), answer=answers.Carbon)
async def get_carbon(service: Serving, site: SitePath) -> Response:
    """The grid's carbon intensity by the hour, with the forecast of the hours after it; NotFound where none was brought in."""
    return answer(await service.database.read(_carbon, site))


def _carbon(connection: sa.Connection, site: str) -> dict[str, Any]:
    c = tables.carbon_series
    row = connection.execute(sa.select(c).where(c.c.site == site)).one_or_none()
    if row is None:
        raise NotFound(f"No carbon intensity by the hour is known of {site!r}.")
    return {
        "site": site,
        "first_at": datetime.fromtimestamp(row.first_hour * HOUR, UTC),
        "grams_per_kwh": orjson.loads(row.grams),
        "forecast": orjson.loads(row.forecast),
        "error": row.error,
        "updated_at": when(row.updated_at),
    }
