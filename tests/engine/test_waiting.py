"""The engine learns waits from the queues that sites show, and rounds decide by them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from isthmus.domain.placement import PoolView, Promise, Snapshot
from isthmus.domain.site import SiteDescription
from isthmus.domain.task import TaskSpec
from isthmus.domain.waiting import LIMITS, WIDTHS, kind_of
from isthmus.engine import leases, queues
from isthmus.engine.snapshot import read_snapshot, waiting_task
from isthmus.engine.waiting import WaitTimes, shape_of
from isthmus.placement import decide, estimates
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import dump
from tests.engine.conftest import join
from tests.forecasting.cluster import Cluster, pool_of

LOOK = 60.0
TASK = waiting_task("0" * 26, "ada", TaskSpec(command=("a",)), input_bytes=0, run=None)


async def _watch(store: Database, wait_times: WaitTimes, cluster: Cluster, at: float, looks: int) -> float:
    """So many looks at the cluster, each stored as its worker would, each learned from."""
    lease = await store.write(leases.take, "placement", "one", at, 1e9)
    assert lease is not None
    for _ in range(looks):
        at += LOOK
        queue = cluster.look(at)
        text = dump(SiteDescription(kind="world", pools=(pool_of(queue),)))

        described = tables.sites.update().values(description=text, described_at=at)
        await store.write(sa.Connection.execute, described)
        await store.write(queues.keep, "alpha", at, queue)
        assert await wait_times.refresh(at, lease) == 1
        assert await wait_times.refresh(at, lease) == 0, "a look is taken in once"
    return at


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is compiled here, when it is called."""
    monkeypatch.setattr("isthmus.engine.warming.Warming.start", lambda self: setattr(self, "ready", True))


async def test_waits_are_learned_and_learned_again_after_a_start(sqlite_store: Database, ready: None) -> None:
    """Before anything is learned the work ahead counts; then a round's plan has a learned wait with its quantiles, and what
    the site has not shown yet comes on top; a new process learns the same again from the store."""
    join(sqlite_store, "alpha", "world")
    cluster, wait_times = Cluster(3, 0.9), WaitTimes(sqlite_store)
    wait_times._warming.ready = True
    at = await _watch(sqlite_store, wait_times, cluster, cluster.now, 5)
    snapshot = await sqlite_store.read(read_snapshot, at)
    [receipt] = decide(wait_times.into(snapshot, {shape_of(TASK)}), [TASK]).receipts
    assert receipt.candidates[0].wait is not None
    assert receipt.candidates[0].wait.source == "measured"

    at = await _watch(sqlite_store, wait_times, cluster, at, 320)
    snapshot = await sqlite_store.read(read_snapshot, at)
    [receipt] = decide(wait_times.into(snapshot, {shape_of(TASK)}), [TASK]).receipts
    wait = receipt.candidates[0].wait
    assert wait is not None
    assert wait.source == "learned"
    assert wait.error is not None
    assert None not in (wait.p10, wait.p50, wait.p90, wait.p95)
    assert (wait.p10 or 0) <= (wait.p50 or 0) <= (wait.p90 or 0) <= (wait.p95 or 0)

    [view] = wait_times.into(snapshot, {shape_of(TASK)}).pools
    unseen = Promise(jobs=9, cpus=32, cpu_seconds=32000.0)
    later = estimates.wait(TASK, view, unseen, unseen)
    assert later.seconds == pytest.approx(wait.seconds + 32000 / 16)
    assert (later.p90 or 0) == pytest.approx((wait.p90 or 0) + 32000 / 16)

    again = WaitTimes(sqlite_store)
    again._warming.ready = True
    at = await _watch(sqlite_store, again, cluster, at, 1)
    snapshot = await sqlite_store.read(read_snapshot, at)
    [view] = again.into(snapshot, {shape_of(TASK)}).pools
    assert view.waits is not None


async def test_a_kind_that_is_known_costs_a_round_nothing(
    sqlite_store: Database, ready: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of one kind share a forecast: it is made once for a look, however many rounds ask."""
    join(sqlite_store, "alpha", "world")
    cluster, wait_times = Cluster(3, 0.9), WaitTimes(sqlite_store)
    wait_times._warming.ready = True
    at = await _watch(sqlite_store, wait_times, cluster, cluster.now, 220)
    snapshot = await sqlite_store.read(read_snapshot, at)
    [before] = wait_times.into(snapshot, {(1, 3600), (1, 3000), (5, 86000)}).pools

    def never(*_: object) -> None:
        raise AssertionError("forecast again")

    monkeypatch.setattr(wait_times, "_forecast", never)
    [after] = wait_times.into(snapshot, {(1, 3500), (6, 86400)}).pools
    assert before.waits is not None
    assert after.waits is not None
    assert after.waits.by_kind == before.waits.by_kind
    assert len(after.waits.by_kind) == 2


def test_every_job_has_a_kind_at_least_as_large() -> None:
    """The kind that stands for a job is never narrower or shorter, up to the widest and longest there are."""
    assert list(WIDTHS) == sorted(set(WIDTHS))
    for processors in (1, 2, 5, 7, 100, WIDTHS[-1]):
        for limit in (1, 300, 301, 90_000, LIMITS[-1]):
            width, length = kind_of(processors, limit)
            assert processors <= width <= max(2 * processors - 1, 1)
            assert limit <= length
    assert kind_of(10**9, 10**9) == (WIDTHS[-1], LIMITS[-1])


def test_pools_without_a_queue_are_left_alone(sqlite_store: Database) -> None:
    """A site that shows no queue keeps its measured wait."""
    view = PoolView(site="s", pool=pool_of(Cluster(1, 0.1).look(0.0)))
    snapshot = Snapshot(now=0.0, pools=(view,))
    assert WaitTimes(sqlite_store).into(snapshot, {(1, 60)}) is snapshot
