"""What a task may demand of a place holds through the whole engine: of two sites only one is right, and the other comes first by
name, is idle, and would otherwise be taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.domain.task import Accelerators, Constraints, Demand, TaskSpec
from isthmus.sites.null import NullSite
from isthmus.store import tables
from isthmus.store.database import Database
from tests.engine.conftest import EngineMaker, count, join, task
from tests.engine.test_life import submit, until

_describe = NullSite.describe
WISHES: dict[str, dict[str, Any]] = {
    "region": {"constraints": Constraints(regions_allow=("eu",))},
    "region_denied": {"constraints": Constraints(regions_deny=("us",))},
    "trust": {"constraints": Constraints(trust="sealed")},
    "site_denied": {"constraints": Constraints(sites_deny=("a",))},
    "licence": {"demand": Demand(licences={"matlab": 2})},
    "gang": {"demand": Demand(nodes=4)},
    "device": {"demand": Demand(accelerators=Accelerators(count=1, kind="a100"))},
    "walltime": {"demand": Demand(walltime_seconds=90_000)},
}


async def _as_declared(site: NullSite) -> Any:
    """Site `a` is small and plain, `b` has everything."""
    description = await _describe(site)
    rich = site._name == "b"
    pool = replace(
        description.pools[0],
        nodes=4 if rich else 2,
        licences={"matlab": 2 if rich else 1},
        accelerators_per_node=1,
        accelerator_kind="a100" if rich else "v100",
        max_walltime_seconds=None if rich else 86_400,
    )
    return replace(description, pools=(pool,))


@pytest.mark.parametrize("wish", sorted(WISHES))
async def test_only_the_right_site_is_taken(
    sqlite_store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    """A task that wants nothing goes to `a`, one with the wish to `b`; with `b` denied as well it goes nowhere."""
    store = sqlite_store
    monkeypatch.setattr(NullSite, "describe", _as_declared)
    for name, region, trust in (("a", "us", ""), ("b", "eu", "sealed")):
        join(store, name)
        values = tables.sites.update().where(tables.sites.c.name == name).values(region=region, trust=trust)
        store.write_now(lambda connection, values=values: connection.execute(values) and None)
    engine = make_engine(store)
    await engine.start()
    await until(lambda: count(store, tables.sites, tables.sites.c.description != "") == 2)
    plain = TaskSpec(command=("true",))
    wanting = replace(plain, **WISHES[wish])
    denied = (*wanting.constraints.sites_deny, "b")
    nowhere = replace(wanting, constraints=replace(wanting.constraints, sites_deny=denied))
    [[first], [second], [third]] = await submit(store, plain, wanting, nowhere)
    engine.wake()
    await until(lambda: count(store, tables.tasks, tables.tasks.c.state == "succeeded") == 2)
    assert task(store, first).site == "a"
    assert task(store, second).site == "b"
    assert task(store, third).state == "waiting"


async def test_priority_goes_first_where_there_is_room_for_one(store: Database, make_engine: EngineMaker) -> None:
    """Three tasks wait for one processor: they start by priority, not in the order in which they came."""
    join(store, config={"cpus": 1, "seconds": 0.3})
    engine = make_engine(store)
    specs = [TaskSpec(command=("true",), priority=priority) for priority in (0, -5, 5)]
    ids = [of[0] for of in await submit(store, *specs)]
    await engine.start()
    engine.wake()
    await until(lambda: count(store, tables.tasks, tables.tasks.c.state == "succeeded") == 3)
    begun = [task(store, which).started_at for which in ids]
    assert begun[2] < begun[0] < begun[1]
