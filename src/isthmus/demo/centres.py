"""The centres of the demonstration: what runs on this machine, and how each is joined."""

from __future__ import annotations

import getpass
import secrets
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.demo.plane import Person
from isthmus.demo.screen import Screen
from isthmus.lab.commands import PERSONS_PATH
from isthmus.lab.processes import TAG
from isthmus.lab.wan import Wan, WanSite

USER = "ada"
HOME = "here"
STORE = "workshop"
PRICES = {"north": "0.02", "south": "0.03", "workshop": "0.05", "here": "0.00"}
TOPOLOGY = Path(__file__).with_name("wan.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """One site of the demonstration, with the words that join it; `cluster` when it has Slurm."""

    name: str
    kind: str
    what: str
    join: list[str] = field(default_factory=list)
    account: str = ""
    cluster: WanSite | None = None


class Centres:
    """All sites that this machine can have: two Slurm clusters and an SSH host over an emulated network, and itself; or
    itself alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.left_out = Wan.missing()
        self.wan = None if self.left_out else Wan(TOPOLOGY, f"demo-{secrets.token_hex(3)}")
        self.all: list[Centre] = []

    @property
    def accounts(self) -> list[str]:
        """The local accounts that the person's work runs as, one for each site."""
        return sorted({centre.account for centre in self.all})

    def start(self, screen: Screen) -> None:
        """Start what can be started, and say plainly what is left out and why."""
        if self.wan is None:
            for reason in self.left_out:
                screen.say(f"  left out: {reason}", "yellow")
            screen.say(
                "  This machine alone is used. As root on Debian the demonstration starts two Slurm clusters and an SSH "
                "host, and an emulated network between them."
            )
            self.all = [self._alone()]
            return
        self.wan.start()
        self.all = [self._centre(site) for site in self.wan.sites.values()]

    def stop(self) -> None:
        """Remove them."""
        if self.wan is not None:
            self.wan.stop()

    def network(self) -> list[str]:
        """What the network between the centres is, a line for each link that is emulated."""
        return self.wan.links() if self.wan else []

    def store(self, path: Path) -> str:
        """Put a file where the person keeps data at the SSH host (or here); its path there."""
        if self.wan is None:
            return str(path)
        account = self.wan.sites[STORE].account
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
        return shutil.which("python3", path=PERSONS_PATH if self.wan else None) or ""

    def place(self) -> Callable[[Sequence[str]], list[str]] | None:
        """What puts a command at the host where the control plane belongs; None where that is this machine itself."""
        return self.wan.sites[HOME].command if self.wan else None

    def ssh_command(self) -> str:
        """How to log in at the SSH host by hand."""
        assert self.wan is not None
        return shlex.join(self.wan.sites[HOME].command(self.wan.sites[STORE].ssh_words()))

    def _centre(self, site: WanSite) -> Centre:
        if site.name == HOME:
            words = ["switch_account=runuser", f"root=~/sites/{site.name}"]
            mapped = site.account.name
            return self._made(site, "local", "this machine", words, mapped)
        server = site.told["ssh"]
        words = [f"host={server['host']}", f"port={server['port']}", f"user={server['username']}"]
        words += [f"key_file={server['client_key']}", f"known_hosts={server['known_hosts']}"]
        words.append(f"root=~/sites/{site.name}")
        if not site.has_slurm:
            return self._made(site, "ssh", "one host over SSH", words, "")
        words += [f"env.{key}={value}" for key, value in site.told["slurm"]["environment"].items()]
        what = f"Slurm behind its login host, {len(site.nodes)} nodes, those with -g in their name with GPUs"
        return self._made(site, "slurm", what, words, "")

    def _made(self, site: WanSite, kind: str, what: str, settings: list[str], mapped: str) -> Centre:
        return Centre(
            name=site.name,
            kind=kind,
            what=what,
            join=_words(site.name, settings, mapped),
            account=site.account.name,
            cluster=site if site.has_slurm else None,
        )

    def _alone(self) -> Centre:
        place = self.directory / "plane"
        # The tag finds the jobs again after a crash; elsewhere they go with the account that they run as.
        words = [f"root={place / HOME}", f"env.{TAG}={place}"]
        return Centre(
            name=HOME, kind="local", what="this machine", join=_words(HOME, words, ""), account=getpass.getuser()
        )


def _words(name: str, settings: list[str], account: str) -> list[str]:
    """Settings, mapping and price as flags; the empty account is the adapter's own login."""
    flags = [word for setting in settings for word in ("--set", setting)]
    return [*flags, "--account", f"{USER}={account}", "--price", f"cpu_hour={PRICES[name]}"]
