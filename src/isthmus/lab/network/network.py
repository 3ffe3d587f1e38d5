"""An emulated network that runs: started, made worse and better, described, and removed to the last namespace."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.exceptions import NetlinkError

from isthmus.domain.errors import Conflict, Forbidden, NotFound
from isthmus.lab import namespaces, packages, registry
from isthmus.lab.errors import LabError
from isthmus.lab.namespaces import NAMESPACES, processes_in
from isthmus.lab.network import conditions as conditions_file
from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.conditions import Brownout, Conditions, changing
from isthmus.lab.network.plant import Plant, interface_to, is_delayed, namespace_of
from isthmus.lab.network.reading import describe, read_text
from isthmus.lab.network.topology import Link, SiteNode, Topology
from isthmus.lab.proc import alive, send_signal
from isthmus.lab.processes import Daemons, State, clean, wait_for

TOPOLOGY = "topology.json"
_DELAYS = "delays.json"
_DELAY = "delay"
READY = "ready.json"
"""What a site's process writes into its directory when its daemons answer."""
SOCKET = "control.sock"
"""Where a router's control daemon listens, in its directory."""
SITE_SECONDS = 180.0


@functools.cache
def kernel_reason() -> str | None:
    """What the kernel, or a container around us, refuses of what a network needs; None when it refuses nothing."""
    link = Link(name="probe", ends=("r", "s"), rate_bits_per_second=1e6, delay_seconds=0.001, loss=0.5)
    name = f"p{os.getpid()}"
    topology = Topology(name=name, routers=("r",), sites=(SiteNode(name="s"),), links=(link,))
    spaces = [namespace_of(topology, node) for node in topology.nodes]
    try:
        for space in spaces:
            namespaces.create(space)
        with Plant(topology) as plant:
            plant.build()
            plant.queue()
    except (LabError, NetlinkError, OSError) as error:
        return f"the kernel refuses what an emulated network needs: {error}"
    finally:
        for space in spaces:
            namespaces.remove(space)
    return None


def check_root() -> None:
    """Raise Forbidden without root, LabError without the programs."""
    if os.geteuid():
        raise Forbidden(
            "The emulated network makes network namespaces, which only root may do.", remedy="Run the same as root."
        )
    reason = packages.missing()["network"]
    if reason:
        raise LabError(reason, "Run as root: python -m isthmus.lab.packages")


def directory_of(name: str) -> Path:
    """Where the network of that name is kept on this machine."""
    return registry.BASE / f"isthmus-network-{name}"


def networks() -> list[str]:
    """The names of the networks of this machine, those whose owner was killed included."""
    found = registry.BASE.glob("isthmus-network-*")
    return sorted(path.name.removeprefix("isthmus-network-") for path in found if _is_ours(path))


def read_topology(directory: Path) -> Topology:
    """The topology of the network in a directory; raises NotFound when there is none."""
    try:
        return read_text((directory / TOPOLOGY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        name = directory.name.removeprefix("isthmus-network-")
        raise NotFound(f"There is no network {name} here.", remedy="Start one: isthmus lab up TOPOLOGY.yaml") from None


def remove(name: str) -> bool:
    """Remove a network by what its files say, whoever started it, also after a crash; tell whether there was one."""
    check_root()
    directory = directory_of(name)
    if not _is_ours(directory):
        return False
    _clean_all(directory)
    return True


class EmulatedNetwork:
    """One network in its directory, owned by this process until `stop`; used as a context in tests and benchmarks."""

    def __init__(self, topology: Topology) -> None:
        """Describe the network; nothing is made before `start`."""
        self.topology = topology
        self.directory = directory_of(topology.name)
        self._daemons: Daemons | None = None

    def start(self) -> Self:
        """Build everything and wait until the daemons of all sites answer; on failure all is removed again.

        Raises Forbidden without root, Conflict when a network of that name runs, LabError when something fails.
        """
        check_root()
        if reason := kernel_reason():
            raise LabError(reason, "See docs/lab.md, What it is made of")
        if self.directory.exists():
            if not _is_ours(self.directory):
                raise LabError(f"{self.directory} belongs to somebody else", "Remove it, or name the network otherwise")
            if alive(State.read(self.directory).owner):
                raise Conflict(
                    f"The network {self.topology.name} is up already.", remedy="Take it down: isthmus lab down"
                )
            _clean_all(self.directory)
        try:
            self.directory.mkdir(mode=0o755)
            daemons = self._daemons = Daemons(self.directory)
            (self.directory / TOPOLOGY).write_text(json.dumps(describe(self.topology), indent=1), encoding="utf-8")
            daemons.make_namespaces([namespace_of(self.topology, node) for node in self.topology.nodes])
            with Plant(self.topology) as plant:
                plant.build()
                self._start_delay(daemons, plant)
            if self.topology.control:
                self._start_control(daemons)
            self._start_sites(daemons)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop what runs in the network and remove it; nothing happens when it is gone."""
        if self._daemons is not None:
            for site in self.topology.sites:
                if site.has_daemons:
                    self._daemons.send(_site_process(site.name), signal.SIGTERM)
            self._daemons.close()
            self._daemons = None
        if self.directory.exists():
            _clean_all(self.directory)

    def _start_delay(self, daemons: Daemons, plant: Plant) -> None:
        if not any(is_delayed(link) for link in self.topology.links):
            return
        file = self.directory / _DELAYS
        plant.write_delays(file, self.topology.links)
        daemons.start(
            _DELAY, [sys.executable, "-m", "isthmus.lab.network.delay", file], environment=_python_environment()
        )
        log = self.directory / f"{_DELAY}.log"
        daemons.wait_ready(_DELAY, lambda: "ready" in log.read_text(encoding="utf-8"))
        plant.queue()

    def _start_control(self, daemons: Daemons) -> None:
        addressing = Addressing(self.topology)
        for router in self.topology.routers:
            directory = control_directory(self.directory, router)
            directory.mkdir(parents=True)
            config = directory / "config.json"
            permit = {
                "socket": str(directory / SOCKET),
                "state": str(directory / "state"),
                "users": [0],
                "locators": [addressing.locator(router)],
                "segments": ["fc00::/16"],
                "destinations": ["fd10::/16", "10.64.0.0/10"],
                "interfaces": [interface_to(link.other(router)) for link in self.topology.links_of(router)],
            }
            config.write_text(json.dumps(permit, indent=1), encoding="utf-8")
            daemons.start(
                _control_process(router),
                [
                    *("nsenter", f"--net={NAMESPACES / namespace_of(self.topology, router)}", "--"),
                    # What it says of itself is made true: it can do nothing but administer its network.
                    *(
                        "setpriv",
                        "--no-new-privs",
                        "--inh-caps=-all,+net_admin",
                        "--bounding-set=-all,+net_admin",
                        "--",
                    ),
                    *(sys.executable, "-m", "isthmus.network.control.daemon", config),
                ],
                environment=_python_environment(),
            )
        for router in self.topology.routers:
            socket = control_directory(self.directory, router) / SOCKET
            daemons.wait_ready(_control_process(router), socket.exists)

    def _start_sites(self, daemons: Daemons) -> None:
        busy = [site.name for site in self.topology.sites if site.has_daemons]
        for name in busy:
            daemons.start(
                _site_process(name),
                [
                    *("nsenter", f"--net={NAMESPACES / namespace_of(self.topology, name)}"),
                    *("unshare", "--mount", "--uts", "--"),
                    *(sys.executable, "-m", "isthmus.lab.network.site", self.directory, name),
                ],
                environment=_python_environment(),
            )
        for name in busy:
            ready = self.directory / "sites" / name / READY
            daemons.wait_ready(_site_process(name), ready.exists, seconds=SITE_SECONDS)

    def __enter__(self) -> Self:
        """Start the network."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the network."""
        self.stop()


class Weather:
    """Makes a running network worse and better, from any process of root."""

    def __init__(self, name: str) -> None:
        """Find the network; raises NotFound when there is none of that name, Forbidden without root."""
        check_root()
        self.directory = directory_of(name)
        self.topology = read_topology(self.directory)

    def fail(self, name: str) -> None:
        """Cut a link, or take a node down: all its links, and its processes stand still. Raises NotFound."""
        is_link = self._find(name)

        def change(conditions: Conditions) -> None:
            (conditions.failed_links if is_link else conditions.failed_nodes).add(name)

        self._change(change)

    def partition(self, nodes: Iterable[str]) -> list[str]:
        """Cut all links between these nodes and the others; return their names. Raises NotFound."""
        group = set(nodes)
        for node in group:
            if node not in self.topology.nodes:
                raise self._not_found(node)
        cut = [link.name for link in self.topology.links if len(group.intersection(link.ends)) == 1]
        self._change(lambda conditions: conditions.failed_links.update(cut))
        return cut

    def heal(self, name: str | None = None) -> None:
        """End the failure or brown-out of a link or a node; without a name, all of them. Raises NotFound."""
        if name is not None:
            self._find(name)

        def change(conditions: Conditions) -> None:
            if name is None:
                conditions.failed_links.clear()
                conditions.failed_nodes.clear()
                conditions.brownouts.clear()
            else:
                conditions.failed_links.discard(name)
                conditions.failed_nodes.discard(name)
                conditions.brownouts.pop(name, None)

        self._change(change)

    def brown_out(self, name: str, brownout: Brownout) -> None:
        """Give a link worse figures than its own until it is healed. Raises NotFound, LabError."""
        link = self.topology.link(name)
        if link is None:
            raise self._not_found(name)
        if brownout.delay_seconds is not None and not is_delayed(link):
            raise LabError(
                f"the link {name} was built without a delay, and cannot get one now",
                "Give it a small delay in the topology, such as 1 ms",
            )
        self._change(lambda conditions: conditions.brownouts.update({name: brownout}))

    def reroute(self) -> None:
        """Let the shortest paths avoid what has failed, as routing protocols would some time later."""

        def change(conditions: Conditions) -> None:
            conditions.routed_around = conditions.down(self.topology)

        self._change(change)

    def _change(self, change: Callable[[Conditions], object]) -> None:
        with changing(self.directory) as conditions, Plant(self.topology) as plant:
            before = conditions_file.read(self.directory)
            change(conditions)
            self._apply(plant, before, conditions)

    def _apply(self, plant: Plant, before: Conditions, after: Conditions) -> None:
        for node in before.failed_nodes ^ after.failed_nodes:
            number = signal.SIGSTOP if node in after.failed_nodes else signal.SIGCONT
            for member in processes_in(namespace_of(self.topology, node)):
                send_signal(member, number)
        down_before, down = before.down(self.topology), after.down(self.topology)
        risen: set[str] = set()
        for link in self.topology.links:
            if link.name in down - down_before:
                plant.disconnect(link)
            elif link.name in down_before - down:
                plant.connect(link)
                risen.update(link.ends)
        if before.routed_around != after.routed_around:
            risen = set(self.topology.nodes)
        plant.route(sorted(risen), avoid=after.routed_around, down=down)
        self._worsen(plant, before, after)

    def _worsen(self, plant: Plant, before: Conditions, after: Conditions) -> None:
        pairs = [(before.effective(link), after.effective(link)) for link in self.topology.links]
        now = [new for _old, new in pairs]
        changed = [(old, new) for old, new in pairs if old != new]
        for old, new in changed:
            if old.rate_bits_per_second != new.rate_bits_per_second:
                plant.set_rate(new)
        plant.set_losses(now, {end for old, new in changed if old.loss != new.loss for end in new.ends})
        if any(old.delay_seconds != new.delay_seconds for old, new in changed):
            plant.write_delays(self.directory / _DELAYS, now)
            delayer = State.read(self.directory).processes.get(_DELAY)
            if delayer is not None:
                send_signal(delayer, signal.SIGHUP)

    def _find(self, name: str) -> bool:
        """Whether the name is a link's; raises NotFound when it is no node's either."""
        if self.topology.link(name) is not None:
            return True
        if name in self.topology.nodes:
            return False
        raise self._not_found(name)

    def _not_found(self, name: str) -> NotFound:
        known = ", ".join([*(link.name for link in self.topology.links), *self.topology.nodes])
        return NotFound(f"The network has no {name}.", remedy=f"It has: {known}.")


def enter_command(name: str, node: str, words: Sequence[str]) -> list[str]:
    """The words that run a command at a node; at a site with daemons, as on its host. Raises NotFound, Forbidden."""
    check_root()
    directory = directory_of(name)
    topology = read_topology(directory)
    if node not in topology.nodes:
        raise NotFound(f"The network has no node {node}.", remedy=f"It has: {', '.join(topology.nodes)}.")
    host = State.read(directory).processes.get(_site_process(node))
    if host is not None and alive(host):
        return ["nsenter", f"--target={host.pid}", "--net", "--mount", "--uts", "--", *words]
    return ["nsenter", f"--net={NAMESPACES / namespace_of(topology, node)}", "--", *words]


def show(name: str) -> dict[str, Any]:
    """A network as one document: nodes with namespace and addresses, links with state and figures, daemons of sites."""
    directory = directory_of(name)
    topology = read_topology(directory)
    conditions = conditions_file.read(directory)
    addressing = Plant(topology).addressing
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
        "price_per_gb": str(link.price_per_gb),
    }


def _ready(directory: Path, site: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / "sites" / site / READY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def control_directory(directory: Path, router: str) -> Path:
    """Where the control daemon of a router has its configuration, state and socket."""
    return directory / "routers" / router


def _control_process(router: str) -> str:
    return f"control-{router}"


def _site_process(name: str) -> str:
    return f"site-{name}"


def _python_environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _is_ours(directory: Path) -> bool:
    return directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == os.geteuid()


def _clean_all(directory: Path) -> None:
    """End the owner first, so that it takes nothing up again; then the network with the groups of its sites."""
    owner = State.read(directory).owner
    if owner.pid != os.getpid() and alive(owner):
        send_signal(owner, signal.SIGTERM)
        wait_for(lambda: not alive(owner), 60, "the owner of the network to end")
    clean(directory, remove=True)
