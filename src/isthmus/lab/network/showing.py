"""What a network looks like now, and how to get into it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.domain.errors import NotFound
from isthmus.lab.namespaces import NAMESPACES
from isthmus.lab.network import conditions as conditions_file
from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.places import (
    READY,
    SOCKET,
    control_directory,
    directory_of,
    interface_to,
    namespace_of,
    read_topology,
    site_directory,
    site_process,
)
from isthmus.lab.network.possible import check_root
from isthmus.lab.network.reading import describe
from isthmus.lab.network.topology import Link
from isthmus.lab.proc import alive
from isthmus.lab.processes import State


def enter_command(name: str, node: str, words: Sequence[str]) -> list[str]:
    """The words that run a command at a node; at a site with daemons, as on its host. Raises NotFound, Forbidden."""
    check_root()
    directory = directory_of(name)
    topology = read_topology(directory)
    if node not in topology.nodes:
        raise NotFound(f"The network has no node {node}.", remedy=f"It has: {', '.join(topology.nodes)}.")
    host = State.read(directory).processes.get(site_process(node))
    if host is not None and alive(host):
        return ["nsenter", f"--target={host.pid}", "--net", "--mount", "--uts", "--", *words]
    return ["nsenter", f"--net={NAMESPACES / namespace_of(topology, node)}", "--", *words]


def show(name: str) -> dict[str, Any]:
    """A network as one document: nodes with namespace and addresses, links with state and figures, daemons of sites."""
    directory = directory_of(name)
    topology = read_topology(directory)
    conditions = conditions_file.read(directory)
    addressing = Addressing(topology)
    down = conditions.down(topology)
    return {
        "name": topology.name,
        "up": alive(State.read(directory).owner),
        "routers": [
            {
                "name": node,
                "namespace": namespace_of(topology, node),
                "address": addressing.router_address(node),
                "locator": addressing.locator(node),
                "state": "failed" if node in conditions.failed_nodes else "up",
                "control": str(control_directory(directory, node) / SOCKET) if topology.control else None,
            }
            for node in topology.routers
        ],
        "sites": [
            {
                "name": site.name,
                "namespace": namespace_of(topology, site.name),
                "addresses": [addressing.site_address(site.name), addressing.site_address4(site.name)],
                "state": "failed" if site.name in conditions.failed_nodes else "up",
                "daemons": _ready(directory, site.name),
            }
            for site in topology.sites
        ],
        "links": [_show_link(conditions.effective(link), link, link.name in down) for link in topology.links],
    }


def declared(name: str) -> dict[str, Any]:
    """The network as its operators would declare it to a service: with addresses, locators, interfaces and control sockets."""
    directory = directory_of(name)
    topology = read_topology(directory)
    addressing = Addressing(topology)
    routers: dict[str, Any] = {}
    for node in topology.routers:
        routers[node] = {"address": addressing.router_address(node), "locator": addressing.locator(node)}
        if topology.control:
            routers[node]["control"] = {"socket": str(control_directory(directory, node) / SOCKET)}
    links = describe(topology)["links"]
    for shown, link in zip(links, topology.links, strict=True):
        shown["interfaces"] = [interface_to(link.other(end)) for end in link.ends]
    return {
        "routers": routers,
        "sites": {
            site.name: {
                "address": addressing.site_address(site.name),
                "address4": addressing.site_address4(site.name),
                "prefixes": [addressing.site_prefix(site.name), addressing.site_prefix4(site.name)],
            }
            for site in topology.sites
        },
        "links": links,
    }


def _show_link(now: Link, link: Link, down: bool) -> dict[str, Any]:
    return {
        "name": link.name,
        "ends": list(link.ends),
        "state": "down" if down else "brownout" if now != link else "up",
        "rate_bits_per_second": now.rate_bits_per_second,
        "delay_seconds": now.delay_seconds,
        "jitter_seconds": now.jitter_seconds,
        "loss": now.loss,
        "mtu_bytes": link.mtu_bytes,
        "offload": link.offload,
        "price_per_gb": str(link.price_per_gb),
    }


def _ready(directory: Path, site: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((site_directory(directory, site) / READY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
