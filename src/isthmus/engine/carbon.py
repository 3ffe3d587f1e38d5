"""The carbon intensity of sites' grids by the hour: series that operators bring in, forecast a day further than they go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

import orjson
import sqlalchemy as sa

from isthmus.domain.hours import DAY, WEEK, Hours
from isthmus.store import tables

KEPT_HOURS = 60 * DAY


def carbon_hours(connection: sa.Connection) -> dict[str, Hours]:
    """The series of each site that has one, forecast included."""
    c = tables.carbon_series.c
    rows = connection.execute(sa.select(c.site, c.first_hour, c.grams, c.forecast))
    return {row.site: _hours(row.first_hour, row.grams, row.forecast) for row in rows}


@lru_cache(maxsize=1024)
def _hours(first_hour: int, grams: str, forecast: str) -> Hours:
    values = [*orjson.loads(grams), *orjson.loads(forecast)]
    return Hours(tuple(Decimal(str(value)) for value in values), first_hour)


def joined(connection: sa.Connection, site: str, first_hour: int, grams: Sequence[float]) -> tuple[int, list[float]]:
    """The series of the site with new hours, which count where both have one; a gap is filled with the last value before it, and of
    a longer series the newest 60 days stay."""
    c = tables.carbon_series.c
    row = connection.execute(sa.select(c.first_hour, c.grams).where(c.site == site)).one_or_none()
    hours = dict(enumerate(orjson.loads(row.grams), row.first_hour)) if row is not None else {}
    hours |= dict(enumerate(grams, first_hour))
    last = max(hours)
    start = max(min(hours), last + 1 - KEPT_HOURS)
    before = hours[min(hours)]
    values: list[float] = []
    for hour in range(start, last + 1):
        before = float(hours.get(hour, before))
        values.append(before)
    return start, values


def keep(
    connection: sa.Connection,
    site: str,
    now: float,
    first_hour: int,
    grams: Sequence[float],
    ahead: Sequence[float],
    error: float | None,
) -> None:
    """Store a whole series with its forecast."""
    c = tables.carbon_series
    connection.execute(c.delete().where(c.c.site == site))
    values = {"grams": orjson.dumps(list(grams)).decode(), "forecast": orjson.dumps(list(ahead)).decode()}
    connection.execute(c.insert().values(site=site, first_hour=first_hour, error=error, updated_at=now, **values))


async def forecast(first_hour: int, grams: Sequence[float]) -> tuple[list[float], float | None]:
    """The day after the series, and the mean relative error that such forecasts had on it; nothing for less than eight days, or
    without the library."""
    if len(grams) <= WEEK + DAY:
        return [], None
    return await asyncio.to_thread(_forecast, first_hour, list(grams))


def _forecast(first_hour: int, grams: list[float]) -> tuple[list[float], float | None]:
    try:
        from isthmus.forecasting.hourly import HourlyModel

        model = HourlyModel()
        for hour, value in enumerate(grams, first_hour):
            model.observe(hour, value)
            if model.due:
                model.train()
        found = [model.predict(ahead) for ahead in range(1, DAY + 1)]
    except (ImportError, OSError):
        return [], None
    return [round(one.point, 3) for one in found], found[0].error
