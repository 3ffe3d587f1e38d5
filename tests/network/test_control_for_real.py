"""Real routers in namespaces are programmed: packets take the path of their marks, and what is not ours stays as it is."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from isthmus.domain.errors import Forbidden, Invalid, NotFound, Refused, Unavailable
from isthmus.lab import namespaces
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.places import control_directory
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command, show
from isthmus.lab.network.weather import Weather
from isthmus.lab.proc import alive, send_signal
from isthmus.lab.processes import State
from isthmus.network.control.client import RouterClient
from isthmus.network.control.desired import DesiredState, Match, Slice, SlicedInterface, WeightedPath
from isthmus.network.control.failover import Candidate, Failover, ProtectedPolicy
from isthmus.network.control.plan import Attachment, Fabric, Router, Steering, Way, policy_name
from isthmus.network.control.routes import PROTOCOL
from isthmus.network.measurement.liveness import Liveness, Pace, ProbedPath
from isthmus.network.measurement.reflector import reflecting

pytestmark = pytest.mark.real
NAME = f"c{os.getpid()}"
WAN = f"""
name: {NAME}
control: true
routers: [r1, r2, r3, r4]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1]}}
  - {{ends: [south, r4]}}
  - {{ends: [r1, r2], rate: 200 Mbit/s}}
  - {{ends: [r2, r4]}}
  - {{ends: [r1, r3], rate: 200 Mbit/s}}
  - {{ends: [r3, r4]}}
"""
SOUTH6, SOUTH4 = "fd10:6::1", "10.64.6.1"
R2, R3 = (Way(via=("r2",)),), (Way(via=("r3",)),)
APPLICATION = 0xA9000001
SLICE = SlicedInterface(
    name="to-r3",
    rate_bits_per_second=190e6,
    slices=(Slice(name="gold", dscp=46, rate_bits_per_second=100e6, priority=0),),
)


@dataclass(frozen=True, slots=True)
class Wan:
    """The running network as the tests see it."""

    directory: Path
    planes: dict[str, RouterClient]
    fabric: Fabric

    def states(self, *more: Steering) -> dict[str, DesiredState]:
        """All routers with the plain path over r2 both ways, and what a test adds."""
        plain = [
            Steering(name="there", source="north", target="south", ways=R2),
            Steering(name="back", source="south", target="north", ways=R2),
        ]
        return self.fabric.states([*plain, *more], {"r1": (SLICE,)})

    def apply(self, *more: Steering) -> int:
        """Apply them; how many things changed."""
        return sum(self.planes[name].apply(state).total for name, state in self.states(*more).items())


@pytest.fixture(scope="module")
def wan(emulation: None) -> Iterator[Wan]:
    """Two sites, two paths, a daemon at each router."""
    with EmulatedNetwork(read_text(WAN)) as network:
        found = show(NAME)
        addresses = {site["name"]: site["addresses"] for site in found["sites"]}
        yield Wan(
            network.directory,
            {router["name"]: RouterClient(Path(router["control"])) for router in found["routers"]},
            Fabric(
                [Router(name=router["name"], locator=router["locator"]) for router in found["routers"]],
                [
                    Attachment(
                        site=site,
                        router=router,
                        prefixes=(address6.removesuffix("1") + "/64", address4.removesuffix("1") + "0/24"),
                        neighbour4=address4,
                    )
                    for site, router in (("north", "r1"), ("south", "r4"))
                    for address6, address4 in [addresses[site]]
                ],
            ),
        )


def namespace(node: str) -> str:
    return f"isthmus-{NAME}-{node}"


def received(node: str, interface: str) -> int:
    """Packets that came in."""
    with namespaces.inside(namespace(node)):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.split()[0] == f"{interface}:")


def taken(send: Any) -> dict[str, int]:
    """How many packets came to r2 and r3 from r1 meanwhile."""
    before = {router: received(router, "to-r1") for router in ("r2", "r3")}
    send()
    time.sleep(0.05)
    return {router: received(router, "to-r1") - before[router] for router in before}


def send_marked(kind: str, family: socket.AddressFamily, count: int = 50) -> None:
    """Datagrams from north to south with one kind of mark, of one host to one destination and port."""
    with namespaces.inside(namespace("north")):
        sender = socket.socket(family, socket.SOCK_DGRAM)
    target: tuple[Any, ...] = (SOUTH4, 9) if family == socket.AF_INET else (SOUTH6, 9, 0, 0)
    with sender:
        option = struct.pack("!BBBBI", 0, 0, 0x1E, 4, APPLICATION)
        if kind == "dscp" and family == socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
        elif kind == "dscp":
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 46 << 2)
        elif kind == "flow label":
            sender.setsockopt(socket.IPPROTO_IPV6, 33, 1)  # IPV6_FLOWINFO_SEND
            target = (SOUTH6, 9, 0xABCDE, 0)
        elif kind == "hop-by-hop option":
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, option)
        elif kind == "destination option":
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, option)
        sender.connect(target)
        for _ in range(count):
            try:
                sender.send(b"marked")
            except ConnectionRefusedError:
                sender.send(b"marked")  # the word that nobody listens came back; it says that packets arrive


MARKED = {
    "dscp": Match(dscp=46),
    "flow label": Match(flow_label=0xABCDE),
    "hop-by-hop option": Match(application_id=APPLICATION),
    "destination option": Match(application_id=APPLICATION),
}


@pytest.mark.parametrize(("kind", "family"), [("dscp", socket.AF_INET), *((kind, socket.AF_INET6) for kind in MARKED)])
def test_two_flows_of_one_host_take_different_paths_by_their_marks_alone(
    wan: Wan, kind: str, family: socket.AddressFamily
) -> None:
    """Plain ones over r2, marked ones over r3."""
    wan.apply(Steering(name="marked", source="north", target="south", ways=R3, match=MARKED[kind]))
    plain = taken(lambda: send_marked("none", family))
    marked = taken(lambda: send_marked(kind, family))
    assert plain["r2"] >= 50 > 10 > plain["r3"]
    assert marked["r3"] >= 50 > 10 > marked["r2"]


def test_a_path_changes_under_traffic_without_a_lost_packet(wan: Wan) -> None:
    """Forty changes between one path and two, of several weights; every datagram arrives."""
    wan.apply()
    policy = policy_name("there", "fd10:6::/64")
    over2, over3 = (WeightedPath(segments=(f"fc00:{number}::1", "fc00:4::d6")) for number in (2, 3))
    turns = [(over3,), (over2, over3), (over2,), (over3, WeightedPath(segments=over2.segments, weight=5))]
    with namespaces.inside(namespace("south")):
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with namespaces.inside(namespace("north")):
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ended, sent = threading.Event(), 0

    def flood() -> None:
        nonlocal sent
        while not ended.is_set():
            for _ in range(20):
                sender.send(sent.to_bytes(4, "big"))
                sent += 1
            time.sleep(0.004)

    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        receiver.bind((SOUTH6, 7000))
        receiver.settimeout(0.5)
        sender.connect((SOUTH6, 7000))
        thread = threading.Thread(target=flood)

        def change() -> None:
            thread.start()
            for number in range(40):
                assert wan.planes["r1"].set_paths(policy, turns[number % 4]).made == 1
                time.sleep(0.01)
            ended.set()
            thread.join()

        used = taken(change)
        seen = set()
        try:
            while True:
                seen.add(receiver.recv(16))
        except TimeoutError:
            pass
    assert len(seen) == sent > 500
    assert min(used.values()) > 50


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_INET])
def test_flows_are_spread_over_paths_by_weight_and_each_keeps_to_its_own(
    wan: Wan, family: socket.AddressFamily
) -> None:
    """Three to one: of 200 flows the share is within five standard deviations, and no flow is on both paths."""
    ways = (Way(via=("r2",), weight=3), Way(via=("r3",), weight=1))
    wan.apply(Steering(name="split", source="north", target="south", ways=ways, match=MARKED["dscp"]))
    assert wan.planes["r1"].reconcile().total == 0
    used = [taken(lambda: send_marked("dscp", family, count=10)) for _ in range(20)]
    assert all(min(way.values()) < 10 for way in used)
    many = taken(lambda: [send_marked("dscp", family, count=1) for _ in range(200)])
    assert abs(many["r2"] - 150) < 5 * (200 * 0.75 * 0.25) ** 0.5


def test_what_is_right_is_not_touched_and_what_is_wrong_is_corrected(wan: Wan) -> None:
    """A removed route, rule, class and table come back; then there is nothing to do."""
    wan.apply()
    assert wan.apply() == 0
    with namespaces.inside(namespace("r1")):
        netlink = IPRoute()
    with netlink:
        netlink.route("del", dst="fd10:6::/64", family=socket.AF_INET6, table=40001, proto=PROTOCOL)
        netlink.rule("del", family=socket.AF_INET, priority=1001, protocol=PROTOCOL)
        index = netlink.link_lookup(ifname="to-r3")[0]
        netlink.tc("del-class", index=index, handle=0x15750002, parent=0x15750001)
    subprocess.run(
        enter_command(NAME, "r1", ["nft", "flush", "chain", "inet", "isthmus_control", "select"]), check=True
    )
    assert wan.planes["r1"].reconcile().made == 4
    assert wan.planes["r1"].reconcile().total == 0
    assert taken(lambda: send_marked("none", socket.AF_INET6))["r2"] >= 50


def test_a_daemon_that_is_killed_leaves_the_paths_and_changes_nothing_when_it_is_back(wan: Wan) -> None:
    """kill -9; packets go on by their marks; a new daemon finds everything right."""
    wan.apply(Steering(name="marked", source="north", target="south", ways=R3, match=MARKED["dscp"]))
    known = State.read(wan.directory).processes["control-r1"]
    send_signal(known, signal.SIGKILL)
    while alive(known):
        time.sleep(0.01)
    with pytest.raises(Unavailable):
        wan.planes["r1"].links()
    assert taken(lambda: send_marked("dscp", socket.AF_INET))["r3"] >= 50
    config = str(control_directory(wan.directory, "r1") / "config.json")
    words = [sys.executable, "-m", "isthmus.network.control.daemon", config]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = subprocess.Popen(enter_command(NAME, "r1", words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)  # fmt: skip
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        assert wan.planes["r1"].reconcile().total == 0
        second = subprocess.run(enter_command(NAME, "r1", words), capture_output=True, text=True, env=environment, timeout=30)  # fmt: skip
        assert second.returncode == 1
        assert "Another process" in second.stderr
        other = Path(config).with_name("other.json")
        other.write_text(Path(config).read_text().replace('/state"', '/other"'))
        third = subprocess.run(enter_command(NAME, "r1", [*words[:-1], str(other)]), capture_output=True, text=True, env=environment, timeout=30)  # fmt: skip
        assert third.returncode == 1
        assert "programs this network" in third.stderr
        daemon.terminate()
        _out, said = daemon.communicate(timeout=10)
        assert b"corrected" not in said
        removed = subprocess.run(enter_command(NAME, "r1", [*words, "--remove"]), capture_output=True, text=True, env=environment, timeout=30)  # fmt: skip
        assert removed.stdout.startswith("removed ")
        assert ours("r1") == []
    finally:
        daemon.kill()
        daemon.communicate()
    again = subprocess.Popen(enter_command(NAME, "r1", words), stdout=subprocess.PIPE, env=environment)
    assert again.stdout is not None
    again.stdout.readline()  # for the tests that follow; it ends with the network
    again.stdout.close()
    again.returncode = 0


def ours(node: str) -> list[str]:
    """What a router's kernel has of ours."""
    command = "ip -4 rule; ip -6 rule; ip -4 route show table all; ip -6 route show table all; nft list tables; ip link; tc qdisc"
    shown = subprocess.run(enter_command(NAME, node, ["sh", "-c", command]), capture_output=True, text=True, check=True)
    words = (f"proto {PROTOCOL}", "isthmus-sr", "isthmus_control", "1575:")
    return [line for line in shown.stdout.splitlines() if any(word in line for word in words)]


def test_nothing_of_ours_is_left_and_nothing_of_others_is_touched(wan: Wan) -> None:
    """A stranger's route, rule, table and mark stay; the link's own rate is there again and carries packets."""
    wan.apply()
    strangers = (
        "ip -6 route add fd99::/64 dev lo table 40001; ip -6 rule add pref 1001 fwmark 7 lookup 99 protocol 99;"
        "nft add table inet stranger; nft add chain inet stranger c"
    )
    subprocess.run(enter_command(NAME, "r1", ["sh", "-c", strangers]), check=True)
    for plane in wan.planes.values():
        plane.apply(DesiredState())
    assert [ours(node) for node in wan.planes] == [[], [], [], []]
    shown = subprocess.run(
        enter_command(NAME, "r1", ["sh", "-c", "ip -6 route show table 40001; ip -6 rule; nft list tables; tc qdisc show dev to-r3"]),
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for word in ("fd99::/64", "fwmark 0x7", "inet stranger", "tbf"):
        assert word in shown
    words = ["ping", "-n", "-c", "1", "-W", "2", "fc00:3::ffff"]
    assert subprocess.run(enter_command(NAME, "r1", words), stdout=subprocess.DEVNULL).returncode == 0
    remove = "ip -6 route del fd99::/64 table 40001; ip -6 rule del pref 1001 fwmark 7 lookup 99; nft delete table inet stranger"
    subprocess.run(enter_command(NAME, "r1", ["sh", "-c", remove]), check=True)


def test_what_is_not_permitted_is_refused_and_changes_nothing(wan: Wan) -> None:
    """Other destinations, other routers' SIDs, unknown interfaces, policies and requests; other accounts."""
    wan.apply()
    good = wan.states()["r1"]
    plane = wan.planes["r1"]
    for wrong, error in (
        (DesiredState(segments=wan.states()["r2"].segments), Forbidden),
        (DesiredState(interfaces=(SlicedInterface(name="lo", rate_bits_per_second=1e6, slices=()),)), Forbidden),
    ):
        with pytest.raises(error):
            plane.apply(wrong)
    with pytest.raises(Forbidden):
        plane.set_paths(policy_name("there", "fd10:6::/64"), (WeightedPath(segments=("2001:db8::1",)),))
    with pytest.raises(NotFound):
        plane.set_paths("nobody", (WeightedPath(segments=("fc00:2::1",)),))
    with pytest.raises(Invalid, match="not a request"):
        plane.ask({"do": "format"})
    assert plane.state() == good
    assert plane.reconcile().total == 0
    os.seteuid(65534)
    try:
        with pytest.raises(Forbidden, match="65534"):
            plane.state()
    finally:
        os.seteuid(0)


def test_a_queueing_discipline_of_somebody_else_is_refused(wan: Wan) -> None:
    """An interface that is shaped already by something that we do not know stays so."""
    subprocess.run(
        enter_command(NAME, "r2", ["tc", "qdisc", "add", "dev", "to-r4", "root", "handle", "7:", "htb"]), check=True
    )
    sliced = SlicedInterface(name="to-r4", rate_bits_per_second=1e7, slices=())
    with pytest.raises(Refused, match="htb"):
        wan.planes["r2"].apply(DesiredState(interfaces=(sliced,)))
    wan.planes["r2"].apply(wan.states()["r2"])
    subprocess.run(enter_command(NAME, "r2", ["tc", "qdisc", "del", "dev", "to-r4", "root"]), check=True)


def test_a_policy_moves_away_from_a_failed_link_and_back(wan: Wan) -> None:
    """A link that fails far from the ingress router; packets arrive over the other path."""
    wan.apply()
    weather = Weather(NAME)
    ends = {
        (end, f"to-{link.other(end)}"): link.name
        for link in weather.topology.links
        for end in link.ends
        if end in wan.planes
    }
    moved: list[Candidate] = []
    changed = threading.Semaphore(0)

    def told(_policy: ProtectedPolicy, path: Candidate) -> None:
        moved.append(path)
        changed.release()

    protected = ProtectedPolicy(
        router="r1",
        policy=policy_name("there", "fd10:6::/64"),
        candidates=tuple(
            Candidate(
                paths=(WeightedPath(segments=(f"fc00:{number}::1", "fc00:4::d6")),),
                links=frozenset({f"r1-r{number}", f"r{number}-r4"}),
            )
            for number in (2, 3)
        ),
    )
    with Failover(wan.planes, ends, [protected], told=told, wait_to_restore_seconds=0.2):
        weather.fail("r2-r4")
        assert changed.acquire(timeout=20)
        assert taken(lambda: send_marked("none", socket.AF_INET6))["r3"] >= 50
        weather.heal("r2-r4")
        assert changed.acquire(timeout=20)
    assert moved == [protected.candidates[1], protected.candidates[0]]
    assert taken(lambda: send_marked("none", socket.AF_INET6))["r2"] >= 50


def test_a_policy_moves_away_from_a_link_that_is_up_and_carries_nothing(wan: Wan) -> None:
    """r2 silently drops what comes in; packets of measurement over each path by its flow label find out."""
    labels = {"over r2": (1, R2), "over r3": (2, R3)}
    wan.apply(
        *(
            Steering(name=f"probe{label}", source="north", target="south", ways=ways, match=Match(flow_label=label))
            for label, ways in labels.values()
        )
    )
    protected = ProtectedPolicy(
        router="r1",
        policy=policy_name("there", "fd10:6::/64"),
        candidates=tuple(
            Candidate(paths=(WeightedPath(segments=(f"fc00:{name[-1]}::1", "fc00:4::d6")),), links=frozenset({name}))
            for name in labels
        ),
    )
    words: list[tuple[str, bool]] = []
    heard = threading.Semaphore(0)
    failover = Failover(wan.planes, {}, [protected])

    def told(name: str, alive: bool) -> None:
        failover.report(name, is_whole=alive)
        words.append((name, alive))
        heard.release()

    with namespaces.inside(namespace("south")):
        reflector = reflecting(["fd10::/16"], port=8860, wait_seconds=0.02)
        reflector.__enter__()
    with namespaces.inside(namespace("north")):
        probed = [
            ProbedPath(name=name, target=SOUTH6, port=8860, flow_label=label) for name, (label, _ways) in labels.items()
        ]
        liveness = Liveness(probed, told, Pace(interval_seconds=0.02, missing_count=25, answered_count=10))
    drop = 'nft add table ip6 hole; nft add chain ip6 hole c "{ type filter hook prerouting priority -300 ; }"; nft add rule ip6 hole c iifname to-r1 drop'
    try:
        with liveness:
            subprocess.run(enter_command(NAME, "r2", ["sh", "-c", drop]), check=True)
            assert heard.acquire(timeout=30)
            assert taken(lambda: send_marked("none", socket.AF_INET6))["r3"] >= 50
            subprocess.run(enter_command(NAME, "r2", ["nft", "delete", "table", "ip6", "hole"]), check=True)
            assert heard.acquire(timeout=30)
            assert taken(lambda: send_marked("none", socket.AF_INET6))["r2"] >= 50
    finally:
        reflector.__exit__(None, None, None)
    assert words == [("over r2", False), ("over r2", True)]
