"""A real network in namespaces: packets take the links that the topology says, and nothing is left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.cli.main import call
from isthmus.domain.errors import Conflict, Forbidden, NotFound
from isthmus.lab import accounts, namespaces
from isthmus.lab.errors import LabError
from isthmus.lab.network.conditions import Brownout
from isthmus.lab.network.network import EmulatedNetwork, remove
from isthmus.lab.network.places import directory_of, networks
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command, show
from isthmus.lab.network.weather import Weather
from isthmus.lab.proc import alive
from isthmus.lab.processes import STATE, State, remove_stale

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("emulation")]
NAME = f"t{os.getpid()}"
TWO_PATHS = f"""
name: {NAME}
routers: [r1, r2, r3, r4]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1]}}
  - {{ends: [south, r4]}}
  - {{ends: [r1, r2], rate: 100 Mbit/s, delay: 2 ms}}
  - {{ends: [r2, r4], rate: 100 Mbit/s, delay: 2 ms}}
  - {{ends: [r1, r3], delay: 10 ms, jitter: 1 ms}}
  - {{ends: [r3, r4], delay: 10 ms}}
"""
SENT = 3000
SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def network(emulation: None) -> Iterator[Weather]:
    """Two sites, two paths between them."""
    with EmulatedNetwork(read_text(TWO_PATHS)):
        yield Weather(NAME)


def ping(target: str, count: int = 3) -> tuple[int, float]:
    """How many of the pings from north are answered, and the least round trip in milliseconds."""
    words = ["ping", "-n", "-q", "-c", str(count), "-i", "0.01", "-W", "1", target]
    done = subprocess.run(enter_command(NAME, "north", words), capture_output=True, text=True, check=False)
    received = re.search(r"(\d+) received", done.stdout)
    least = re.search(r"= ([\d.]+)/", done.stdout)
    return int(received[1]) if received else 0, float(least[1]) if least else 0.0


def arrived(weather: Weather, family: socket.AddressFamily, target: str) -> int:
    """How many of SENT datagrams from north reach south, sent so slowly that no queue overflows."""
    names = {site["name"]: site["namespace"] for site in show(weather.topology.name)["sites"]}
    with namespaces.inside(names["south"]):
        receiver = socket.socket(family, socket.SOCK_DGRAM)
    with namespaces.inside(names["north"]):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        receiver.bind((target, 9000))
        receiver.settimeout(0.5)
        for number in range(SENT):
            sender.sendto(number.to_bytes(4, "big"), (target, 9000))
            if number % 20 == 0:
                time.sleep(0.001)
        seen = set()
        try:
            while True:
                seen.add(receiver.recv(64))
        except TimeoutError:
            return len(seen)


@pytest.mark.parametrize("target", ["fd10:6::1", "10.64.6.1"])
def test_packets_take_the_fast_path_and_wait_as_long_as_its_links(network: Weather, target: str) -> None:
    """Both families; no round trip is faster than twice the delay, and the slow path is not taken."""
    answered, least = ping(target)
    assert answered == 3
    assert 8 <= least < 40


def test_a_cut_link_carries_nothing_until_it_is_healed_or_routed_around(network: Weather) -> None:
    """Failure, rerouting, healing, and rerouting back."""
    network.fail("r2-r4")
    assert ping("fd10:6::1")[0] == 0
    assert {link["name"]: link["state"] for link in show(NAME)["links"]}["r2-r4"] == "down"
    network.reroute()
    answered, least = ping("fd10:6::1")
    assert answered == 3
    assert least >= 38
    network.heal("r2-r4")
    network.reroute()
    assert ping("10.64.6.1")[1] < 38
    network.fail("r2")
    assert ping("10.64.6.1")[0] == 0
    network.heal()
    assert ping("10.64.6.1")[0] == 3


def test_a_partition_cuts_exactly_the_links_between_the_groups(network: Weather) -> None:
    """Inside a group packets still flow."""
    assert network.partition(["north", "r1"]) == ["r1-r2", "r1-r3"]
    assert ping("fd10:6::1")[0] == 0
    assert ping("fc00:1::ffff")[0] == 3
    network.heal()
    assert ping("fd10:6::1")[0] == 3


def test_a_brownout_loses_the_share_that_was_asked_for(network: Weather) -> None:
    """20 % each way: the count is within five standard deviations; healed, nothing is lost."""
    network.brown_out("r1-r2", Brownout(loss=0.2, delay_seconds=0.005))
    spread = 5 * (SENT * 0.2 * 0.8) ** 0.5
    assert abs(arrived(network, socket.AF_INET6, "fd10:6::1") - 0.8 * SENT) < spread
    assert show(NAME)["links"][2]["state"] == "brownout"
    network.heal("r1-r2")
    assert arrived(network, socket.AF_INET, "10.64.6.1") == SENT


def test_a_slow_link_holds_back_what_is_more_than_its_rate(network: Weather) -> None:
    """At 1 Mbit/s the queue overflows; the rest waits in it."""
    network.brown_out("r1-r2", Brownout(rate_bits_per_second=1e6))
    assert arrived(network, socket.AF_INET6, "fd10:6::1") < SENT
    network.heal("r1-r2")


def test_trains_are_cut_where_a_link_has_no_offload() -> None:
    """They cross the first link, wait in its delay, and lose single packets on the second; the stream arrives whole."""
    name = f"o{os.getpid()}"
    text = f"""
name: {name}
routers: [r1]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1], rate: 100 Mbit/s, delay: 2 ms, offload: true}}
  - {{ends: [r1, south], loss: 0.5 %}}
"""
    with EmulatedNetwork(read_text(text)):
        names = {site["name"]: site["namespace"] for site in show(name)["sites"]}
        with namespaces.inside(names["south"]):
            listening = socket.create_server(("::", 9001), family=socket.AF_INET6)
        with namespaces.inside(names["north"]):
            sender = socket.socket(socket.AF_INET6)
        with listening, sender:
            sender.connect(("fd10:3::1", 9001))
            receiver = listening.accept()[0]
            with receiver:
                thread = threading.Thread(target=lambda: (sender.sendall(bytes(4 << 20)), sender.shutdown(1)))
                thread.start()
                got = 0
                while data := receiver.recv(1 << 20):
                    got += len(data)
                thread.join()
        assert got == 4 << 20
        sizes = {}
        for node in ("r1", "south"):
            words = enter_command(name, node, ["cat", "/proc/net/dev"])
            lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
            for line in lines:
                interface, _colon, counts = line.partition(":")
                if interface.strip() in ("to-north", "to-r1"):
                    fields = counts.split()
                    sizes[node] = int(fields[0]) / int(fields[1])
        assert sizes["r1"] > 1514 >= sizes["south"] > 1000
        with pytest.raises(LabError, match="trains"):
            Weather(name).brown_out("north-r1", Brownout(loss=0.1))


def test_what_is_not_there_is_named(network: Weather) -> None:
    """Wrong names are refused with the right ones; a link without delay gets none later."""
    with pytest.raises(NotFound, match="r1-r2"):
        network.fail("r1-r9")
    with pytest.raises(NotFound):
        network.partition(["r9"])
    with pytest.raises(LabError, match="without a delay"):
        network.brown_out("north-r1", Brownout(delay_seconds=0.1))
    with pytest.raises(Conflict):
        EmulatedNetwork(read_text(TWO_PATHS)).start()
    assert ping("fd10:6::1")[0] == 3


def test_without_root_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is said before anything is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Forbidden, match="root"):
        EmulatedNetwork(read_text(TWO_PATHS)).start()


@pytest.mark.parametrize("way", ["down", "the next lab"])
def test_after_a_crash_of_its_owner_everything_is_removed_and_nothing_else(tmp_path: Path, way: str) -> None:
    """kill -9 of the keeper with daemons running: processes, namespaces, accounts and files go; a stranger's stay."""
    name = f"k{os.getpid()}{way[0]}"
    file = tmp_path / "wan.yaml"
    file.write_text(
        TWO_PATHS.replace(NAME, name).replace("{north: , south: }", "{north: {daemons: {ssh: {}}}, south: }")
    )
    stranger = f"{namespaces.PREFIX}{name}-other"
    namespaces.create(stranger)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "isthmus.lab.network.keeper", str(file)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": SOURCE, "PATH": os.environ["PATH"]},
        ) as keeper:
            assert keeper.stdout is not None
            assert "ready" in json.loads(keeper.stdout.readline())
            keeper.kill()
        states = [State.read(path.parent) for path in directory_of(name).glob(f"**/{STATE}")]
        processes = [known for state in states for known in state.processes.values()]
        assert len(processes) >= 3
        assert all(alive(known) for known in processes)
        made = [space for state in states for space in state.namespaces]
        frozen = subprocess.Popen(enter_words(made[0]))
        made_accounts = [account for state in states for account in state.accounts]
        assert made_accounts
        if way == "down":
            assert remove(name)
        else:
            remove_stale()
        assert frozen.wait(10) == -signal.SIGKILL
        assert not any(alive(known) for known in processes)
        assert not any(namespaces.exists(space) for space in made)
        assert not directory_of(name).exists()
        assert not any(accounts.exists(account) for account in made_accounts)
        assert name not in networks()
        assert namespaces.exists(stranger)
    finally:
        namespaces.remove(stranger)


def enter_words(namespace: str) -> list[str]:
    """A program that stays in a namespace."""
    return ["nsenter", f"--net={namespaces.NAMESPACES / namespace}", "--", "sleep", "600"]


def test_twelve_sites_and_twenty_routers() -> None:
    """A ring with chords: every site reaches the site across, over both families."""
    routers = [f"r{number}" for number in range(20)]
    lines = [f"  - {{ends: [r{one}, r{(one + 1) % 20}], rate: 1 Gbit/s, delay: 1 ms}}" for one in range(20)]
    lines += [f"  - {{ends: [r{one}, r{one + 10}], delay: 2 ms}}" for one in (0, 5)]
    lines += [f"  - {{ends: [s{number}, r{number}]}}" for number in range(12)]
    sites = ", ".join(f"s{number}: " for number in range(12))
    name = f"b{os.getpid()}"
    text = "\n".join([f"name: {name}", f"routers: [{', '.join(routers)}]", f"sites: {{{sites}}}", "links:", *lines])
    with EmulatedNetwork(read_text(text)):
        addresses = {site["name"]: site["addresses"] for site in show(name)["sites"]}
        for number in range(6):
            for address in addresses[f"s{number + 6}"]:
                words = ["ping", "-n", "-c", "1", "-W", "2", address]
                assert (
                    subprocess.run(enter_command(name, f"s{number}", words), stdout=subprocess.DEVNULL).returncode == 0
                )


def test_the_commands_start_worsen_show_and_remove_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`isthmus lab`: data on stdout, exit codes as everywhere; the network outlives the command that started it."""
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    name = f"i{os.getpid()}"
    file = tmp_path / "wan.yaml"
    file.write_text(TWO_PATHS.replace(NAME, name).replace("100 Mbit/s", "much", 1))
    assert call(["lab", "up", str(file)]) == 65
    assert "links.2.rate" in capsys.readouterr().err
    file.write_text(TWO_PATHS.replace(NAME, name))
    assert call(["lab", "up", str(file)]) == 0
    try:
        assert capsys.readouterr().out == f"{name}\n"
        assert call(["lab", "up", str(file)]) == 73
        assert call(["lab", "fail", "--network", name, "r1-r2"]) == 0
        assert call(["lab", "fail", "--network", name, "r1-r9"]) == 66
        assert call(["lab", "brownout", "--network", name, "r1-r3", "--loss", "5%"]) == 0
        capsys.readouterr()
        assert call(["lab", "show", "--network", name, "--json"]) == 0
        links = {link["name"]: link for link in json.loads(capsys.readouterr().out)["links"]}
        assert [links[which]["state"] for which in ("r1-r2", "r1-r3", "r3-r4")] == ["down", "brownout", "up"]
        assert links["r1-r3"]["loss"] == 0.05
        assert call(["lab", "heal", "--network", name, "--all"]) == 0
        assert call(["lab", "heal", "--network", name]) == 64
        capsys.readouterr()
        assert call(["lab", "show", "--network", name]) == 0
        assert "down" not in capsys.readouterr().out
    finally:
        assert call(["lab", "down", "--network", name]) == 0
    assert name not in networks()
    assert call(["lab", "show", "--network", name]) == 66
