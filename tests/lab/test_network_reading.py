"""A topology file is read as it is meant, and every wrong field is named with what would be right."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from isthmus.domain.errors import Invalid
from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.reading import describe, read_text
from isthmus.lab.network.topology import Link, SiteNode, Topology

WAN = """
name: wan
routers: [r1, r2]
sites:
  north: {daemons: {ssh: {}, slurm: {nodes: 3}}, programs: {web: [python3, -m, http.server]}}
  south:
links:
  - {ends: [north, r1]}
  - {name: sea, ends: [r1, r2], rate: 1.5 Gbit/s, delay: 20 ms, jitter: 300 us, loss: 0.1 %, price_per_gb: 0.02}
  - {ends: [r2, south], mtu: 9000, offload: true}
"""


def test_a_topology_is_read_in_the_units_of_its_figures() -> None:
    """Rates, times and shares are what they say; links between routers have room for segment routing."""
    found = read_text(WAN)
    sea = found.link("sea")
    assert sea == Link(
        name="sea",
        ends=("r1", "r2"),
        rate_bits_per_second=1.5e9,
        delay_seconds=0.02,
        jitter_seconds=0.0003,
        loss=0.001,
        mtu_bytes=2000,
        price_per_gb=Decimal("0.02"),
    )
    assert [link.mtu_bytes for link in found.links] == [1500, 2000, 9000]
    assert [link.offload for link in found.links] == [False, False, True]
    assert found.site("north") == SiteNode(
        name="north",
        daemons={"ssh": {}, "slurm": {"nodes": 3, "cpus_per_node": 8, "gpu_nodes": 0, "accounting": False}},
        programs={"web": ("python3", "-m", "http.server")},
    )


def test_what_is_described_is_read_again() -> None:
    """The form that is kept while a network runs loses nothing."""
    found = read_text(WAN)
    assert read_text(json.dumps(describe(found))) == found


@pytest.mark.parametrize(
    ("old", "new", "field", "remedy"),
    [
        ("slurm:", "slrum:", "sites.north.daemons.slrum", "slurm"),
        ("nodes: 3", "nodes: many", "sites.north.daemons.slurm.nodes", "256"),
        ("name: wan", "name: The Wide Area", "name", "a-z"),
        ("routers: [r1, r2]", "routers: [r1, r2, r1]", "routers.2", "own name"),
        ("  south:\n", "  south:\n  r2:\n", "sites.r2", "own name"),
        ("1.5 Gbit/s", "fast", "links.1.rate", "500 Mbit/s"),
        ("20 ms", "20", "links.1.delay", "20 ms"),
        ("300 us", "30 ms", "links.1.jitter", "before it left"),
        ("0.1 %", "200 %", "links.1.loss", "0.1 %"),
        ("mtu: 9000", "mtu: 10", "links.2.mtu", "1280"),
        ("offload: true", "offload: 3", "links.2.offload", "true or false"),
        ("loss: 0.1 %", "loss: 0.1 %, offload: true", "links.1.offload", "next link"),
        ("0.02", "-1", "links.1.price_per_gb", "0.02"),
        ("[r2, south]", "[r2, sout]", "links.2.ends", "south"),
        ("[r2, south]", "[r2, r1]", "links.2.ends", "router between"),
        ("[r2, south]", "[r2, r2]", "links.2.ends", "two nodes"),
        ("delay: 20", "dealy: 20", "links.1.dealy", "delay"),
        ("name: sea", "name: north", "links.1.name", "own name"),
        ("[python3, -m, http.server]", "python3", "sites.north.programs.web", "list of words"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(old: str, new: str, field: str, remedy: str) -> None:
    """The dotted path leads to the value; the remedy shows a right one."""
    with pytest.raises(Invalid) as error:
        read_text(WAN.replace(old, new, 1))
    assert error.value.field == field
    assert remedy in error.value.remedy


def test_all_wrong_fields_are_told_at_once() -> None:
    """A file with three slips is corrected in one round."""
    with pytest.raises(Invalid) as error:
        read_text(WAN.replace("20 ms", "x").replace("9000", "1").replace("0.1 %", "y"))
    assert [item.field for item in error.value.__dict__["fields"]] == ["links.1.delay", "links.1.loss", "links.2.mtu"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_following_the_routes_is_a_shortest_path_and_sites_carry_nothing_of_others(data: st.DataObject) -> None:
    """Against SciPy's Dijkstra on the routers' graph, whatever links are down."""
    routers = [f"r{number}" for number in range(data.draw(st.integers(1, 6)))]
    sites = [f"s{number}" for number in range(data.draw(st.integers(1, 4)))]
    pairs = [(a, b) for index, a in enumerate(routers) for b in routers[:index]]
    pairs += [(site, router) for site in sites for router in routers]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1)) if pairs else []
    links = tuple(
        Link(name=f"{a}-{b}", ends=(a, b), delay_seconds=data.draw(st.integers(0, 50)) / 1000) for a, b in chosen
    )
    topology = Topology(
        name="t", routers=tuple(routers), sites=tuple(SiteNode(name=name) for name in sites), links=links
    )
    down = set(data.draw(st.lists(st.sampled_from([link.name for link in links]), max_size=3)))
    addressing = Addressing(topology)
    cost = {frozenset(link.ends): link.delay_seconds + 1e-6 for link in links if link.name not in down}
    steps = {
        node: {route.prefix: route.neighbour for route in addressing.routes(node, down)} for node in topology.nodes
    }
    for source in topology.nodes:
        for target in sites:
            if source == target:
                continue
            inner = [*routers, source, target]
            matrix = np.zeros((len(inner), len(inner)))
            for one, a in enumerate(inner):
                for other, b in enumerate(inner):
                    matrix[one, other] = cost.get(frozenset((a, b)), 0) if a != b else 0
            best = dijkstra(csr_matrix(matrix), indices=inner.index(source))[inner.index(target)]
            prefix = addressing.site_prefix(target)
            if not np.isfinite(best):
                assert prefix not in steps[source]
                continue
            walked, node = 0.0, source
            while node != target:
                following = steps[node][prefix]
                assert following in routers or following == target
                walked += cost[frozenset((node, following))]
                node = following
            assert walked == pytest.approx(best)


def test_a_service_takes_every_field_of_the_file() -> None:
    """What the lab writes of a topology, a service reads as a declared network: the same file for both."""
    from isthmus.domain.networkfile import read_network
    from isthmus.lab.network.reading import describe

    text = "routers: [r1]\nsites: {a: {daemons: {ssh: {}}}, b: }\nlinks:\n  - {ends: [a, r1], rate: 1 Gbit/s}\n  - {ends: [r1, b]}\n"
    topology = read_text(text)
    found = read_network(describe(topology))
    assert [node.name for node in found.nodes] == ["r1", "a", "b"]
    assert [link.ends for link in found.links] == [link.ends for link in topology.links]
