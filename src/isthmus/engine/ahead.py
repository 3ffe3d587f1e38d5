"""Each pool's load, price and carbon by the hour: noted at every look at a site, forecast two days ahead once an hour.

An hour's load is the mean over its looks of the part of the pool's processors that cannot be had; price and carbon are noted where
the tariff has one figure for all hours, which an operator may change as it goes. Where a timetable or a series is there, it counts.
What is noted is kept for eight weeks, and the models are made again from it after a start. Shown to people; no round reads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from isthmus.domain.hours import DAY, HOUR, WEEK, Hours
from isthmus.domain.site import Pool
from isthmus.engine.accounting import hours_of
from isthmus.engine.leases import Lease, guard
from isthmus.store import tables
from isthmus.store.database import Database

if TYPE_CHECKING:
    from isthmus.forecasting.hourly import HourlyModel

log = logging.getLogger(__name__)
AHEAD = 2 * DAY
KEPT_HOURS = 8 * WEEK
LONGEST_GAP = DAY  # hours that nobody looked at have the value before them; after more of them a model begins anew
TOLD = (1, 6, 24, 48)  # hours ahead of which the error is published
SERIES = ("load", "price", "carbon")
_TARIFF = {"load": "load", "price": "cpu_hour", "carbon": "carbon_grams_per_kwh"}
Key = tuple[str, str, str]


def note_hour(
    connection: sa.Connection,
    site: str,
    now: float,
    pools: Sequence[Pool],
    own_cpus: Mapping[str, int],
    prices: Mapping[str, Mapping[str, Any]],
) -> None:
    """One look at a site, in the transaction that stores it. `own_cpus` run for us; of a pool that says nothing else they are its load."""
    h = tables.site_hours
    hour = int(now) // HOUR
    for pool in pools:
        busy = own_cpus.get(pool.name, 0) if pool.free_cpus is None else pool.cpus - pool.free_cpus
        load = min(1.0, max(0.0, busy / max(1, pool.cpus)))
        tariff = prices.get(pool.name, prices.get("*", {}))
        present = {name: _present(tariff, _TARIFF[name]) for name in ("price", "carbon")}
        this = sa.and_(h.c.site == site, h.c.pool == pool.name, h.c.hour == hour)
        more = h.update().where(this).values(looks=h.c.looks + 1, load=h.c.load + load, **present)
        if connection.execute(more).rowcount == 0:
            connection.execute(h.insert().values(site=site, pool=pool.name, hour=hour, looks=1, load=load, **present))
            connection.execute(h.delete().where(h.c.site == site, h.c.hour <= hour - KEPT_HOURS))


def _present(tariff: Mapping[str, Any], name: str) -> float | None:
    """The figure of now where there is only one for all hours."""
    hours = hours_of(tariff, name) if name in tariff else None
    return float(hours.values[0]) if hours is not None and len(hours.values) == 1 else None


class Ahead:
    """`refresh` takes in the hours that are over; whoever places calls it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._models: dict[Key, tuple[HourlyModel, int]] = {}  # with the last hour that it knows
        self._until = 0
        self._absent = False

    async def refresh(self, now: float, lease: Lease) -> int:
        """Forecast every series anew of which an hour has ended; answers how many. At most once an hour there is something to do."""
        hour = int(now) // HOUR
        if self._absent or hour == self._until:
            return 0
        count = 0
        for site, pool in await self._database.read(_pools, hour):
            rows = await self._database.read(_hours, site, pool, hour)
            for name in SERIES:
                values = [(row.hour, row.load / row.looks if name == "load" else getattr(row, name)) for row in rows]
                seen = [(at, float(value)) for at, value in values if value is not None]
                if not seen or (name != "load" and len({value for _, value in seen}) == 1):
                    continue  # what never changed is what is declared
                try:
                    found = await asyncio.to_thread(self._forecast, (site, pool, name), seen)
                except (ImportError, OSError) as error:
                    log.warning("load, price and carbon are not forecast: %s", error)
                    self._absent = True
                    return count
                await self._database.write(_keep, now, lease, (site, pool, name), *found)
                count += 1
        self._until = hour
        return count

    def _forecast(
        self, key: Key, seen: Sequence[tuple[int, float]]
    ) -> tuple[int, list[dict[str, Any]], dict[str, float]]:
        """(the first hour ahead, quantiles and source of each hour, the error by hours ahead)."""
        from isthmus.forecasting.hourly import HourlyModel

        model, last = self._models.get(key, (None, 0))
        for at, value in seen:
            if at <= last and model is not None:
                continue
            if model is None or at - last > LONGEST_GAP:
                is_load = key[2] == "load"
                model = HourlyModel(
                    horizon=AHEAD, start="mean" if is_load else "yesterday", highest=1.0 if is_load else None
                )
                before, last = value, at - 1
            for hour in range(last + 1, at):
                model.observe(hour, before)
            model.observe(at, value)
            if model.due:
                model.train()
            before, last = value, at
        assert model is not None
        self._models[key] = model, last
        ahead = [model.predict(one) for one in range(1, AHEAD + 1)]
        values = [{"p10": f.p10, "p50": f.p50, "p90": f.p90, "source": f.source.value} for f in ahead]
        errors = {str(one): off for one in TOLD if (off := model.off(one)) is not None}
        return last + 1, values, errors


def _pools(connection: sa.Connection, hour: int) -> list[tuple[str, str]]:
    h = tables.site_hours.c
    recent = sa.select(h.site, h.pool).where(h.hour >= hour - 2).distinct().order_by(h.site, h.pool)
    return [(row.site, row.pool) for row in connection.execute(recent)]


def _hours(connection: sa.Connection, site: str, pool: str, hour: int) -> list[Any]:
    h = tables.site_hours.c
    query = sa.select(h.hour, h.looks, h.load, h.price, h.carbon).where(h.site == site, h.pool == pool, h.hour < hour)
    return list(connection.execute(query.order_by(h.hour)))


def _keep(
    connection: sa.Connection,
    now: float,
    lease: Lease,
    key: Key,
    first_hour: int,
    values: Sequence[Mapping[str, Any]],
    errors: Mapping[str, float],
) -> None:
    guard(connection, lease)
    t = tables.site_ahead
    site, pool, what = key
    connection.execute(t.delete().where(t.c.site == site, t.c.pool == pool, t.c.what == what))
    body = {"hours": values, "errors": errors}
    connection.execute(
        t.insert().values(
            site=site, pool=pool, what=what, first_hour=first_hour, body=orjson.dumps(body).decode(), updated_at=now
        )
    )


# --- what is told -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A figure over the hours asked for, and how far such forecasts of it were off by hours ahead, in the mean."""

    hours: list[dict[str, Any]]
    errors: dict[str, float]


def read_ahead(connection: sa.Connection, site: str, now: float, hours: int) -> dict[str, dict[str, Told]]:
    """By pool and series what is expected from this hour on: a timetable or series that was given, else what was learned, else the
    declared figure. A series of which nothing is known is left out."""
    first = int(now) // HOUR
    t, c = tables.site_ahead.c, tables.carbon_series.c
    learned = {
        (row.pool, row.what): (row.first_hour, orjson.loads(row.body))
        for row in connection.execute(sa.select(t.pool, t.what, t.first_hour, t.body).where(t.site == site))
    }
    brought = connection.execute(sa.select(c.first_hour, c.grams, c.forecast).where(c.site == site)).one_or_none()
    row = connection.execute(
        sa.select(tables.sites.c.prices, tables.sites.c.description).where(tables.sites.c.name == site)
    ).one()
    prices = orjson.loads(row.prices)
    pools = [pool["name"] for pool in orjson.loads(row.description or "{}").get("pools", ())]
    told: dict[str, dict[str, Told]] = {}
    for pool in pools:
        tariff = prices.get(pool, prices.get("*", {}))
        told[pool] = {}
        for what in SERIES:
            declared = hours_of(tariff, _TARIFF[what]) if _TARIFF[what] in tariff else None
            known = learned.get((pool, what))
            if what == "carbon" and brought is not None:
                found = _brought(brought, first, hours)
            elif declared is not None and ((len(declared.values) > 1 and what != "load") or known is None):
                found = Told(hours=[_flat(declared.at(first + one), "declared") for one in range(hours)], errors={})
            elif known is not None:
                found = _learned(known, declared, first, hours)
            else:
                continue
            told[pool][what] = found
    return told


def _flat(value: Any, source: str) -> dict[str, Any]:
    return {"p10": float(value), "p50": float(value), "p90": float(value), "source": source}


def _brought(row: Any, first: int, hours: int) -> Told:
    """A series that an operator brought in, as far as it goes, then its forecast, then the same hours again."""
    grams, ahead = orjson.loads(row.grams), orjson.loads(row.forecast)
    series = Hours(tuple(grams + ahead), row.first_hour)
    until = row.first_hour + len(grams)
    return Told(
        hours=[_flat(series.at(first + one), "declared" if first + one < until else "learned") for one in range(hours)],
        errors={},
    )


def _learned(known: tuple[int, dict[str, Any]], declared: Hours | None, first: int, hours: int) -> Told:
    """What was forecast, from this hour on; the last value where it does not go so far. Until a day was seen, what was declared counts."""
    first_hour, body = known
    ahead = body["hours"]
    found = []
    for one in range(hours):
        index = min(max(0, first + one - first_hour), len(ahead) - 1)
        is_new = ahead[index]["p10"] == ahead[index]["p90"] and not body["errors"]
        found.append(_flat(declared.at(first + one), "declared") if is_new and declared is not None else ahead[index])
    return Told(hours=found, errors=body["errors"])
