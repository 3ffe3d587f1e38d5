"""Several centres over an emulated network: their accounts, their clusters, and commands run at their hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from isthmus.lab import packages
from isthmus.lab.accounts import Account, look_up
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.possible import kernel_reason
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.showing import enter_command, show


@dataclass(frozen=True, slots=True, kw_only=True)
class WanSite:
    """One centre that runs: `told` is what its daemons told of themselves; `account` is the ordinary account there."""

    network: str
    name: str
    told: dict[str, Any]
    account: Account
    addresses: tuple[str, ...] = ()

    @property
    def has_slurm(self) -> bool:
        """Whether it is a batch system."""
        return "slurm" in self.told

    @property
    def nodes(self) -> list[str]:
        """The nodes of its cluster; empty without one."""
        return list(self.told["slurm"]["nodes"]) if self.has_slurm else []

    def command(self, words: Sequence[str]) -> list[str]:
        """The words that run a command on the centre's host, as root."""
        return enter_command(self.network, self.name, words)

    def run(self, *argv: str) -> str:
        """Run a command of the centre's Slurm and return what it prints, stripped; raises LabError when it fails."""
        if not self.has_slurm:
            raise LabError(f"{self.name} has no Slurm")
        return run_command(*self.command([*self.told["slurm"]["command_prefix"], *argv]))

    def ssh_words(self) -> list[str]:
        """The words that log in at the centre's host, from a host of the same network."""
        server = self.told["ssh"]
        options = [f"UserKnownHostsFile={server['known_hosts']}", "IdentitiesOnly=yes", "BatchMode=yes"]
        flags = [word for option in options for word in ("-o", option)]
        where = f"{server['username']}@{server['host']}"
        return ["ssh", "-F", "none", "-i", server["client_key"], *flags, "-p", str(server["port"]), where]


class Wan:
    """A network from a file, with the centres on it: started together, removed together."""

    def __init__(self, topology: Path, name: str) -> None:
        """Describe it under a name of its own, so that several may be up; nothing is made before `start`."""
        self.topology = replace(read_text(topology.read_text(encoding="utf-8")), name=name)
        self._network = EmulatedNetwork(self.topology)
        self.sites: dict[str, WanSite] = {}

    @property
    def directory(self) -> Path:
        """Where everything of it is kept while it runs."""
        return self._network.directory

    @staticmethod
    def missing() -> list[str]:
        """Return the reasons why such a network with Slurm centres cannot run here; empty when it can."""
        reasons = packages.missing()
        found = [reason for feature in ("slurm", "sshd", "network") if (reason := reasons[feature])]
        if not found and (reason := kernel_reason()):
            found.append(f"network: {reason}")
        return found

    def start(self) -> Self:
        """Start the network and every centre; on failure everything is removed again."""
        self._network.start()
        shown = {site["name"]: site for site in show(self.topology.name)["sites"]}
        self.sites = {
            name: WanSite(
                network=self.topology.name,
                name=name,
                told=site["daemons"],
                account=look_up(site["daemons"]["ssh"]["username"]),
                addresses=tuple(site["addresses"]),
            )
            for name, site in shown.items()
        }
        return self

    def stop(self) -> None:
        """Remove everything."""
        self._network.stop()
        self.sites = {}

    def links(self) -> list[str]:
        """A line for each link with a rate: its ends, rate and delay."""
        return [
            f"{' - '.join(link.ends)}: {link.rate_bits_per_second / 1e6:.0f} Mbit/s, {link.delay_seconds * 1000:.0f} ms"
            for link in self.topology.links
            if link.rate_bits_per_second
        ]
