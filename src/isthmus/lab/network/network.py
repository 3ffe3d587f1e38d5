"""An emulated network that runs: started, and removed to the last namespace."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.domain.errors import Conflict
from isthmus.lab.errors import LabError
from isthmus.lab.namespaces import NAMESPACES
from isthmus.lab.network.addressing import Addressing
from isthmus.lab.network.places import (
    DELAY_PROCESS,
    DELAYS,
    READY,
    SOCKET,
    TOPOLOGY,
    control_directory,
    control_process,
    directory_of,
    interface_to,
    is_ours,
    namespace_of,
    site_directory,
    site_process,
)
from isthmus.lab.network.plant import Plant, is_delayed
from isthmus.lab.network.possible import check_root, kernel_reason
from isthmus.lab.network.reading import describe
from isthmus.lab.network.topology import Topology
from isthmus.lab.proc import alive, send_signal
from isthmus.lab.processes import Daemons, State, clean, remove_stale

_SITE_SECONDS = 180.0
_OWNER_SECONDS = 60.0


class EmulatedNetwork:
    """One network in its directory, owned by this process until `stop`; used as a context in tests and benchmarks."""

    def __init__(self, topology: Topology) -> None:
        """Describe the network; nothing is made before `start`."""
        self.topology = topology
        self.directory = directory_of(topology.name)
        self._daemons: Daemons | None = None

    def start(self) -> Self:
        """Remove what dead labs left, build everything and wait until all daemons answer; on failure all is removed again.

        Raises Forbidden without root, Conflict when a network of that name runs, LabError when something fails.
        """
        check_root()
        if reason := kernel_reason():
            raise LabError(reason, "See docs/lab.md, What it is made of")
        if self.directory.exists():
            if not is_ours(self.directory):
                raise LabError(f"{self.directory} belongs to somebody else", "Remove it, or name the network otherwise")
            if alive(State.read(self.directory).owner):
                raise Conflict(
                    f"The network {self.topology.name} is up already.", remedy="Take it down: isthmus lab down"
                )
            _clean_all(self.directory)
        remove_stale()
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
                    self._daemons.send(site_process(site.name), signal.SIGTERM)
            self._daemons.close()
            self._daemons = None
        if self.directory.exists():
            _clean_all(self.directory)

    def _start_delay(self, daemons: Daemons, plant: Plant) -> None:
        if not any(is_delayed(link) for link in self.topology.links):
            return
        file = self.directory / DELAYS
        plant.write_delays(file, self.topology.links)
        daemons.start(
            DELAY_PROCESS, [sys.executable, "-m", "isthmus.lab.network.delay", file], environment=_python_environment()
        )
        log = self.directory / f"{DELAY_PROCESS}.log"
        daemons.wait_ready(DELAY_PROCESS, lambda: "ready" in log.read_text(encoding="utf-8"))
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
                control_process(router),
                [
                    *("nsenter", f"--net={NAMESPACES / namespace_of(self.topology, router)}", "--"),
                    # It follows failures, so it comes before what else the machine does.
                    *("nice", "-n", "-15"),
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
            daemons.wait_ready(control_process(router), socket.exists)

    def _start_sites(self, daemons: Daemons) -> None:
        busy = [site.name for site in self.topology.sites if site.has_daemons]
        for name in busy:
            daemons.start(
                site_process(name),
                [
                    *("nsenter", f"--net={NAMESPACES / namespace_of(self.topology, name)}"),
                    *("unshare", "--mount", "--uts", "--"),
                    *(sys.executable, "-m", "isthmus.lab.network.site", self.directory, name),
                ],
                environment=_python_environment(),
            )
        for name in busy:
            ready = site_directory(self.directory, name) / READY
            daemons.wait_ready(site_process(name), ready.exists, seconds=_SITE_SECONDS)

    def __enter__(self) -> Self:
        """Start the network."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the network."""
        self.stop()


def remove(name: str) -> bool:
    """Remove a network by what its files say, whoever started it, also after a crash; tell whether there was one."""
    check_root()
    directory = directory_of(name)
    if not is_ours(directory):
        return False
    _clean_all(directory)
    return True


def _python_environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _clean_all(directory: Path) -> None:
    """End the owner first, so that it takes nothing up again; then the network with the groups of its sites."""
    owner = State.read(directory).owner
    if owner.pid != os.getpid() and alive(owner):
        send_signal(owner, signal.SIGTERM)
        deadline = time.monotonic() + _OWNER_SECONDS
        while alive(owner) and time.monotonic() < deadline:
            time.sleep(0.05)
        send_signal(owner, signal.SIGKILL)
    clean(directory, remove=True)
