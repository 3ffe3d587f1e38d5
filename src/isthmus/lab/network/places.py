"""Where the networks of this machine are kept, and what their parts are called."""

from __future__ import annotations

import os
from pathlib import Path

from isthmus.domain.errors import NotFound
from isthmus.lab import registry
from isthmus.lab.namespaces import PREFIX
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.topology import Topology

TOPOLOGY = "topology.json"
DELAYS = "delays.json"
DELAY_PROCESS = "delay"
READY = "ready.json"
"""What a site's process writes into its directory when its daemons answer."""
SOCKET = "control.sock"
"""Where a router's control daemon listens, in its directory."""


def directory_of(name: str) -> Path:
    """Where the network of that name is kept on this machine."""
    return registry.BASE / f"isthmus-network-{name}"


def networks() -> list[str]:
    """The names of the networks of this machine, those whose owner was killed included."""
    found = registry.BASE.glob("isthmus-network-*")
    return sorted(path.name.removeprefix("isthmus-network-") for path in found if is_ours(path))


def read_topology(directory: Path) -> Topology:
    """The topology of the network in a directory; raises NotFound when there is none."""
    try:
        return read_text((directory / TOPOLOGY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        name = directory.name.removeprefix("isthmus-network-")
        raise NotFound(f"There is no network {name} here.", remedy="Start one: isthmus lab up TOPOLOGY.yaml") from None


def namespace_of(topology: Topology, node: str) -> str:
    """The name of a node's network namespace."""
    return f"{PREFIX}{topology.name}-{node}"


def interface_to(neighbour: str) -> str:
    """The name of a node's interface to a neighbour."""
    return f"to-{neighbour}"


def site_directory(directory: Path, site: str) -> Path:
    """Where the daemons of a site are kept."""
    return directory / "sites" / site


def control_directory(directory: Path, router: str) -> Path:
    """Where the control daemon of a router has its configuration, state and socket."""
    return directory / "routers" / router


def control_process(router: str) -> str:
    """The name of the process that programs a router."""
    return f"control-{router}"


def site_process(name: str) -> str:
    """The name of the process that keeps a site's daemons."""
    return f"site-{name}"


def is_ours(directory: Path) -> bool:
    """Whether this is a directory that this account made."""
    return directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == os.geteuid()
