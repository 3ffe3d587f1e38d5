"""The service, agents and routers in an emulated network: paths are measured, steered, moved after a failure, and forgotten."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.lab import namespaces
from isthmus.lab.network.showing import show
from isthmus.network.control.client import RouterClient
from tests.network.wan import NAME, Wan, namespace, running_wan

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wan(emulation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wan]:
    """Three sites, two paths between north and south, a service at hub, agents at north and south."""
    with running_wan(tmp_path_factory.mktemp("net")) as running:
        yield running


def taken(mark: int, count: int = 40) -> dict[str, int]:
    """How many datagrams of north to south with a DSCP came to r2 and r3."""

    def received(router: str) -> int:
        with namespaces.inside(namespace(router)):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return next(int(line.split()[2]) for line in lines if line.split()[0] == "to-r1:")

    before = {router: received(router) for router in ("r2", "r3")}
    with namespaces.inside(namespace("north")):
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, mark << 2)
        target = next(site for site in show(NAME)["sites"] if site["name"] == "south")["addresses"][0]
        for _ in range(count):
            sender.sendto(b"x" * 100, (target, 9))
    time.sleep(0.3)
    return {router: received(router) - before[router] for router in before}


def test_delays_between_sites_are_measured(wan: Wan) -> None:
    """Both ways within 10 % of what is emulated, with source and age; the way to hub, which nobody reflects, is lost."""

    def both() -> Any:
        found = [wan.pair("north", "south"), wan.pair("south", "north")]
        return found if all(one and one["two_way_delay_seconds"] for one in found) else None

    for one in wan.until(both, "both directions are measured"):
        figure = one["two_way_delay_seconds"]
        assert figure["value"] == pytest.approx(0.020, rel=0.1)
        assert one["delay_seconds"]["value"] == pytest.approx(0.010, rel=0.1)
        assert figure["source"] == "stamp"
        assert one["up"]
    silent = wan.until(lambda: (one := wan.pair("north", "hub")) and not one["up"] and one, "hub is silent")
    assert silent["loss"]["value"] == 1.0
    assert silent["two_way_delay_seconds"] is None
    bandwidth = wan.until(lambda: wan.pair("north", "south")["available_bits_per_second"], "a train was sent")
    assert bandwidth["source"] == "probe"
    assert bandwidth["value"] == pytest.approx(100e6, rel=0.35)


def test_two_marks_of_one_host_take_two_paths(wan: Wan) -> None:
    """The policies are programmed at r1, through north's agent; the marks alone tell the packets apart."""
    wan.call("PUT", "/v1/network/policies/fat", {"nodes": ["north", "r1", "r3", "r4", "south"], "dscp": 10})
    thin = wan.call("PUT", "/v1/network/policies/thin", {"nodes": ["north", "r1", "r2", "r4", "south"]})
    mark = thin["match"]["dscp"]
    assert mark not in (None, 10)
    wan.until(lambda: wan.policy("fat")["programmed_at"] and wan.policy("thin")["programmed_at"], "programmed")
    fat_taken, thin_taken = taken(10), taken(mark)
    assert fat_taken["r3"] >= 40 > fat_taken["r2"]
    assert thin_taken["r2"] >= 40 > thin_taken["r3"]


def test_a_restart_changes_nothing_and_a_failure_moves_one_policy(wan: Wan) -> None:
    """The service starts anew: the routers' states stay; r1-r3 fails: what went there moves, the other stays; it is told."""
    plane = RouterClient(Path(wan.topology["routers"]["r1"]["control"]["socket"]))
    before = plane.state()
    programmed = wan.policy("fat")["programmed_at"]
    wan.stop("server")
    wan.serve()
    time.sleep(5)
    assert plane.state() == before
    assert plane.reconcile().total == 0
    assert wan.policy("fat")["programmed_at"] == programmed
    wan.weather.fail("r1-r3")
    moved = wan.until(lambda: (one := wan.policy("fat"))["moved_at"] and one["programmed_at"] and one, "it moved")
    assert moved["nodes"] == ["north", "r1", "r2", "r4", "south"]
    assert wan.policy("thin")["moved_at"] is None
    assert taken(10)["r2"] >= 40
    told = wan.events()
    assert ("network.down", {"source": "r1", "target": "r3", "link": "r1-r3"}) in told
    assert [body["policy"] for kind, body in told if kind == "network.moved"] == ["fat"]
    wan.weather.heal("r1-r3")


def test_what_is_given_up_is_forgotten(wan: Wan) -> None:
    """The policies go from the router, then from the list."""
    for name in ("fat", "thin"):
        wan.call("DELETE", f"/v1/network/policies/{name}")
    wan.until(lambda: not wan.get("/v1/network/policies")["items"], "both are gone")
    plane = RouterClient(Path(wan.topology["routers"]["r1"]["control"]["socket"]))
    assert plane.state().policies == ()


def test_a_failed_link_is_gone_around_before_anybody_is_told(wan: Wan) -> None:
    """Nothing is steered: packets go over r2 by themselves. With r1-r2 cut, r1 sends them over r3 at once, by the way that was there before."""
    plane = RouterClient(Path(wan.topology["routers"]["r1"]["control"]["socket"]))
    wan.until(lambda: plane.state().repairs, "r1 has its repairs")
    before = plane.state()
    wan.weather.fail("r1-r2")
    around = taken(0)
    assert around["r3"] >= 40 > around["r2"]
    assert plane.state() == before
    wan.weather.heal("r1-r2")
    assert taken(0)["r2"] >= 40


def test_a_slice_is_given_refused_and_forgotten(wan: Wan) -> None:
    """Both ends of the link have its class; more than is left is refused; given up, nothing of it is left."""
    asked = {"bits_per_second": 60e6, "links": ["r1-r2"], "project": "default"}
    made = wan.call("PUT", "/v1/network/slices/gold", asked)
    wan.until(lambda: wan.get("/v1/network/slices")["items"][0]["programmed_at"], "both routers have it")
    planes = [RouterClient(Path(wan.topology["routers"][name]["control"]["socket"])) for name in ("r1", "r2")]
    for plane in planes:
        [interface] = plane.state().interfaces
        assert [(part.name, part.dscp, part.rate_bits_per_second) for part in interface.slices] == [
            ("gold", made["dscp"], 60e6)
        ]
    with pytest.raises(AssertionError, match="slice_too_large"):
        wan.call("PUT", "/v1/network/slices/more", {**asked, "project": "other"})
    paths = wan.get("/v1/network/paths?source=north&target=south")["paths"]
    thin = next(path for path in paths if "r1-r2" in path["links"])
    assert thin["reserved_bits_per_second"] == 60e6
    assert thin["promisable_bits_per_second"] <= 35e6
    wan.call("DELETE", "/v1/network/slices/gold")
    wan.until(lambda: not wan.get("/v1/network/slices")["items"], "it is gone")
    assert all(plane.state().interfaces == () for plane in planes)


def test_a_dead_path_is_told(wan: Wan) -> None:
    """Routing goes over r2, and around when that link fails; with both ways cut the pair is down two silent rounds later, and up when healed."""
    for link in ("r1-r2", "r1-r3"):
        wan.weather.fail(link)
    wan.until(lambda: not wan.pair("north", "south")["up"], "the pair is down")
    for link in ("r1-r2", "r1-r3"):
        wan.weather.heal(link)
    wan.until(lambda: wan.pair("north", "south")["up"], "the pair is up")
    kinds = [kind for kind, body in wan.events() if body.get("target") == "south"]
    assert kinds[-2:] == ["network.down", "network.up"]
