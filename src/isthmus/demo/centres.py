"""The centres of the demonstration: what runs on this machine, and how each is joined."""

from __future__ import annotations

import getpass
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.demo.plane import Person
from isthmus.demo.screen import Screen
from isthmus.lab.centres import Laboratory
from isthmus.lab.commands import PERSONS_PATH
from isthmus.lab.processes import TAG
from isthmus.lab.slurm import SlurmCluster

USER = "ada"
PRICES = {"north": "0.02", "south": "0.03", "workshop": "0.05", "here": "0.00"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """One site of the demonstration, with the words that join it."""

    name: str
    kind: str
    what: str
    join: list[str] = field(default_factory=list)
    cluster: SlurmCluster | None = None


class Centres:
    """All sites that this machine can have: two Slurm clusters, an SSH host and itself; or itself alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.left_out = Laboratory.missing()
        self.laboratory = None if self.left_out else Laboratory(directory)
        self.all: list[Centre] = []

    @property
    def account(self) -> str:
        """The local account that the person's work runs as."""
        return self.laboratory.account.name if self.laboratory else getpass.getuser()

    def start(self, screen: Screen) -> None:
        """Start what can be started, and say plainly what is left out and why."""
        if self.laboratory is None:
            for reason in self.left_out:
                screen.say(f"  left out: {reason}", "yellow")
            screen.say(
                "  This machine alone is used. As root on Debian the demonstration starts two Slurm clusters and an SSH host."
            )
            self.all = [self._here()]
            return
        self.laboratory.start()
        self.all = [*(self._slurm(name) for name in self.laboratory.slurm), self._ssh(), self._here()]

    def stop(self) -> None:
        """Remove them."""
        if self.laboratory is not None:
            self.laboratory.stop()

    def store(self, path: Path) -> str:
        """Put a file where the person keeps data at the SSH host (or here); its path there."""
        if self.laboratory is None:
            return str(path)
        account = self.laboratory.account
        place = account.home / "data"
        place.mkdir(exist_ok=True)
        target = place / path.name
        shutil.copyfile(path, target)
        for changed in (place, target):
            shutil.chown(changed, account.uid, account.gid)
        return str(target)

    def join(self, operator: Person) -> None:
        """Join every centre by the command that an operator types."""
        for centre in self.all:
            operator.type("site", "join", centre.kind, centre.name, *centre.join)

    def python(self) -> str:
        """The path of the python3 that a person's shell finds; empty when there is none."""
        return shutil.which("python3", path=PERSONS_PATH if self.laboratory else None) or ""

    def _slurm(self, name: str) -> Centre:
        assert self.laboratory is not None
        cluster = self.laboratory.slurm[name]
        words = [f"env.{key}={value}" for key, value in cluster.environment.items()]
        words += ["switch_account=runuser", f"root=~/sites/{name}"]
        nodes = f"{len(cluster.cpu_nodes)} nodes, {len(cluster.gpu_nodes)} with GPUs"
        return Centre(name=name, kind="slurm", what=f"Slurm, {nodes}", join=self._words(name, words), cluster=cluster)

    def _ssh(self) -> Centre:
        assert self.laboratory is not None
        server = self.laboratory.ssh
        words = [f"host={server.host}", f"port={server.port}", f"user={server.username}"]
        words += [f"key_file={server.client_key}", f"known_hosts={server.known_hosts}", "root=~/sites/workshop"]
        return Centre(name="workshop", kind="ssh", what="one host over SSH", join=self._words("workshop", words, ""))

    def _here(self) -> Centre:
        if self.laboratory is None:
            place = self.directory / "plane"
            # The tag finds the jobs again after a crash; elsewhere they go with the account that they run as.
            words = [f"root={place / 'here'}", f"env.{TAG}={place}"]
            return Centre(name="here", kind="local", what="this machine", join=self._words("here", words, ""))
        words = ["switch_account=runuser", "root=~/sites/here"]
        return Centre(name="here", kind="local", what="this machine", join=self._words("here", words))

    def _words(self, name: str, settings: list[str], account: str | None = None) -> list[str]:
        """Settings, mapping and price as flags; the empty account is the adapter's own login."""
        mapped = self.account if account is None else account
        flags = [word for setting in settings for word in ("--set", setting)]
        return [*flags, "--account", f"{USER}={mapped}", "--price", f"cpu_hour={PRICES[name]}"]


def ssh_command(laboratory: Laboratory) -> str:
    """How to log in at the SSH host by hand."""
    return shlex.join(laboratory.ssh.command_prefix)
