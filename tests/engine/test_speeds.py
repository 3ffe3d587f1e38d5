"""A command's run time at pools where it never ran, or ran otherwise than elsewhere."""

from __future__ import annotations

import sys

import pytest

from isthmus.domain.capability import PoolCapability, Quantity
from isthmus.domain.placement import Estimate, PoolView, Snapshot
from isthmus.domain.site import Pool
from isthmus.domain.task import Demand, TaskSpec
from isthmus.engine.learning import RunTimes
from isthmus.engine.snapshot import waiting_task
from isthmus.engine.speeds import CONVERTED, Speeds, read_capabilities
from isthmus.metering.aggregate import by_kind
from isthmus.placement import decide
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import dump
from tests.metering.nodes import reference_node

COMMAND = ("fit", 1, 0)
RUN = Estimate(seconds=100.0, source="learned", p10=80.0, p50=100.0, p90=130.0, error=0.2)
ALPHA, BETA, GAMMA = ("alpha", "cpu"), ("beta", "cpu"), ("gamma", "cpu")


def _capability(times: float = 1.0) -> PoolCapability:
    """A pool whose nodes do so many times what the reference does, in everything."""
    scale = {
        quantity: 1 / times if quantity is Quantity.LATENCY else times
        for quantity in Quantity
        if quantity is not Quantity.HOST_LINK
    }
    (pool,) = by_kind([reference_node(scale=scale)])
    return pool


def test_a_pool_twice_as_fast_halves_the_run_time() -> None:
    """One run at a measured pool is enough; the figure says that it was converted, with bounds that are wider."""
    speeds = Speeds()
    assert speeds.measured({ALPHA: _capability(), BETA: _capability(2.0)})
    for _ in range(20):
        speeds.observe(COMMAND, ALPHA, 100.0)
    speeds.fit()
    found = speeds.convert(COMMAND, RUN)
    assert found is not None
    there, here = found.by_pool[BETA], found.by_pool[ALPHA]
    assert there.seconds == pytest.approx(50, rel=0.1)
    assert there.source == CONVERTED
    assert (there.p90 or 0) / (there.p10 or 1) > (RUN.p90 or 0) / (RUN.p10 or 1)
    assert (here.seconds, here.source) == (pytest.approx(100, rel=0.01), "learned")


def test_its_own_runs_outweigh_the_profile() -> None:
    """What a command really took at a pool counts more, the more often it ran there."""
    speeds = Speeds()
    speeds.measured({ALPHA: _capability(), BETA: _capability(2.0)})
    for _ in range(20):
        speeds.observe(COMMAND, ALPHA, 100.0)
        speeds.observe(COMMAND, BETA, 100.0)
    speeds.fit()
    found = speeds.convert(COMMAND, RUN)
    assert found is not None
    assert found.by_pool[BETA].seconds == pytest.approx(100, rel=0.1)
    assert found.by_pool[BETA].source == "learned"


def test_pools_that_nobody_measured_differ_only_by_runs() -> None:
    """Without capabilities one pool says nothing of another; two pools where it ran differ as they did."""
    speeds = Speeds()
    speeds.observe(COMMAND, ALPHA, 100.0)
    speeds.fit()
    assert speeds.convert(COMMAND, RUN) is None
    assert speeds.convert(("other", 1, 0), RUN) is None
    for _ in range(10):
        speeds.observe(COMMAND, ALPHA, 100.0)
        speeds.observe(COMMAND, BETA, 400.0)
    found = speeds.convert(COMMAND, RUN)
    assert found is not None
    assert found.by_pool[BETA].seconds > 2 * found.by_pool[ALPHA].seconds
    assert GAMMA not in found.by_pool


def test_without_the_library_nothing_is_converted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the log, and run times stay those of anywhere."""
    monkeypatch.setitem(sys.modules, "isthmus.metering.prediction", None)
    speeds = Speeds()
    speeds.measured({ALPHA: _capability(), BETA: _capability(2.0)})
    speeds.observe(COMMAND, ALPHA, 100.0)
    speeds.fit()
    assert speeds.convert(COMMAND, RUN) is None
    assert "not converted" in caplog.text
    assert not speeds.measured({ALPHA: _capability()}), "nor is it tried again and again"


def test_placement_takes_the_run_time_of_each_pool() -> None:
    """Of two idle pools the task goes to the faster one, and the receipt has a run time of each."""
    speeds = Speeds()
    speeds.measured({ALPHA: _capability(), BETA: _capability(2.0)})
    speeds.observe(COMMAND, ALPHA, 100.0)
    speeds.fit()
    spec = TaskSpec(command=("fit",), demand=Demand(cpus=1))
    task = waiting_task("0" * 26, "ada", spec, input_bytes=0, run=RUN, run_at=speeds.convert(COMMAND, RUN))
    pools = tuple(
        PoolView(site=site, pool=Pool(name="cpu", cpus_per_node=8, immediate=True)) for site in ("alpha", "beta")
    )
    [receipt] = decide(Snapshot(now=0.0, pools=pools), [task]).receipts
    assert receipt.chosen_site == "beta"
    alpha, beta = (candidate.run for candidate in receipt.candidates)
    assert alpha is not None
    assert beta is not None
    assert beta.seconds < 0.7 * alpha.seconds
    assert (alpha.source, beta.source) == ("learned", CONVERTED)


async def test_a_new_measurement_is_read_and_forecasts_follow(sqlite_store: Database) -> None:
    """What a benchmark stored is what conversions use; of several kinds of node the most frequent counts."""
    row = {"site": "alpha", "pool": "cpu", "kind": "k", "measured_at": 1.0, "stored_at": 1.0, "general_units": 1.0}
    body = dump(_capability(2.0))
    sqlite_store.write_now(lambda connection: connection.execute(tables.capabilities.insert(), [{**row, "body": body}]))
    found = await sqlite_store.read(read_capabilities)
    assert found == {ALPHA: _capability(2.0)}
    speeds = Speeds()
    assert speeds.measured(found)
    assert not speeds.measured(await sqlite_store.read(read_capabilities))
    assert await RunTimes(sqlite_store).refresh() == 0
