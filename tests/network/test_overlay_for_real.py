"""Three sites without any router: transfers go through the relay of the third where the link between two is thin, or down."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.lab import namespaces
from tests.network.wan import NAME, Wan, namespace, running_wan

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SIZE = 20_000_000
SITES = f"""
name: {NAME}
sites: {{hub: , north: , south: }}
links:
  - {{ends: [north, south], rate: 5 Mbit/s}}
  - {{ends: [north, hub], rate: 300 Mbit/s}}
  - {{ends: [hub, south], rate: 300 Mbit/s}}
"""


@pytest.fixture(scope="module")
def wan(emulation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wan]:
    """Sites joined to one another, the service and a relay at hub."""
    sites = ("hub", "north", "south")
    with running_wan(tmp_path_factory.mktemp("net"), keeps_data=True, text=SITES, sites=sites) as running:
        yield running


def received(site: str, interface: str) -> int:
    with namespaces.inside(namespace(site)):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == f"{interface}:")


def put(wan: Wan, tmp_path: Path, name: str, size: int = SIZE) -> None:
    """A dataset that lies whole at south."""
    source = tmp_path / name
    source.mkdir()
    (source / "content.bin").write_bytes(os.urandom(size))
    wan.type("data", "put", str(source), f"default/{name}")
    wan.type("data", "cp", f"default/{name}", "south")


def test_a_thin_link_is_left_for_the_relay(wan: Wan, tmp_path: Path) -> None:
    """20 MB from south to north come through hub, which sees only TLS; hardly anything over the thin link."""
    put(wan, tmp_path, "large")
    before = received("north", "to-hub"), received("north", "to-south")
    moved = wan.type("data", "cp", "default/large", "north")
    assert (moved["source"], moved["through"], moved["relay"]) == ("south", "relay", "hub")
    assert [(one["relay"], one["path"], one["bytes"] >= SIZE) for one in moved["ways"]] == [("hub", [], True)]
    assert received("north", "to-hub") - before[0] >= SIZE
    assert received("north", "to-south") - before[1] < SIZE / 10


def test_the_relay_keeps_to_the_promised_rate(wan: Wan, tmp_path: Path) -> None:
    """6 MB at 2 MB/s take no less than two seconds, also when nothing passes between the two any more."""
    put(wan, tmp_path, "paced", 6_000_000)
    wan.weather.fail("north-south")
    wan.until(lambda: not wan.pair("south", "north").get("up", True), "the pair is down")
    begun = time.monotonic()
    moved = wan.type("data", "cp", "default/paced", "north", "--rate", "2M")
    assert (moved["through"], moved["relay"], moved["multipath"]) == ("relay", "hub", False)
    assert time.monotonic() - begun > 2.0
    wan.weather.heal("north-south")


def test_both_ends_with_mptcp_use_it_and_say_so(wan: Wan, tmp_path: Path) -> None:
    """Between hub and south no relay is better, nothing is promised, and both kernels have MPTCP."""
    if not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("this kernel has no MPTCP")
    put(wan, tmp_path, "plain", 3_000_000)
    moved = wan.type("data", "cp", "default/plain", "hub")
    assert (moved["source"], moved["through"], moved["multipath"]) == ("south", "direct", True)
    assert [(one["relay"], one["multipath"]) for one in moved["ways"]] == [("", True)]


def test_one_to_many_goes_over_each_link_once(wan: Wan, tmp_path: Path) -> None:
    """From south to hub and north at once: hub passes on to north what it still receives, so south sends all of it once."""
    put(wan, tmp_path, "many")
    sent = received("hub", "to-south"), received("north", "to-south")
    hub, north = wan.type("data", "cp", "default/many", "hub", "north")
    assert (hub["source"], north["source"]) == ("south", "hub")
    assert (hub["through"], north["through"]) == ("direct", "direct")
    assert SIZE <= received("hub", "to-south") - sent[0] < 1.3 * SIZE
    assert received("north", "to-south") - sent[1] < SIZE / 10
