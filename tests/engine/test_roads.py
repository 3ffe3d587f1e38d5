"""Data in a round: what the store tells the brain, what the decision promises of links, and how the promise ends."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from isthmus.domain.dataset import DatasetFile, DatasetManifest, DatasetRef, Labels
from isthmus.domain.network import DeclaredNetwork, Figure, Metric, NetLink, NetNode, NodeKind, Source
from isthmus.domain.placement import Receipt, Why
from isthmus.domain.site import Pool, SiteDescription
from isthmus.domain.task import Constraints, Goal, Input, Objective, TaskSpec
from isthmus.engine import datasets as data_intents
from isthmus.engine import intents, leases
from isthmus.engine.declaring import Measured, declare, record
from isthmus.engine.ends import Ends
from isthmus.engine.handling import Handling
from isthmus.engine.learning import RunTimes
from isthmus.engine.leases import Lease
from isthmus.engine.placing import Round
from isthmus.engine.reserving import read_reserved
from isthmus.engine.roads import RoadMap, sweep
from isthmus.engine.waiting import WaitTimes
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import dump, load
from tests.engine.conftest import QUICK, join

BYTES = 1_000_000_000
NETWORK = DeclaredNetwork(
    nodes=tuple(NetNode(name=name, kind=NodeKind.SITE) for name in ("a", "b"))
    + tuple(NetNode(name=name, kind=NodeKind.ROUTER, locator=f"fc00:{name[1]}::/32") for name in ("r1", "r2")),
    links=(
        NetLink(name="a-r1", ends=("a", "r1")),
        NetLink(name="r2-b", ends=("r2", "b")),
        NetLink(
            name="fat", ends=("r1", "r2"), capacity_bits_per_second=8e8, delay_seconds=0.05, price_per_gb=Decimal("0.2")
        ),
        NetLink(name="thin", ends=("r1", "r2"), capacity_bits_per_second=8e7, delay_seconds=0.01),
    ),
)


def world(store: Database, *, regions: tuple[str, ...] = (), network: DeclaredNetwork | None = NETWORK) -> Lease:
    """Sites a and b that keep data; p/corpus@1 whole at a; the placement lease."""
    now = time.time()
    described = SiteDescription(kind="null", pools=(Pool(name="main", nodes=4, cpus_per_node=8, free_cpus=32),))
    for name in ("a", "b"):
        join(store, name)
    manifest = DatasetManifest(files=(DatasetFile(path="x", size_bytes=BYTES, blake3="0" * 64),))

    def fill(connection: sa.Connection) -> Lease:
        connection.execute(
            tables.sites.update().values(description=dump(described), described_at=now, last_seen_at=now)
        )
        connection.execute(tables.sites.update().where(tables.sites.c.name == "a").values(region="eu"))
        servers = [{"site": name, "address": f"{name}:1", "seen_at": now} for name in ("a", "b")]
        connection.execute(tables.data_servers.insert(), servers)
        data_intents.add_version(
            connection,
            now=now,
            user="ada",
            project="p",
            name="corpus",
            manifest=manifest,
            manifest_hash="1" * 64,
            manifest_sha256="2" * 64,
            place="a",
            home_region="",
            labels=Labels(regions=regions),
        )
        if network is not None:
            declare(connection, network, by="op", now=now)
        lease = leases.take(connection, "placement", "one", now, 60.0)
        assert lease is not None
        return lease

    return store.write_now(fill)


def reads(*, at: str = "b", goal: Goal = Goal.SOONEST) -> TaskSpec:
    return TaskSpec(
        command=("true",),
        inputs=(Input(path="in", data="p/corpus"),),
        constraints=Constraints(sites_allow=(at,)),
        objective=Objective(goal=goal),
    )


async def decided(store: Database, lease: Lease, *specs: TaskSpec) -> list[Receipt]:
    ids = await store.write(intents.submit, now=time.time(), user="ada", project="p", specs=specs)
    await Round(QUICK, RunTimes(store), WaitTimes(store), Handling(store), Ends(store)).run(store, time.time(), lease)
    r = tables.receipts.c
    rows = store.read_now(lambda connection: dict(connection.execute(sa.select(r.task_id, r.body)).tuples().all()))
    return [load(Receipt, rows[task_id]) for [task_id] in ids]


def transfers(store: Database) -> list[Any]:
    return store.read_now(lambda connection: list(connection.execute(tables.transfers.select().order_by("id"))))


async def test_a_decision_writes_its_transfer_with_path_and_window(store: Database) -> None:
    """The fat path is promised from now on at 95 % of its rate; the receipt has the same, with the price of the link."""
    lease = world(store)
    [receipt] = await decided(store, lease, reads())
    chosen = next(one for one in receipt.candidates if one.why is Why.CHOSEN)
    [planned] = chosen.transfers
    assert planned.links == ("a-r1>r1", "fat>r2", "r2-b>b")
    assert planned.programmable
    assert planned.bytes_per_second == pytest.approx(0.95e8, rel=0.01)
    assert chosen.price is not None
    assert chosen.price >= Decimal("0.2")
    [row] = transfers(store)
    assert (row.source, row.target, row.state, row.created_by) == (
        "a",
        "b",
        "planned",
        "ada",
    )
    assert orjson.loads(row.links) == list(planned.links)
    assert [part["begins"] for part in orjson.loads(row.stretches)] == [planned.begins]
    assert row.ends_at == pytest.approx(planned.ends)


async def test_what_is_promised_counts_in_the_next_round_also_after_a_restart(store: Database) -> None:
    """The second task comes for the same data and shares its transfer; other readers of the map see the promise."""
    lease = world(store)
    await decided(store, lease, reads())
    [second] = await decided(store, lease, reads())  # a new Round each time: nothing is remembered but the store
    [shared] = next(one for one in second.candidates if one.why is Why.CHOSEN).transfers
    assert shared.shared
    assert len(transfers(store)) == 1
    view = store.read_now(lambda connection: RoadMap("").read(connection, time.time(), [reads()]))
    assert {one.link for one in view.roads.held} == {"a-r1>r1", "fat>r2", "r2-b>b"}
    assert ("p/corpus@1", "b") in view.roads.coming


async def test_a_measured_figure_takes_the_place_of_a_declared_one(store: Database) -> None:
    """The fat link was seen to have little room: the thin one is taken; the estimate says that it was measured where it was."""
    lease = world(store)
    now = time.time()
    seen = Figure(value=4e7, error=4e6, measured_at=now, source=Source.PROBE)
    found = Measured(source="r1", target="r2", link="fat", metric=Metric.AVAILABLE, figure=seen)
    store.write_now(record, [found])
    [receipt] = await decided(store, lease, reads())
    [planned] = next(one for one in receipt.candidates if one.why is Why.CHOSEN).transfers
    assert "thin>r2" in planned.links


async def test_the_cheap_path_is_taken_when_asked(store: Database) -> None:
    """The goal `cheapest` takes the slow link, which costs nothing."""
    [receipt] = await decided(store, world(store), reads(goal=Goal.CHEAPEST))
    [planned] = next(one for one in receipt.candidates if one.why is Why.CHOSEN).transfers
    assert "thin>r2" in planned.links


async def test_without_a_declared_network_the_pair_is_a_link_of_its_own(store: Database) -> None:
    """Nobody declared anything: a direct transfer at the rate that is taken for granted, promised all the same."""
    [receipt] = await decided(store, world(store, network=None), reads())
    [planned] = next(one for one in receipt.candidates if one.why is Why.CHOSEN).transfers
    assert planned.links == ("a>b",)
    assert len(transfers(store)) == 1


async def test_data_that_may_not_leave_stays_and_nothing_is_promised(store: Database) -> None:
    """Refused by name at b; at a, where it is, nothing moves."""
    lease = world(store, regions=("eu",))
    at_b, at_a = await decided(store, lease, reads(), reads(at="a"))
    assert {one.site: one.why for one in at_b.candidates}["b"] is Why.DATA_MAY_NOT_LEAVE
    assert at_a.chosen_site == "a"
    assert transfers(store) == []


async def test_a_promise_that_no_task_needs_any_more_is_swept(store: Database) -> None:
    """A cancelled task's planned transfer ends, and its links are free; one that a task waits for stays."""
    lease = world(store)
    [receipt] = await decided(store, lease, reads())
    assert store.write_now(sweep, time.time(), lease) == 0
    done = {"state": "cancelled", "ended_at": time.time()}
    where = tables.tasks.c.id == receipt.task_id
    store.write_now(lambda connection: connection.execute(tables.tasks.update().where(where).values(**done)))
    assert store.write_now(sweep, time.time(), lease) == 1
    assert [row.state for row in transfers(store)] == ["cancelled"]
    view = store.read_now(lambda connection: RoadMap("").read(connection, time.time(), [reads()]))
    assert view.roads.held == ()
    assert replace(view, pieces={}).of([]) == ()


async def test_what_somebody_asked_for_meanwhile_goes_on_when_the_task_has_ended(store: Database) -> None:
    """`data cp` of what was on its way for a task only: the task's end does not take it away."""
    lease = world(store)
    [receipt] = await decided(store, lease, reads())
    [moving] = transfers(store)
    ref = DatasetRef(project="p", name="corpus", version=1)
    assert moving.id == store.write_now(
        lambda connection: data_intents.plan_transfer(
            connection, now=time.time(), user="u", ref=ref, target=moving.target, home_region=""
        )
    )
    done = {"state": "cancelled", "ended_at": time.time()}
    where = tables.tasks.c.id == receipt.task_id
    store.write_now(lambda connection: connection.execute(tables.tasks.update().where(where).values(**done)))
    assert store.write_now(sweep, time.time(), lease) == 0
    assert [row.state for row in transfers(store)] == ["planned"]


async def test_the_slice_of_a_project_is_promised_to_its_data_and_to_nobody_else_s(store: Database) -> None:
    """Once its routers have it, the slice's rate of the link is a way of its own for the project's data; what all share is without it."""
    lease = world(store)
    now = time.time()
    row = {"name": "cut", "project": "p", "dscp": 46, "bits_per_second": 4e8, "links": '["fat"]', "wanted": True}
    store.write_now(lambda c: c.execute(tables.net_slices.insert().values(**row, created_by="op", created_at=now)))
    view = store.read_now(RoadMap("").read, now, [reads()])
    assert view.roads.sliced == {}
    assert view.roads.links["fat>r2"].bytes_per_second == pytest.approx(0.95e8 - 4e8 / 8)
    store.write_now(lambda c: c.execute(tables.net_slices.update().values(programmed_at=now)))
    [receipt] = await decided(store, lease, reads())
    [planned] = next(one for one in receipt.candidates if one.why is Why.CHOSEN).transfers
    assert planned.links == ("a-r1>r1", "cut/fat>r2", "r2-b>b")
    assert planned.bytes_per_second == pytest.approx(0.95 * 4e8 / 8, rel=0.01)
    view = store.read_now(RoadMap("").read, now, [reads()])
    assert "cut/fat>r2" in {one.link for one in view.roads.held}
    everybody = store.read_now(read_reserved, now)
    assert everybody.bits_per_second("fat", "r2", now, now + 60) == pytest.approx(4e8)
    own = store.read_now(lambda c: read_reserved(c, now, project="p"))
    assert own.bits_per_second("fat", "r2", now, now + 60) == pytest.approx(0.95 * 4e8, rel=0.01)
    store.write_now(lambda c: c.execute(tables.net_slices.update().values(wanted=False)))
    held = store.read_now(RoadMap("").read, now, [reads()]).roads.held
    assert {one.link for one in held} == {"a-r1>r1", "fat>r2", "r2-b>b"}  # it was given up, the promise was not
    store.write_now(lambda c: c.execute(tables.net_slices.update().values(project="q", wanted=True)))
    view = store.read_now(RoadMap("").read, now, [reads()])
    assert view.roads.sliced == {}
    assert view.roads.links["fat>r2"].bytes_per_second == pytest.approx(0.95e8 - 4e8 / 8)
