"""Prices and carbon of the hours in which a task runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa

from isthmus.domain.hours import HOUR, read_hours
from isthmus.domain.placement import Estimate, PoolView, Snapshot
from isthmus.domain.site import Pool
from isthmus.domain.task import Demand, Goal, Objective, TaskSpec
from isthmus.domain.usage import Usage
from isthmus.engine import carbon
from isthmus.engine.accounting import charge, energy_of
from isthmus.engine.snapshot import waiting_task
from isthmus.placement import decide
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until

CHEAP_NIGHTS = ",".join(["1"] * 6 + ["5"] * 16 + ["1"] * 2)
DAY_GRAMS = [float(100 + 10 * hour) for hour in range(24)]


def test_a_charge_is_that_of_the_hours_of_the_run() -> None:
    """An hour from 21:30: half at 5, half at 1, for two processors; carbon the same way."""
    begin = datetime(2026, 12, 1, 21, 30, tzinfo=UTC).timestamp()
    usage = Usage(
        source="wrapper",
        started_at=begin,
        ended_at=begin + 3600,
        elapsed_seconds=3600,
        cpus=2,
        cpu_seconds=0.0,
        allocated_cpu_seconds=7200,
        max_rss_bytes=0,
    )
    assert charge(usage, {"cpu_hour": CHEAP_NIGHTS}, begin) == Decimal(6)
    assert charge(usage, {"cpu_hour": "2"}, begin) == Decimal(4)
    reduced = {"cpu_hour": "2", "preemptible_share": "0.25"}
    assert charge(usage, reduced, begin) == Decimal(4)
    assert charge(usage, reduced, begin, preemptible=True) == Decimal(1)
    energy = energy_of({"cpu_watts": "500", "carbon_grams_per_kwh": ",".join(str(grams) for grams in DAY_GRAMS)})
    assert energy.grams(energy.kwh(7200, 0), begin, 3600) == Decimal("315")


def test_the_cheapest_and_the_greenest_plan_are_those_of_its_hours() -> None:
    """Of two idle pools the one is cheap and dirty now, the other tonight: at noon and at night the task goes elsewhere."""
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()
    nights, days = ",".join(["1"] * 6 + ["5"] * 16 + ["1"] * 2), ",".join(["5"] * 6 + ["1"] * 16 + ["5"] * 2)
    pool = Pool(name="p", cpus_per_node=8, immediate=True)
    pools = tuple(
        PoolView(
            site=site,
            pool=pool,
            cpu_hours=read_hours(price),
            energy=energy_of({"cpu_watts": "10", "carbon_grams_per_kwh": grams}),
        )
        for site, price, grams in (("owl", nights, days), ("lark", days, nights))
    )
    run = Estimate(seconds=3600, source="learned")

    def chosen(goal: Goal, at: float) -> str:
        spec = TaskSpec(command=("a",), objective=Objective(goal=goal))
        task = waiting_task("0" * 26, "ada", spec, input_bytes=0, run=run)
        [receipt] = decide(Snapshot(now=at, pools=pools), [task]).receipts
        prices = {candidate.site: candidate.price for candidate in receipt.candidates}
        assert sorted(prices.values(), key=str) == [Decimal(1), Decimal(5)]
        return receipt.chosen_site

    night = noon + 11 * HOUR
    assert [chosen(Goal.CHEAPEST, at) for at in (noon, night)] == ["lark", "owl"]
    assert [chosen(Goal.GREENEST, at) for at in (noon, night)] == ["owl", "lark"]


async def test_a_series_counts_before_the_declared_intensity_and_is_joined(sqlite_store: Database) -> None:
    """New hours count where both have one, gaps are filled, only the newest are kept; the snapshot has the series."""
    join(sqlite_store, "alpha")

    def bring(first_hour: int, grams: list[float]) -> tuple[int, list[float]]:
        def change(connection: sa.Connection) -> tuple[int, list[float]]:
            start, values = carbon.joined(connection, "alpha", first_hour, grams)
            carbon.keep(connection, "alpha", 1.0, start, values, [999.0], 0.1)
            return start, values

        return sqlite_store.write_now(change)

    assert bring(1000, [1.0, 2.0, 3.0]) == (1000, [1.0, 2.0, 3.0])
    assert bring(1002, [30.0, 40.0]) == (1000, [1.0, 2.0, 30.0, 40.0])
    assert bring(1006, [60.0]) == (1000, [1.0, 2.0, 30.0, 40.0, 40.0, 40.0, 60.0])
    assert bring(998, [7.0])[1][:4] == [7.0, 7.0, 1.0, 2.0]
    start, values = bring(1000 + carbon.KEPT_HOURS, [5.0])
    assert (start, len(values)) == (1001, carbon.KEPT_HOURS)
    hours = sqlite_store.read_now(carbon.carbon_hours)["alpha"]
    assert (hours.at(1002), hours.at(1001 + carbon.KEPT_HOURS)) == (Decimal("30.0"), Decimal("999.0"))
    assert energy_of({"cpu_watts": "1", "carbon_grams_per_kwh": "5"}, hours).grams(Decimal(1), 1002 * HOUR, 60) == 30


async def test_the_day_after_a_series_is_forecast_from_it() -> None:
    """A fortnight of days that are alike goes on like them; a few days say nothing yet."""
    assert await carbon.forecast(0, DAY_GRAMS * 3) == ([], None)
    ahead, error = await carbon.forecast(0, DAY_GRAMS * 10)
    assert len(ahead) == 24
    assert max(abs(found - grams) for found, grams in zip(ahead, DAY_GRAMS, strict=True)) < 5
    assert error is not None
    assert error < 0.05


async def test_a_usage_record_holds_price_and_carbon_of_its_hours(store: Database, make_engine: EngineMaker) -> None:
    """Every hour costs and emits otherwise; the record has those of the hour in which the task ran."""
    join(store, config={"seconds": 1})
    prices = {"*": {"cpu_hour": ",".join(str(hour + 1) for hour in range(24)), "cpu_watts": "100000"}}
    change = tables.sites.update().values(prices=json.dumps(prices))
    store.write_now(lambda connection: connection.execute(change))
    store.write_now(lambda connection: carbon.keep(connection, "null", 1.0, 0, DAY_GRAMS, [], None))
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("true",), demand=Demand(cpus=36)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == 1)
    [row] = store.read_now(lambda connection: connection.execute(tables.usage_records.select()).all())
    first, last = (int(at // HOUR) % 24 for at in (row.started_at, row.ended_at))
    hours = Decimal(row.allocated_cpu_seconds) / 3600
    cheapest, dearest = sorted((first + 1, last + 1))
    assert hours * cheapest - Decimal("1e-6") <= Decimal(row.charge) <= hours * dearest + Decimal("1e-6")
    kwh = Decimal(row.energy_kwh)
    assert kwh == pytest.approx(100 * hours, rel=Decimal("0.001"))
    low, high = sorted((DAY_GRAMS[first], DAY_GRAMS[last]))
    assert kwh * Decimal(low) - Decimal("0.001") <= Decimal(row.carbon_grams) <= kwh * Decimal(high) + Decimal("0.001")
