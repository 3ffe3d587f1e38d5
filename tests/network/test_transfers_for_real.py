"""Datasets between sites of an emulated network: their packets go over the path that was chosen, and routers forget it afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.lab import namespaces
from isthmus.network.control.client import RouterClient
from tests.network.wan import Wan, namespace, running_wan

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SIZE = 40_000_000


@pytest.fixture(scope="module")
def wan(emulation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wan]:
    """Three sites, two paths between north and south, a service at hub, agents that keep data at north and south."""
    with running_wan(tmp_path_factory.mktemp("net"), keeps_data=True) as running:
        yield running


def _received(router: str, interface: str) -> int:
    with namespaces.inside(namespace(router)):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == f"{interface}:")


def test_a_copy_goes_over_the_fat_path_and_the_routers_forget_it(wan: Wan, tmp_path: Path) -> None:
    """Packets by themselves take the thin and fast path; a large copy is led over the fat one, and leaves no policy behind."""
    source = tmp_path / "large"
    source.mkdir()
    (source / "content.bin").write_bytes(os.urandom(SIZE))
    wan.type("data", "put", str(source), "default/large")
    wan.type("data", "cp", "default/large", "south")
    before = {router: _received(router, "to-r4") for router in ("r2", "r3")}
    moved = wan.type("data", "cp", "default/large", "north")
    assert (moved["source"], moved["through"], moved["state"]) == ("south", "direct", "done")
    (way,) = moved["ways"]  # as the receiving site counted it
    assert (way["path"][0], way["path"][-1], "r3" in way["path"], way["relay"]) == ("south", "north", True, "")
    assert way["bytes"] >= SIZE
    assert way["streams"] > 1
    taken = {router: _received(router, "to-r4") - before[router] for router in before}
    assert taken["r3"] >= SIZE, taken
    assert taken["r2"] < SIZE / 10, taken
    wan.until(lambda: not wan.get("/v1/network/policies")["items"], "the policy is gone")
    (source / "content.bin").write_bytes(os.urandom(SIZE))
    wan.type("data", "put", str(source), "default/by-a-time")
    wan.type("data", "cp", "default/by-a-time", "south")
    promised = wan.type("data", "cp", "default/by-a-time", "north", "--by", "+2m")
    assert (promised["source"], promised["state"], promised["late"]) == ("south", "done", False)
    assert promised["ended_at"] < promised["by"]
    assert [link for link in promised["links"] if link.endswith(">r3")], promised["links"]
    assert 0 < promised["stretches"][0]["bytes_per_second"] < 500e6 / 8
    assert "r3" in promised["ways"][0]["path"]
    wan.until(lambda: not wan.get("/v1/network/policies")["items"], "the promised one's policy is gone")
    for router in ("r1", "r4"):
        assert RouterClient(Path(wan.topology["routers"][router]["control"]["socket"])).state().policies == ()
    seen = wan.pair("south", "north")["available_bits_per_second"]
    assert seen is not None
