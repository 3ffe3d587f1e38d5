"""Local repair: the way around a router's own link never touches it, also where ways are equal, and is left out where there is none."""

from __future__ import annotations

from isthmus.domain.network import Control, LinkView, NetLink, NetNode, NetworkView, NodeKind
from isthmus.network.control.repair import repairs


def network(*links: tuple[str, str, float]) -> NetworkView:
    """Routers that all obey, named by a letter and their number; sites without one."""
    names = sorted({end for link in links for end in link[:2]})
    nodes = tuple(
        NetNode(name=name, kind=NodeKind.ROUTER, locator=f"fc00:{name[1:]}::/32", control=Control(socket="/run/x"))
        if name[1:].isdigit()
        else NetNode(name=name, kind=NodeKind.SITE, prefixes=("fd10:5::/64", "10.5.0.0/24"))
        for name in names
    )
    made = [NetLink(name=f"{one}-{other}", ends=(one, other), delay_seconds=delay) for one, other, delay in links]
    return NetworkView(
        now=0.0,
        nodes=nodes,
        links=tuple(
            LinkView(
                link=link,
                source=source,
                target=target,
                programmable=True,
                up=True,
                up_since=None,
                delay_seconds=None,
                jitter_seconds=None,
                loss=None,
                available_bits_per_second=None,
            )
            for link in made
            for source, target in (link.ends, link.ends[::-1])
        ),
        pairs=(),
    )


def found(view: NetworkView, router: str) -> dict[str, tuple[str, ...]]:
    return {one.destination: one.segments for one in repairs(view)[router]}


SQUARE = (("r1", "r2", 5e-3), ("r2", "r4", 5e-3), ("r1", "r3", 15e-3), ("r3", "r4", 15e-3), ("site", "r4", 0.0))


def test_what_goes_over_a_link_gets_a_way_without_it() -> None:
    """r1 sends what is for r4, and for the site behind it, to r3, which unwraps it; r2 has to name a router more; IPv4 has none."""
    assert found(network(*SQUARE), "r1") == {
        "fc00:2::/32": ("fc00:3::1", "fc00:4::d6"),
        "fc00:3::/32": ("fc00:4::d6",),
        "fc00:4::/32": ("fc00:3::d6",),
        "fd10:5::/64": ("fc00:3::d6",),
    }
    assert found(network(*SQUARE), "r2")["fc00:4::/32"] == ("fc00:1::1", "fc00:3::d6")


def test_equal_ways_are_all_avoided_or_the_first_is() -> None:
    """With a third way both equal ones are; without, the first: the way to its segment has a repair of its own."""
    equal = (("r1", "r2", 1e-3), ("r2", "r4", 1e-3), ("r1", "r3", 1e-3), ("r3", "r4", 1e-3))
    assert found(network(*equal), "r1")["fc00:4::/32"] == ("fc00:3::d6",)
    assert found(network(*equal), "r1")["fc00:3::/32"][0] == "fc00:2::1"
    third = (*equal, ("r1", "r5", 3e-3), ("r5", "r4", 3e-3))
    assert found(network(*third), "r1")["fc00:4::/32"] == ("fc00:5::d6",)


def test_where_nothing_leads_around_there_is_no_repair() -> None:
    """A chain has none."""
    assert repairs(network(("r1", "r2", 1e-3), ("r2", "r3", 1e-3))) == {"r1": (), "r2": (), "r3": ()}
