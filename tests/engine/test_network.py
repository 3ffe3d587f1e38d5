"""The network in the store: what is declared, what is measured, and what a reader sees of both."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from isthmus.domain.errors import Invalid
from isthmus.domain.network import (
    STALE_SECONDS,
    DeclaredNetwork,
    Figure,
    Metric,
    NetLink,
    NetNode,
    NodeKind,
    Source,
)
from isthmus.engine.declaring import Measured, declare, record
from isthmus.engine.networkview import read_network
from isthmus.store.database import Database

NOW = 1_800_000_000.0
NETWORK = DeclaredNetwork(
    nodes=(
        NetNode(name="a", kind=NodeKind.SITE, address="10.65.3.1"),
        NetNode(name="b", kind=NodeKind.SITE, address="10.65.4.1"),
        NetNode(name="r1", kind=NodeKind.ROUTER, locator="fc00:1::/32"),
        NetNode(name="r2", kind=NodeKind.ROUTER, locator="fc00:2::/32"),
    ),
    links=(
        NetLink(name="a-r1", ends=("a", "r1")),
        NetLink(name="b-r2", ends=("b", "r2")),
        NetLink(
            name="r1-r2",
            ends=("r1", "r2"),
            capacity_bits_per_second=1e9,
            delay_seconds=0.02,
            price_per_gb=Decimal("0.01"),
        ),
    ),
)


def test_a_declaration_is_stored_once_and_its_changes_are_told(store: Database) -> None:
    """The same again changes nothing; a changed link, a new node and a missing one are named with what differs."""
    first = store.write_now(declare, NETWORK, by="op", now=NOW)
    assert [(item.name, item.change) for item in first] == [
        (name, "added") for name in ("a", "b", "r1", "r2", "a-r1", "b-r2", "r1-r2")
    ]
    assert store.write_now(declare, NETWORK, by="op", now=NOW + 1) == ()
    faster = replace(NETWORK.links[2], capacity_bits_per_second=1e10)
    changed = replace(NETWORK, links=(*NETWORK.links[:2], faster))
    looked = store.write_now(declare, changed, by="op", now=NOW + 2, dry_run=True)
    assert looked == store.write_now(declare, changed, by="op", now=NOW + 2)
    assert [(item.name, item.fields) for item in looked] == [
        ("r1-r2", {"capacity_bits_per_second": ("1000000000.0", "10000000000.0")})
    ]
    view = store.read_now(read_network, NOW + 3)
    assert view.nodes == NETWORK.nodes
    assert [(one.source, one.target) for one in view.links if one.link.name == "r1-r2"] == [("r1", "r2"), ("r2", "r1")]
    declared = next(one for one in view.links if one.link.name == "r1-r2")
    assert declared.capacity_bits_per_second == 1e10
    assert declared.programmable
    assert declared.delay_seconds == Figure(value=0.02, error=0.0, measured_at=NOW + 2, source=Source.DECLARED)
    assert not next(one for one in view.links if one.link.name == "a-r1").programmable
    smaller = DeclaredNetwork(nodes=NETWORK.nodes[:2], links=())
    gone = store.write_now(declare, smaller, by="op", now=NOW + 4)
    assert {(item.name, item.change) for item in gone} == {
        (name, "removed") for name in ("r1", "r2", "a-r1", "b-r2", "r1-r2")
    }


def test_the_newest_measured_figure_stands_before_the_declared_one(store: Database) -> None:
    """An older report changes nothing; of two sources the newer counts; what is down is down."""
    store.write_now(declare, NETWORK, by="op", now=NOW)

    def measured(metric: Metric, value: float, at: float, source: Source, link: str = "r1-r2") -> Measured:
        figure = Figure(value=value, error=value / 10, measured_at=at, source=source)
        return Measured(source="r1", target="r2", link=link, metric=metric, figure=figure, since=at)

    store.write_now(
        record,
        [
            measured(Metric.ONE_WAY_DELAY, 0.021, NOW + 60, Source.STAMP),
            measured(Metric.ONE_WAY_DELAY, 0.5, NOW + 10, Source.STAMP),
            measured(Metric.AVAILABLE, 2e8, NOW + 50, Source.PROBE),
            measured(Metric.AVAILABLE, 3e9, NOW + 55, Source.TRANSFERS),
            measured(Metric.UP, 0.0, NOW + 61, Source.ROUTER),
        ],
    )
    links = {(one.source, one.target): one for one in store.read_now(read_network, NOW + 70).links}
    link = links["r1", "r2"]
    assert link.delay_seconds is not None
    assert (link.delay_seconds.value, link.delay_seconds.source) == (0.021, Source.STAMP)
    assert link.available_bits_per_second is not None
    assert (link.available_bits_per_second.value, link.available_bits_per_second.source) == (1e9, Source.TRANSFERS)
    assert (link.up, link.up_since) == (False, NOW + 61)
    back = next(
        one for one in store.read_now(read_network, NOW + 70).links if one.source == "r2" and one.target == "r1"
    )
    assert back.up
    assert back.delay_seconds is not None
    assert back.delay_seconds.source is Source.DECLARED


def test_pairs_that_nobody_declared_are_seen_by_what_was_measured(store: Database) -> None:
    """Without any topology the measured figures between two sites are there."""
    figure = Figure(value=0.04, error=0.001, measured_at=NOW, source=Source.STAMP)
    store.write_now(record, [Measured(source="x", target="y", link="", metric=Metric.TWO_WAY_DELAY, figure=figure)])
    view = store.read_now(read_network, NOW)
    pair = view.between("x", "y")
    assert pair is not None
    assert pair.two_way_delay_seconds == figure
    assert view.between("y", "x") is None


def test_a_figure_grows_old() -> None:
    """Its error has doubled when it is stale; a declared one stays what it is."""
    figure = Figure(value=0.04, error=0.001, measured_at=NOW, source=Source.STAMP)
    assert not figure.is_stale(NOW + STALE_SECONDS)
    assert figure.is_stale(NOW + STALE_SECONDS + 1)
    assert figure.error_at(NOW) == 0.001
    assert figure.error_at(NOW + STALE_SECONDS) == pytest.approx(0.002)
    declared = replace(figure, source=Source.DECLARED)
    assert not declared.is_stale(NOW + 1e9)
    assert declared.error_at(NOW + 1e9) == 0.001


def test_a_declaration_that_does_not_fit_is_refused() -> None:
    """Names are there once; a link ends at nodes."""
    with pytest.raises(Invalid, match="no node r9"):
        DeclaredNetwork(nodes=NETWORK.nodes, links=(NetLink(name="x", ends=("a", "r9")),))
    with pytest.raises(Invalid, match="a is there twice"):
        DeclaredNetwork(nodes=(NETWORK.nodes[0], NETWORK.nodes[0]))
    with pytest.raises(Invalid, match="r1-r2 is there twice"):
        DeclaredNetwork(nodes=NETWORK.nodes, links=(NETWORK.links[2], NETWORK.links[2]))
