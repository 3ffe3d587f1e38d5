"""The process of one site of an emulated network: starts the site's daemons in the site's namespace and keeps them.

`python -m isthmus.lab.network.site DIRECTORY SITE`, with its own network, mount and host-name namespaces. The host is
called as the site, and knows the other sites by name. When all daemons answer it writes `ready.json` with what a client
needs: addresses, accounts, paths of keys.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isthmus.lab.errors import LabError
from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.places import READY, read_topology, site_directory
from isthmus.lab.network.topology import SiteNode, Topology
from isthmus.lab.processes import Daemons
from isthmus.lab.s3 import S3Server
from isthmus.lab.slurm import SlurmCluster
from isthmus.lab.sshd import SshServer

_MS_BIND = 0x1000


def become_host(topology: Topology, site: str, directory: Path) -> None:
    """Take the site's name, and let the sites' names lead to their addresses, for this process and its children."""
    socket.sethostname(site)
    addressing = Addressing(topology)
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for other in topology.sites:
        lines += [f"{address} {other.name}" for address in _addresses(addressing, other.name)]
    hosts = directory / "hosts"
    hosts.write_text("\n".join(lines) + "\n", encoding="ascii")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(bytes(hosts), b"/etc/hosts", b"none", _MS_BIND, None):
        raise LabError(f"/etc/hosts could not be covered: {os.strerror(ctypes.get_errno())}")


def start_daemons(site: SiteNode, address: str, directory: Path) -> tuple[dict[str, Any], list[Callable[[], object]]]:
    """Start the site's daemons; return what clients need of each, and the calls that stop them."""
    told: dict[str, Any] = {}
    stops: list[Callable[[], object]] = []
    user = None
    if "ssh" in site.daemons:
        ssh = SshServer(directory / "ssh", host=address).start()
        stops.append(ssh.stop)
        user = ssh.username
        told["ssh"] = {
            "host": address,
            "port": ssh.port,
            "username": user,
            "client_key": str(ssh.client_key),
            "known_hosts": str(ssh.known_hosts),
        }
    if "s3" in site.daemons:
        s3 = S3Server(directory / "s3", host=address).start()
        stops.append(s3.stop)
        keys = directory / "s3" / "environment.json"
        keys.touch(mode=0o600)
        keys.write_text(json.dumps(s3.environment), encoding="utf-8")
        told["s3"] = {"endpoint": s3.endpoint, "environment": str(keys)}
    if "slurm" in site.daemons:
        size = site.daemons["slurm"]
        cluster = SlurmCluster(
            directory / "slurm",
            site.name,
            nodes=size["nodes"],
            cpus_per_node=size["cpus_per_node"],
            gpu_nodes=size["gpu_nodes"],
            accounting=bool(size["accounting"]),
        ).start()
        stops.append(cluster.stop)
        if cluster.accounting and user is not None:
            cluster.add_user(user)
        told["slurm"] = {
            "command_prefix": cluster.command_prefix,
            "environment": cluster.environment,
            "nodes": cluster.nodes,
        }
    if site.programs:
        programs = Daemons(directory / "programs")
        stops.append(programs.close)
        for name, words in site.programs.items():
            programs.start(name, words)
            told[name] = {"log": str(directory / "programs" / f"{name}.log")}
    return told, stops


def _addresses(addressing: Addressing, site: str) -> tuple[str, str]:
    return addressing.site_address4(site), addressing.site_address(site)


def main() -> None:
    """Run until SIGTERM."""
    top, name = Path(sys.argv[1]), sys.argv[2]
    ended = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    topology = read_topology(top)
    site = topology.site(name)
    if site is None:
        raise LabError(f"the network has no site {name}")
    directory = site_directory(top, name)
    directory.mkdir(parents=True, exist_ok=True)
    become_host(topology, name, directory)
    told, stops = start_daemons(site, Addressing(topology).site_address4(name), directory)
    fresh = directory / f"{READY}.new"
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(directory / READY)
    signal.sigwait(ended)
    for stop in reversed(stops):
        stop()


if __name__ == "__main__":
    main()
