"""Load, price and carbon by the hour ahead: noted at each look, learned from what was noted, each with its source."""

from __future__ import annotations

import math
import time
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from isthmus.domain.hours import HOUR
from isthmus.domain.site import Pool, SiteDescription
from isthmus.engine import carbon, leases
from isthmus.engine.ahead import AHEAD, KEPT_HOURS, Ahead, note_hour, read_ahead
from isthmus.engine.leases import Lease
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import dump
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import until

BEGIN = 500_000  # an hour since 1970
POOL = Pool(name="cpu", nodes=4, cpus_per_node=4)


def _load(hour: int) -> float:
    return 0.5 + 0.4 * math.sin(hour * 2 * math.pi / 24)


def _site(store: Database, prices: dict[str, dict[str, str]]) -> None:
    join(store, "alpha")
    text = dump(SiteDescription(kind="null", pools=(POOL,)))
    values = {"description": text, "prices": orjson.dumps(prices).decode()}
    store.write_now(lambda connection: connection.execute(tables.sites.update().values(values)))


def _note(store: Database, hours: range, prices: dict[str, dict[str, Any]] | None = None) -> None:
    """An hour's rows as many looks would leave them."""
    rows = []
    for hour in hours:
        price = float(prices["*"]["cpu_hour"]) if prices else None
        rows.append(
            {"site": "alpha", "pool": "cpu", "hour": hour, "looks": 10, "load": 10 * _load(hour), "price": price}
        )
    store.write_now(lambda connection: connection.execute(tables.site_hours.insert(), rows))


async def _lease(store: Database) -> Lease:
    lease = await store.write(leases.take, "placement", "one", BEGIN * HOUR, 1e10)
    assert lease is not None
    return lease


async def test_looks_make_the_mean_of_an_hour(store: Database) -> None:
    """What cannot be had counts; of a pool that shows no load, what runs of ours; one figure for all hours is noted, a timetable is not; the
    oldest hours go."""
    join(store, "alpha")
    by_day = ",".join(["1"] * 24)
    dumb = Pool(name="host", cpus_per_node=8, immediate=True)
    prices = {"*": {"cpu_hour": "0.5", "carbon_grams_per_kwh": by_day}}
    store.write_now(note_hour, "alpha", BEGIN * HOUR + 5.0, [POOL], {}, prices)
    for free in (16, 4, 0, -3):  # a site may well say that less than nothing is free
        pool = Pool(name="cpu", nodes=4, cpus_per_node=4, free_cpus=free)
        store.write_now(note_hour, "alpha", (BEGIN + KEPT_HOURS) * HOUR + 5.0, [pool, dumb], {"host": 2}, prices)
    rows = store.read_now(lambda connection: connection.execute(tables.site_hours.select()).all())
    assert [(row.pool, row.hour - BEGIN, row.looks, row.load) for row in rows] == [
        ("cpu", KEPT_HOURS, 4, 0.0 + 0.75 + 1.0 + 1.0),
        ("host", KEPT_HOURS, 4, 4 * 0.25),
    ]
    assert {(row.price, row.carbon) for row in rows} == {(0.5, None)}


async def test_at_first_what_was_declared_is_told_and_says_so(store: Database) -> None:
    """Load, price and carbon by the hour of the tariff; without one nothing is said of it; a day later the load is what was seen."""
    day = ",".join(str(hour) for hour in range(24))
    _site(store, {"*": {"cpu_hour": day, "load": "0.6"}})
    told = await store.read(read_ahead, "alpha", BEGIN * HOUR + 60.0, 30)
    assert set(told["cpu"]) == {"load", "price"}
    assert {(one["p50"], one["source"]) for one in told["cpu"]["load"].hours} == {(0.6, "declared")}
    assert [one["p50"] for one in told["cpu"]["price"].hours] == [float((BEGIN + one) % 24) for one in range(30)]
    ahead, lease = Ahead(store), await _lease(store)
    _note(store, range(BEGIN, BEGIN + 3))
    assert await ahead.refresh((BEGIN + 3) * HOUR, lease) == 1
    told = await store.read(read_ahead, "alpha", (BEGIN + 3) * HOUR, 30)
    assert {one["source"] for one in told["cpu"]["load"].hours} == {"declared"}
    _note(store, range(BEGIN + 3, BEGIN + 60))
    assert await ahead.refresh((BEGIN + 60) * HOUR, lease) == 1
    told = await store.read(read_ahead, "alpha", (BEGIN + 60) * HOUR, 30)
    assert {one["source"] for one in told["cpu"]["load"].hours} == {"measured"}


async def test_a_load_with_a_day_in_it_is_learned(sqlite_store: Database) -> None:
    """After four weeks: better than the last hour and within its bounds; the same again after a start; once an hour and no more."""
    _site(sqlite_store, {})
    lease, ahead = await _lease(sqlite_store), Ahead(sqlite_store)
    until_hour = BEGIN + 4 * 168
    _note(sqlite_store, range(BEGIN, until_hour))
    now = until_hour * HOUR + 30.0
    assert await ahead.refresh(now, lease) == 1
    assert await ahead.refresh(now + 60, lease) == 0
    told = (await sqlite_store.read(read_ahead, "alpha", now, AHEAD))["cpu"]["load"]
    assert {one["source"] for one in told.hours} == {"learned"}
    off = [abs(one["p50"] - _load(until_hour + hour)) for hour, one in enumerate(told.hours)]
    last = [abs(_load(until_hour - 1) - _load(until_hour + hour)) for hour in range(AHEAD)]
    assert sum(off) < 0.3 * sum(last)
    assert all(0 <= one["p10"] <= one["p50"] <= one["p90"] <= 1 for one in told.hours)
    assert set(told.errors) == {"1", "6", "24", "48"}
    await Ahead(sqlite_store).refresh(now, lease)
    assert (await sqlite_store.read(read_ahead, "alpha", now, AHEAD))["cpu"]["load"] == told
    later = (await sqlite_store.read(read_ahead, "alpha", now + 2 * HOUR, 24))["cpu"]["load"]
    assert later.hours == told.hours[2:26], "what was foretold of an hour stays that hour's"


async def test_a_price_that_was_set_by_hand_each_hour_is_learned(sqlite_store: Database) -> None:
    """A price that changes by the hour of the day is foretold from what was seen; one that never changed is the declared one."""
    _site(sqlite_store, {"*": {"cpu_hour": "0.3", "carbon_grams_per_kwh": "200"}})
    rows = [
        {
            "site": "alpha",
            "pool": "cpu",
            "hour": hour,
            "looks": 1,
            "load": 0.0,
            "price": 0.1 + hour % 24,
            "carbon": 200.0,
        }
        for hour in range(BEGIN, BEGIN + 72)
    ]
    sqlite_store.write_now(lambda connection: connection.execute(tables.site_hours.insert(), rows))
    assert await Ahead(sqlite_store).refresh((BEGIN + 72) * HOUR, await _lease(sqlite_store)) == 2
    told = (await sqlite_store.read(read_ahead, "alpha", (BEGIN + 72) * HOUR, 24))["cpu"]
    assert [one["p50"] for one in told["price"].hours] == pytest.approx(
        [0.1 + (BEGIN + hour) % 24 for hour in range(24)]
    )
    assert {one["source"] for one in told["price"].hours} == {"measured"}
    assert {(one["p50"], one["source"]) for one in told["carbon"].hours} == {(200.0, "declared")}


async def test_a_series_of_carbon_counts_before_all_else(store: Database) -> None:
    """As far as it goes it is declared, then its own forecast is learned."""
    _site(store, {"*": {"carbon_grams_per_kwh": "200"}})
    store.write_now(carbon.keep, "alpha", 0.0, BEGIN, [10.0, 20.0], [30.0], None)
    told = (await store.read(read_ahead, "alpha", BEGIN * HOUR, 3))["cpu"]["carbon"]
    assert [(one["p50"], one["source"]) for one in told.hours] == [(10, "declared"), (20, "declared"), (30, "learned")]


async def test_after_a_gap_the_hours_are_filled_or_the_model_begins_anew(sqlite_store: Database) -> None:
    """Three hours that nobody looked at have the value before them; after two days of none, what was learned is gone."""
    _site(sqlite_store, {})
    lease = await _lease(sqlite_store)
    _note(sqlite_store, range(BEGIN, BEGIN + 40))
    _note(sqlite_store, range(BEGIN + 43, BEGIN + 50))
    ahead = Ahead(sqlite_store)
    await ahead.refresh((BEGIN + 50) * HOUR, lease)
    [(model, last)] = ahead._models.values()
    assert (model.known_hours, last) == (50, BEGIN + 49)
    _note(sqlite_store, range(BEGIN + 100, BEGIN + 102))
    await ahead.refresh((BEGIN + 102) * HOUR, lease)
    [(model, last)] = ahead._models.values()
    assert (model.known_hours, last) == (2, BEGIN + 101)


async def test_the_engine_notes_what_it_sees(store: Database, make_engine: EngineMaker) -> None:
    """A running engine writes this hour's row of each pool, and adds to it at its next look."""
    join(store)
    engine = make_engine(store)
    await engine.start()
    await until(lambda: count(store, tables.site_hours) > 0)
    engine.wake()
    await until(lambda: count(store, tables.site_hours, tables.site_hours.c.looks >= 2) > 0)
    hour = store.read_now(lambda connection: connection.execute(sa.select(tables.site_hours.c.hour)).scalars().first())
    assert hour is not None
    assert abs(hour - time.time() / HOUR) <= 2
