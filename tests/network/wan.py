"""The service, agents and routers in an emulated network, as tests start them: three sites, two paths between north and south."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from isthmus.client.network import declare_network
from isthmus.domain.networkfile import read_network
from isthmus.lab import namespaces
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import declared, show
from isthmus.lab.network.weather import Weather

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

    def agent(self, site: str, *, keeps_data: bool = False) -> None:
        """Join a site and start its agent, which measures and reflects, and may keep data that others can fetch."""
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
        if keeps_data:
            address = next(one for one in show(NAME)["sites"] if one["name"] == site)["addresses"][0]
            measuring += ["--data-root", str(directory / "data"), "--data-listen", f"[{address}]:7422"]
        if site == "hub":
            measuring += ["--relay", f"[{address}]:7423"]
        if site == "north" and "r1" in self.topology["routers"]:
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

    def type(self, *words: str) -> Any:
        """What `isthmus WORDS --json` answers the administrator, typed at hub."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
        environment |= {"PYTHONPATH": f"{SOURCE / 'src'}", "ISTHMUS_URL": self.url}
        environment |= {
            "ISTHMUS_TOKEN_FILE": str(self.directory / "state" / "admin-token"),
            "ISTHMUS_CA_FILE": str(self.certificate),
        }
        enter = ["nsenter", f"--net={namespaces.NAMESPACES / namespace('hub')}", "--"]
        done = subprocess.run(
            [*enter, sys.executable, "-m", "isthmus", *words, "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

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


@contextmanager
def running_wan(
    directory: Path, *, keeps_data: bool = False, text: str = WAN, sites: Sequence[str] = ("north", "south")
) -> Iterator[Wan]:
    """A service at hub, agents at some sites; with `keeps_data` these keep data and can be dialled."""
    with EmulatedNetwork(read_text(text)):
        address = next(site for site in show(NAME)["sites"] if site["name"] == "hub")["addresses"][1]
        certificate = directory / "server.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-days", "2", "-subj", "/CN=isthmus-test", "-addext", f"subjectAltName=IP:{address}"]
        words += ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
        subprocess.run(words, check=True, capture_output=True)
        topology = declared(NAME)
        if "r1" in topology["routers"]:
            topology["routers"]["r1"]["control"]["agent"] = "north"
        running = Wan(directory, Weather(NAME), topology, f"https://{address}:8800", certificate)
        try:
            running.serve()
            call = next(declare_network(read_network(topology)))
            running.call("PUT", "/v1/network", call.json)  # type: ignore[union-attr]
            for site in sites:
                running.agent(site, keeps_data=keeps_data)
            yield running
        finally:
            for name in list(running.processes):
                running.stop(name)
