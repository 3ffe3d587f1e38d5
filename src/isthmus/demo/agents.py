"""The agents of the demonstration's clusters: they dial the service, run its jobs, keep datasets, and speak to routers' daemons."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from isthmus.demo.plane import Plane, passed_on
from isthmus.demo.screen import Screen
from isthmus.lab.network.showing import declared
from isthmus.lab.processes import Daemons
from isthmus.lab.wan import WanSite

DATA_PORT = 7422
ROUTERS = {"north": ("west", "coast"), "south": ("east", "ridge")}
"""Whose agent speaks to which routers."""


class Agents:
    """Starts them as their centres' operators would, each at its own host; they end with the group of daemons."""

    def __init__(self, daemons: Daemons, directory: Path, plane: Plane, screen: Screen) -> None:
        self._daemons = daemons
        self._directory = directory
        self._plane = plane
        self._screen = screen

    def start(self, site: WanSite, token: str) -> None:
        """Start the agent of a cluster with its one-time token."""
        place = self._directory / site.name
        place.mkdir(parents=True)
        settings = {
            "switch_account": "runuser",
            "root": f"~/sites/{site.name}",
            "env": dict(site.told["slurm"]["environment"]),
        }
        config, secret = place / "site.yaml", place / "token"
        config.write_text(
            json.dumps({"kind": "slurm", "settings": settings, "accounts_allowed": [site.account.name]}),
            encoding="utf-8",
        )
        secret.touch(mode=0o600)
        secret.write_text(token, encoding="ascii")
        words = ["--url", self._plane.agents_url, "--ca-file", str(self._plane.certificate)]
        words += ["--site-config", str(config), "--state", str(place / "state"), "--enrol-token-file", str(secret)]
        words += ["--data-root", str(place / "data"), "--data-listen", f"{site.addresses[1]}:{DATA_PORT}"]
        words += ["--data-in-place", str(site.account.home / "data")]
        routers = declared(site.network)["routers"]
        for name in ROUTERS[site.name]:
            words += ["--router", routers[name]["control"]["socket"]]
        self._screen.typed(["isthmus", "agent", *words])
        command = site.command([sys.executable, "-m", "isthmus", "agent", *words])
        self._daemons.start(f"agent-{site.name}", command, environment=passed_on())


def network(name: str) -> dict[str, Any]:
    """The emulated network as its operator declares it: which agent reaches which router."""
    found = declared(name)
    for agent, routers in ROUTERS.items():
        for router in routers:
            found["routers"][router]["control"]["agent"] = agent
    return found
