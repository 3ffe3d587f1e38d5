"""The service, agents and routers in an emulated network: paths are measured, steered, moved after a failure, and forgotten."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.client.network import declare_network
from isthmus.domain.networkfile import read_network
from isthmus.lab import namespaces
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import declared, show
from isthmus.lab.network.weather import Weather
from isthmus.network.control.client import RouterClient

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
NAME = f"n{os.getpid()}"
SOURCE = Path(__file__).parents[2]
PATIENCE_SECONDS = 45.0
WAN = f"""
name: {NAME}
control: true
routers: [r1, r2, r3, r4]
sites: {{hub: , north: , south: }}
links:
  - {{ends: [hub, r1]}}
  - {{ends: [north, r1]}}
  - {{ends: [south, r4]}}
  - {{ends: [r1, r2], rate: 100 Mbit/s, delay: 5 ms}}
  - {{ends: [r2, r4], delay: 5 ms}}
  - {{ends: [r1, r3], rate: 500 Mbit/s, delay: 15 ms}}
  - {{ends: [r3, r4], delay: 15 ms}}
"""


def namespace(node: str) -> str:
    return f"isthmus-{NAME}-{node}"


@dataclass
class Wan:
    """The running service as the tests see it."""

    directory: Path
    weather: Weather
    topology: dict[str, Any]
    url: str
    certificate: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, node: str, *words: str) -> None:
        """Run a Python module in a node's network."""
        log = (self.directory / f"{name}.log").open("ab")
        environment = {**os.environ, "PYTHONPATH": f"{SOURCE / 'src'}"}
        enter = ["nsenter", f"--net={namespaces.NAMESPACES / namespace(node)}", "--"]
        self.processes[name] = subprocess.Popen(
            [*enter, sys.executable, "-m", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()

    def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def serve(self) -> None:
        """Start the service at hub; it speaks to the routers of its machine but r1, which north's agent speaks to."""
        sockets = [
            word
            for name, router in self.topology["routers"].items()
            if name != "r1"
            for word in ("--router", router["control"]["socket"])
        ]
        host = self.url.removeprefix("https://")
        state = str(self.directory / "state")
        tls = ("--tls-cert", str(self.certificate), "--tls-key", str(self.certificate.with_suffix(".key")))
        self.start(
            "server",
            "hub",
            "isthmus.server",
            "--state",
            state,
            "--listen",
            host,
            *tls,
            "--measure-every",
            "1.5",
            *sockets,
        )
        self.until(lambda: self.get("/v1/health")["status"] == "ok", "the service answers")

    def agent(self, site: str) -> None:
        """Join a site and start its agent, which measures and reflects."""
        directory = self.directory / site
        directory.mkdir()
        join = {"name": site, "kind": "null", "mode": "agent", "config": {}, "accounts": {"*": ""}}
        self.call("POST", "/v1/sites", join)
        for file, content in (
            ("site.yaml", 'kind: "null"\nsettings: {}\n'),
            ("token", self.call("POST", f"/v1/sites/{site}/enrolments")["token"]),
        ):
            (directory / file).touch(mode=0o600)
            (directory / file).write_text(content)
        measuring = ["--reflect", "fd10::/16", "--measure", "fd10::/16"]
        if site == "north":
            measuring += ["--router", self.topology["routers"]["r1"]["control"]["socket"]]
        self.start(
            site,
            site,
            *("isthmus.agent.main", "--url", self.url, "--site-config", str(directory / "site.yaml")),
            *("--state", str(directory / "state"), "--enrol-token-file", str(directory / "token")),
            *("--ca-file", str(self.certificate), *measuring),
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request as the administrator, from hub."""
        token = (self.directory / "state" / "admin-token").read_text().strip()
        with (
            namespaces.inside(namespace("hub")),
            httpx.Client(
                verify=ssl.create_default_context(cafile=str(self.certificate)), base_url=self.url, timeout=20.0
            ) as client,
        ):
            answer = client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """Read."""
        return self.call("GET", path)

    def until(self, met: Callable[[], Any], what: str) -> Any:
        """What `met` answers, once it is something; AssertionError with the logs' ends when the patience is over."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            try:
                if found := met():
                    return found
            except (httpx.HTTPError, OSError):
                pass
            time.sleep(0.2)
        lines = [
            f"{path.stem}: {line}"
            for path in self.directory.glob("*.log")
            for line in [line for line in path.read_text().splitlines() if ".access" not in line][-12:]
        ]
        raise AssertionError("\n".join([f"never: {what}", *lines]))

    def pair(self, source: str, target: str) -> dict[str, Any]:
        """What is known between two sites."""
        pairs = self.get("/v1/network")["pairs"]
        found: dict[str, Any] = next((one for one in pairs if (one["source"], one["target"]) == (source, target)), {})
        return found

    def policy(self, name: str) -> dict[str, Any]:
        """A policy; empty when there is none."""
        items = self.get("/v1/network/policies")["items"]
        found: dict[str, Any] = next((one for one in items if one["name"] == name), {})
        return found

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What happened to the network."""
        connection = sqlite3.connect(f"file:{self.directory / 'state' / 'isthmus.db'}?mode=ro", uri=True)
        try:
            rows = connection.execute("SELECT kind, body FROM events WHERE kind LIKE 'network.%' ORDER BY seq")
            return [(kind, json.loads(body)) for kind, body in rows]
        finally:
            connection.close()


@pytest.fixture(scope="module")
def wan(emulation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wan]:
    """Three sites, two paths between north and south, a service at hub, agents at north and south."""
    directory = tmp_path_factory.mktemp("net")
    with EmulatedNetwork(read_text(WAN)):
        address = next(site for site in show(NAME)["sites"] if site["name"] == "hub")["addresses"][1]
        certificate = directory / "server.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-days", "2", "-subj", "/CN=isthmus-test", "-addext", f"subjectAltName=IP:{address}"]
        words += ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
        subprocess.run(words, check=True, capture_output=True)
        topology = declared(NAME)
        topology["routers"]["r1"]["control"]["agent"] = "north"
        running = Wan(directory, Weather(NAME), topology, f"https://{address}:8800", certificate)
        try:
            running.serve()
            call = next(declare_network(read_network(topology)))
            running.call("PUT", "/v1/network", call.json)  # type: ignore[union-attr]
            for site in ("north", "south"):
                running.agent(site)
            yield running
        finally:
            for name in list(running.processes):
                running.stop(name)


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


def test_a_dead_path_is_told(wan: Wan) -> None:
    """Routing goes over r2; when that link fails, two silent rounds later the pair is down, and up again when it is healed."""
    wan.weather.fail("r1-r2")
    wan.until(lambda: not wan.pair("north", "south")["up"], "the pair is down")
    wan.weather.heal("r1-r2")
    wan.until(lambda: wan.pair("north", "south")["up"], "the pair is up")
    kinds = [kind for kind, body in wan.events() if body.get("target") == "south"]
    assert kinds[-2:] == ["network.down", "network.up"]
