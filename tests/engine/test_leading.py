"""The lead of a transfer's packets: wanted before the order, waited for a while, given up at the end, never for small ones."""

from __future__ import annotations

import orjson
import pytest
import sqlalchemy as sa

from isthmus.domain.network import (
    Control,
    DeclaredNetwork,
    Figure,
    Metric,
    NetLink,
    NetNode,
    NodeKind,
    Source,
)
from isthmus.engine import leading
from isthmus.engine.declaring import Measured, declare, record
from isthmus.engine.leases import Lease, take
from isthmus.engine.routers import _take_in
from isthmus.engine.steering import policies
from isthmus.store import tables
from isthmus.store.database import Database

NOW = 1_800_000_000.0
LARGE = 10**9
OBEYS = Control(socket="/run/r.sock")
PREFIXES = {"alpha": "fd10:a::/64", "beta": "fd10:b::/64"}
THIN, FAT = ("alpha", "r1", "r2", "r4", "beta"), ("alpha", "r1", "r3", "r4", "beta")


def _network(control: Control | None = OBEYS, thin: float = 1e8) -> DeclaredNetwork:
    nodes = [NetNode(name=name, kind=NodeKind.SITE, prefixes=(prefix,)) for name, prefix in PREFIXES.items()]
    nodes += [
        NetNode(name=f"r{number}", kind=NodeKind.ROUTER, locator=f"fc00:{number}::/32", control=control)
        for number in (1, 2, 3, 4)
    ]
    links = [
        NetLink(name=f"{a}-{b}", ends=(a, b), capacity_bits_per_second=rate, delay_seconds=delay)
        for a, b, rate, delay in (
            ("alpha", "r1", 1e10, 0.0),
            ("r4", "beta", 1e10, 0.0),
            ("r1", "r2", thin, 0.005),
            ("r2", "r4", thin, 0.005),
            ("r1", "r3", 1e9, 0.015),
            ("r3", "r4", 1e9, 0.015),
        )
    ]
    return DeclaredNetwork(nodes=tuple(nodes), links=tuple(links))


@pytest.fixture
def lease(store: Database) -> Lease:
    """A lease under which transfers are looked after."""
    found = store.write_now(take, "transfers", "me", NOW, 1e6)
    assert found is not None
    return found


def _row(connection: sa.Connection, key: str, size: int, links: tuple[str, ...] = ()) -> sa.Row[object]:
    connection.execute(
        tables.transfers.insert().values(
            id=key,
            project="p",
            name=key[-1],
            version=1,
            source="alpha" if links else "",
            target="beta",
            state="planned",
            links=orjson.dumps(list(links)).decode(),
            size_bytes=size,
            created_by="ada",
            created_at=NOW,
            updated_at=NOW,
        )
    )
    query = sa.select(
        tables.transfers, sa.literal("[]").label("regions")
    )  # those of its dataset, as who moves it reads them
    return connection.execute(query.where(tables.transfers.c.id == key)).one()


def test_a_transfer_waits_for_its_path_then_gives_it_up(store: Database, lease: Lease) -> None:
    """The fat path is wanted, once; it is waited for; programmed it marks the packets; what is over is given up."""
    store.write_now(declare, _network(), by="op", now=NOW)
    row = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaaa", LARGE)
    first = store.write_now(leading.lead, NOW, lease, row, "alpha")
    assert (first.paths, first.is_set) == ((FAT,), False)
    assert store.write_now(leading.lead, NOW + 1, lease, row, "alpha") == first
    store.write_now(lambda c: c.execute(tables.net_policies.update().values(programmed_at=NOW + 2)))
    ready = store.write_now(leading.lead, NOW + 2, lease, row, "alpha")
    assert ready.is_set
    assert ready.ways == first.ways
    assert [(way.dscp > 0, way.share) for way in ready.ways] == [(True, 1.0)]
    assert store.read_now(leading.left_behind) == []
    store.write_now(lambda c: c.execute(tables.transfers.update().values(state="done")))
    lost = store.read_now(leading.left_behind)
    assert lost == ["transfer-01aaaaaaaaaaaaaaaaaaaaaaaa"]
    store.write_now(leading.give_up, lease, lost)
    assert [one.wanted for one in store.read_now(policies)] == [False]
    assert store.read_now(leading.left_behind) == []


def test_a_large_transfer_takes_two_ways_in_proportion(store: Database, lease: Lease) -> None:
    """The second way shares no link of the first but those of the sites; each has a mark of its own, and both are given up."""
    store.write_now(declare, _network(thin=5e8), by="op", now=NOW)
    row = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaae", LARGE)
    first = store.write_now(leading.lead, NOW, lease, row, "alpha")
    assert first.paths == (FAT, THIN)
    assert [way.share for way in first.ways] == [1.0, 0.5]
    assert len({way.dscp for way in first.ways} - {0}) == 2
    half = tables.net_policies.c.name == f"transfer-{row.id}"
    store.write_now(lambda c: c.execute(tables.net_policies.update().where(half).values(programmed_at=NOW)))
    assert not store.write_now(leading.lead, NOW + 1, lease, row, "alpha").is_set
    store.write_now(lambda c: c.execute(tables.net_policies.update().values(programmed_at=NOW)))
    assert store.write_now(leading.lead, NOW + 2, lease, row, "alpha").is_set
    store.write_now(leading.let_go, row.id)
    assert [one.wanted for one in store.read_now(policies)] == [False, False]


def test_the_promised_path_comes_before_the_best_one(store: Database, lease: Lease) -> None:
    """Placement promised the thin path from alpha: that is led over it; from another source the promise does not hold."""
    store.write_now(declare, _network(), by="op", now=NOW)
    links = ("alpha-r1>r1", "r1-r2>r2", "r2-r4>r4", "r4-beta>beta")
    row = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaab", LARGE, links)
    assert store.write_now(leading.lead, NOW, lease, row, "alpha").paths == (THIN,)


def test_a_promise_follows_its_policy_to_another_path(store: Database, lease: Lease) -> None:
    """The thin path fails: the policy moves, and the links of the other path are held by the promise."""
    store.write_now(declare, _network(), by="op", now=NOW)
    links = ("alpha-r1>r1", "r1-r2>r2", "r2-r4>r4", "r4-beta>beta")
    row = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaaf", LARGE, links)
    store.write_now(leading.lead, NOW, lease, row, "alpha")
    down = Figure(value=0.0, error=0.0, measured_at=NOW, source=Source.ROUTER)
    ends = [("r1", "r2"), ("r2", "r1")]
    word = [Measured(source=one, target=other, link="r1-r2", metric=Metric.UP, figure=down) for one, other in ends]
    store.write_now(record, word)
    store.write_now(_take_in, NOW + 1, {})
    [policy] = store.read_now(policies)
    assert policy.nodes == FAT
    held = store.read_now(lambda c: c.execute(sa.select(tables.transfers.c.links)).scalar_one())
    assert orjson.loads(held) == ["alpha-r1>r1", "r1-r3>r3", "r3-r4>r4", "r4-beta>beta"]


def test_where_nothing_can_be_set_it_goes_by_itself(store: Database, lease: Lease) -> None:
    """No network, routers that obey nobody, a small transfer, routers that take too long: none holds a transfer up."""
    row = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaac", LARGE)
    assert store.write_now(leading.lead, NOW, lease, row, "alpha") == leading.BY_ITSELF
    store.write_now(declare, _network(None), by="op", now=NOW)
    assert store.write_now(leading.lead, NOW, lease, row, "alpha") == leading.BY_ITSELF
    store.write_now(declare, _network(), by="op", now=NOW)
    small = store.write_now(_row, "01aaaaaaaaaaaaaaaaaaaaaaad", 1000)
    assert store.write_now(leading.lead, NOW, lease, small, "alpha") == leading.BY_ITSELF
    assert not store.write_now(leading.lead, NOW, lease, row, "alpha").is_set
    late = NOW + leading.PATIENCE_SECONDS + 1
    assert store.write_now(leading.lead, late, lease, row, "alpha") == leading.BY_ITSELF
    assert [one.wanted for one in store.read_now(policies)] == [False]
    assert store.write_now(leading.lead, late, lease, row, "alpha") == leading.BY_ITSELF
