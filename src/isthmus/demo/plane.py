"""The control plane of the demonstration, and the commands that people type to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import isthmus
from isthmus.client.config import Profile, read_service_file
from isthmus.client.sync import Client
from isthmus.demo import certificate
from isthmus.demo.checks import DemoError
from isthmus.demo.screen import Screen
from isthmus.lab.processes import TAG, Daemons

COMMAND_SECONDS = 180
AGENTS_PORT = 8443


class Plane:
    """The service in a state directory of its own, started as an operator would, ended by pid."""

    def __init__(self, daemons: Daemons, state: Path, screen: Screen) -> None:
        self._daemons = daemons
        self._screen = screen
        self.state = state
        self.url = ""
        self.certificate: Path | None = None
        self.agents_url = ""

    @property
    def trusted(self) -> dict[str, str]:
        """The variable by which people trust its certificate; none where it has none."""
        return {"ISTHMUS_CA_FILE": str(self.certificate)} if self.certificate else {}

    def start(self, place: Callable[[Sequence[str]], list[str]] | None, *, address: str = "", region: str = "") -> None:
        """Start it and wait until it answers. `place` puts a command at the host in a network where the service belongs, with
        this address for agents, in this region; people reach it at the same address of this machine's loopback and of that host's."""
        words = ["up", "--state", str(self.state), "--no-join-local"]
        if address:
            self.certificate, key = certificate.make(self.state.parent, ["127.0.0.1", address])
            self.agents_url = f"https://{address}:{AGENTS_PORT}"
            words += ["--tls-cert", str(self.certificate), "--tls-key", str(key), "--region", region]
        shown = ["--listen", "127.0.0.1:0", *(["--listen", f"{address}:{AGENTS_PORT}"] if address else [])]
        self._screen.typed(["isthmus", *words, *shown, "--detach"])
        # Not detached here, so that it is known by its pid; `up` turns into the service.
        whole = [sys.executable, "-m", "isthmus", *words]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            whole += ["--listen", f"fd:{listener.fileno()}"]
            if place is not None:
                whole = place([*whole, "--listen", f"127.0.0.1:{listener.getsockname()[1]}", *shown[2:]])
            self._daemons.start("server", whole, environment=passed_on(), descriptors=[listener.fileno()])
        self._daemons.wait_ready("server", lambda: read_service_file(self.state).get("url"))
        self.url = str(read_service_file(self.state)["url"])
        self._screen.say(f"  {self.url}")

    def stop(self) -> None:
        """Stop it in an orderly way."""
        self._daemons.stop("server")

    def client(self, token: str, project: str) -> Client:
        """A client for a person of the demonstration."""
        trusted = str(self.certificate or "")
        return Client(profile=Profile(url=self.url, token=token, project=project, ca_file=trusted))


class Person:
    """Somebody at a prompt: with an environment of their own, typing commands of the CLI."""

    def __init__(self, name: str, environment: Mapping[str, str], directory: Path, screen: Screen) -> None:
        self.name = name
        # Tagged, so that a command left behind by a crash is found and ended too.
        self.environment = {**environment, TAG: str(directory.parent)}
        self._directory = directory
        self._screen = screen

    def type(
        self, *words: str, stdin: str = "", show: bool = True, note: str = "", check: bool = True, quiet: bool = False
    ) -> str:
        """Run `isthmus WORDS`; shows the command (with `note` after it) and what it says, returns its standard output.

        DemoError when it fails, unless `check` is off.
        """
        if show:
            self._screen.typed(["isthmus", *words])
            if note:
                self._screen.say(f"  {note}")
        done = subprocess.run(
            [sys.executable, "-m", "isthmus", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=_base() | self.environment,
            cwd=self._directory,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode and check:
            raise DemoError(
                f"isthmus {' '.join(words[:3])} failed with exit code {done.returncode}: "
                f"{(done.stderr or done.stdout).strip()[-1500:]}",
                remedy="Read the service's log with --keep.",
            )
        if show and not quiet:
            for line in (done.stderr + done.stdout).splitlines():
                self._screen.say(f"  {line}")
        return done.stdout


def passed_on() -> dict[str, str]:
    """The environment of a daemon of the demonstration."""
    kept = ("VIRTUAL_ENV", "SSL_CERT_FILE", "HOME", "USER", "LOGNAME", "ISTHMUS_LOG_LEVEL")
    return {name: os.environ[name] for name in kept if name in os.environ} | _this_isthmus()


def _this_isthmus() -> dict[str, str]:
    """The variable by which a child imports the very package that runs here, wherever it is started."""
    return {"PYTHONPATH": str(Path(isthmus.__file__).resolve().parents[1])}


def _base() -> dict[str, str]:
    """This process's environment without anything that points to another service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
    return kept | _this_isthmus() | {"NO_COLOR": "1"}
