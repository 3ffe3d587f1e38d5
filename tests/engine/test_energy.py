"""Usage records say what an attempt drew and emitted, by what its operator declared."""

from __future__ import annotations

import json
from decimal import Decimal

from isthmus.domain.task import Constraints, Demand, TaskSpec
from isthmus.engine.accounting import energy_of
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until

TARIFF = {"cpu_hour": "1", "cpu_watts": "9", "accelerator_watts": "300", "pue": "1.25", "carbon_grams_per_kwh": "400"}


def test_energy_is_power_by_time_by_pue_and_carbon_is_energy_by_intensity() -> None:
    """Ten processors and two devices for an hour: (90 + 600) W x 1.25 = 0.8625 kWh, at 400 g/kWh 345 g."""
    energy = energy_of(TARIFF)
    assert energy.kwh(10 * 3600, 2 * 3600) == Decimal("0.8625")
    assert energy.grams(Decimal("0.8625")) == Decimal("345")
    assert energy_of({"cpu_hour": "1"}).kwh(3600, 0) is None
    assert energy_of({"cpu_watts": "9"}).grams(Decimal(1)) is None


async def test_a_usage_record_holds_energy_and_carbon(store: Database, make_engine: EngineMaker) -> None:
    """What was declared when the record was made counts; without a declaration there is none."""
    join(store, "measured", config={"seconds": 2})
    join(store, "plain")
    prices = json.dumps({"*": TARIFF})
    change = tables.sites.update().where(tables.sites.c.name == "measured").values(prices=prices)
    store.write_now(lambda connection: connection.execute(change))
    engine = make_engine(store)
    await engine.start()
    specs = [
        TaskSpec(command=("true",), demand=Demand(cpus=100), constraints=Constraints(sites_allow=(name,)))
        for name in ("measured", "plain")
    ]
    await submit(store, *specs)
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == 2)
    rows = {row.site: row for row in store.read_now(lambda c: c.execute(tables.usage_records.select()).all())}
    seconds = rows["measured"].allocated_cpu_seconds
    assert seconds >= 2
    assert Decimal(rows["measured"].energy_kwh) == energy_of(TARIFF).kwh(seconds, 0)
    assert Decimal(rows["measured"].carbon_grams) == energy_of(TARIFF).grams(Decimal(rows["measured"].energy_kwh))
    assert (rows["plain"].energy_kwh, rows["plain"].carbon_grams) == (None, None)
