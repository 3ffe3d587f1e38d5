"""What agents tell becomes figures, words on whether a path is up, and events, once each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from isthmus.domain.network import DeclaredNetwork, NetLink, NetNode, NetworkView, NodeKind, Source
from isthmus.engine.declaring import declare
from isthmus.engine.measuring import store as keep
from isthmus.engine.networkview import read_network
from isthmus.engine.seen import seen_rate
from isthmus.network.measurement.probing import Told
from isthmus.store import tables
from isthmus.store.database import Database

NOW = 1_800_000_000.0
SITE, ROUTER = NodeKind.SITE, NodeKind.ROUTER
STAR = DeclaredNetwork(
    nodes=(*(NetNode(name=name, kind=SITE) for name in "abc"), NetNode(name="r", kind=ROUTER)),
    links=tuple(NetLink(name=f"{name}-r", ends=(name, "r"), delay_seconds=0.001) for name in "abc"),
)
DIRECT = DeclaredNetwork(
    nodes=STAR.nodes[:2], links=(NetLink(name="ab", ends=("a", "b"), capacity_bits_per_second=1e9),)
)


def told(target: str, two_way: float, received: int = 20, lost: int = 0) -> Told:
    """A session of twenty packets."""
    if not received:
        return Told(name=target, sent=20, lost_forward=20)
    return Told(
        name=target,
        sent=20,
        received=received,
        lost_forward=lost,
        two_way=two_way,
        two_way_low=two_way * 0.99,
        two_way_p99=two_way * 1.02,
        forward=two_way / 2,
        jitter=1e-4,
        clock_error=None,
    )


def view(database: Database, now: float) -> NetworkView:
    return database.read_now(read_network, now)


def events(database: Database) -> list[tuple[str, str]]:
    """Kind and target of what happened to the network."""
    query = sa.select(tables.events.c.kind, tables.events.c.body).order_by(tables.events.c.seq)
    rows = database.read_now(lambda connection: connection.execute(query).all())
    return [(row.kind, json.loads(row.body)["target"]) for row in rows if row.kind.startswith("network.")]


def test_a_direct_link_has_the_figures_of_its_pair(store: Database) -> None:
    """Delay, loss over several rounds with a shrinking error, and a train's bandwidth never above the capacity."""
    store.write_now(declare, DIRECT, by="op", now=NOW)
    for turn in range(5):
        store.write_now(keep, NOW + turn * 60, [("a", told("b", 0.02, received=19, lost=1))])
    store.write_now(keep, NOW + 250, [("a", Told(name="b", bits_per_second=3e9, at_least=True))])
    link = next(one for one in view(store, NOW + 260).links if one.source == "a")
    assert link.delay_seconds is not None
    assert (link.delay_seconds.value, link.delay_seconds.source) == (0.01, Source.STAMP)
    assert link.loss is not None
    assert link.loss.value == pytest.approx(0.05)
    assert link.loss.error < 0.1  # one round alone: 0.19
    assert link.available_bits_per_second is not None
    assert (link.available_bits_per_second.value, link.available_bits_per_second.source) == (1e9, Source.PROBE)


def test_links_behind_a_router_are_derived(store: Database) -> None:
    """Three sites measure one another: each link gets its own delay, whatever was declared."""
    store.write_now(declare, STAR, by="op", now=NOW)
    found = [("a", told("b", 0.006)), ("b", told("c", 0.010)), ("a", told("c", 0.008))]
    store.write_now(keep, NOW, found)
    delays = {
        (one.source, one.target): (one.delay_seconds.value, one.delay_seconds.source)
        for one in view(store, NOW + 1).links
        if one.delay_seconds is not None
    }
    for ends, delay in ((("a", "r"), 0.001), (("r", "b"), 0.002), (("c", "r"), 0.003)):
        assert delays[ends] == (pytest.approx(delay), Source.DERIVED)


def test_silence_and_change_are_told_once(store: Database) -> None:
    """One silent round is none; two are down, two with an answer are up again; a delay that jumps is raised, once."""
    at = NOW
    for two_way, received in [(0.02, 20)] * 3 + [(0, 0)] + [(0.02, 20)] + [(0, 0)] * 4 + [(0.02, 20)] * 3:
        at += 60
        store.write_now(keep, at, [("a", told("b", two_way, received=received))])
    pair = view(store, at).between("a", "b")
    assert pair is not None
    assert pair.up
    assert [one for one in events(store) if one[0] in ("network.down", "network.up")] == [
        ("network.down", "b"),
        ("network.up", "b"),
    ]
    for turn in range(40):
        at += 60
        two_way = 0.02 + (turn % 3) * 1e-4 if turn < 30 else 0.08
        store.write_now(keep, at, [("c", told("b", two_way))])
    assert [kind for kind, _target in events(store)].count("network.raised") == 1


def test_transfers_say_what_is_free(store: Database) -> None:
    """Limited by the network: that is it, smoothed; limited by an end: at least that; the pair's links, where it has one, too."""
    store.write_now(declare, DIRECT, by="op", now=NOW)

    def free(now: float) -> float | None:
        pair = view(store, now).between("a", "b")
        return None if pair is None or pair.available_bits_per_second is None else pair.available_bits_per_second.value

    store.write_now(seen_rate, "a", "b", 50e6, NOW, "target")
    assert free(NOW) == 400e6
    store.write_now(seen_rate, "a", "b", 10e6, NOW + 1, "source")
    assert free(NOW + 1) == 400e6
    store.write_now(seen_rate, "a", "b", 25e6, NOW + 2, "network")
    assert free(NOW + 2) == pytest.approx(340e6)
    store.write_now(seen_rate, "a", "b", 25e6, NOW + 1000, "network")
    assert free(NOW + 1000) == 200e6
    link = next(one for one in view(store, NOW + 1000).links if one.source == "a")
    assert link.available_bits_per_second is not None
    assert link.available_bits_per_second.source is Source.TRANSFERS
    back = next(one for one in view(store, NOW + 1000).links if one.source == "b")
    assert back.available_bits_per_second is None


def test_steering_takes_free_marks_and_paths_that_hold(store: Database) -> None:
    """Marks of a pair differ; a path that routing would leave is refused, with the reason."""
    from isthmus.domain.errors import Conflict, Invalid
    from isthmus.domain.network import Control
    from isthmus.engine import steering
    from isthmus.network.control.desired import Match

    def router(name: str, number: int) -> NetNode:
        return NetNode(
            name=name, kind=ROUTER, locator=f"fc00:{number}::/32", control=Control(socket=f"/run/{name}", agent="")
        )

    def link(one: str, other: str, delay: float) -> NetLink:
        return NetLink(name=f"{one}-{other}", ends=(one, other), delay_seconds=delay)

    network = DeclaredNetwork(
        nodes=(*STAR.nodes[:2], router("r1", 1), router("r2", 2), router("r3", 3), router("r4", 4)),
        links=(
            *(link("a", "r1", 0.0), link("b", "r4", 0.0), link("r1", "r2", 0.005), link("r2", "r4", 0.005)),
            *(link("r1", "r3", 0.05), link("r3", "r4", 0.001)),
        ),
    )
    store.write_now(declare, network, by="op", now=NOW)
    seen = view(store, NOW)

    def want(name: str, *nodes: str, match: Match | None = None) -> steering.Wanted:
        return store.write_now(steering.want, seen, name=name, nodes=nodes, owner="transfer", now=NOW, match=match)

    first, second = want("one", "a", "r1", "r2", "r4", "b"), want("two", "a", "r1", "r2", "r4", "b")
    assert first.match.dscp != second.match.dscp
    assert store.read_now(steering.is_programmed, "one") is False
    with pytest.raises(Conflict, match="There is a policy one"):
        want("one", "a", "r1", "r2", "r4", "b")
    with pytest.raises(Conflict, match="has these marks"):
        want("three", "a", "r1", "r2", "r4", "b", match=first.match)
    with pytest.raises(Invalid, match="No segments hold packets"):
        want("far", "a", "r1", "r3", "r4", "b")
    nearer = replace(network, links=(*network.links[:4], link("r1", "r3", 0.006), link("r3", "r4", 0.006)))
    store.write_now(declare, nearer, by="op", now=NOW + 1)
    seen = view(store, NOW + 1)
    assert want("far", "a", "r1", "r3", "r4", "b").nodes == ("a", "r1", "r3", "r4", "b")
    store.write_now(steering.give_up, "one")
    assert [one.name for one in store.read_now(steering.policies) if one.wanted] == ["far", "two"]
