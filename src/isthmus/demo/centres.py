"""The centres of the demonstration: what runs on this machine, and how each is joined."""

from __future__ import annotations

import getpass
import secrets
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.demo.agents import Agents
from isthmus.demo.plane import Person, Plane
from isthmus.demo.screen import Screen
from isthmus.lab.commands import PERSONS_PATH
from isthmus.lab.namespaces import inside
from isthmus.lab.network.places import namespace_of
from isthmus.lab.processes import TAG, Daemons
from isthmus.lab.wan import Wan, WanSite

USER = "ada"
HOME = "here"
STORE = "workshop"
PRICES = {"north": "0.02", "south": "0.03", "workshop": "0.05", "here": "0.00"}
REGIONS = {"here": "west", "north": "west", "south": "east", "workshop": "east"}
TOPOLOGY = Path(__file__).with_name("wan.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """One site of the demonstration, with the words that join it; `cluster` when it has Slurm, behind an agent of its own."""

    name: str
    kind: str
    what: str
    join: list[str] = field(default_factory=list)
    account: str = ""
    cluster: WanSite | None = None


class Centres:
    """All sites that this machine can have: two Slurm clusters with agents that keep datasets and an SSH host over an emulated
    network, and itself; or itself alone."""

    def __init__(self, directory: Path, daemons: Daemons) -> None:
        self.directory = directory
        self._daemons = daemons
        self.left_out = Wan.missing()
        self.wan = None if self.left_out else Wan(TOPOLOGY, f"demo-{secrets.token_hex(3)}")
        self.all: list[Centre] = []

    @property
    def address(self) -> str:
        """Where agents dial the service; empty without a network."""
        return self.wan.sites[HOME].addresses[1] if self.wan else ""

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

    def carried(self, router: str) -> int:
        """How many bytes a router has received."""
        assert self.wan is not None
        with inside(namespace_of(self.wan.topology, router)):
            lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()[2:]
        return sum(int(line.split(":")[1].split()[0]) for line in lines if not line.strip().startswith("lo:"))

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

    def lay(self, site: str, directory: Path) -> str:
        """Put a directory where the person keeps data at a cluster, as if it had always been there; its path there."""
        assert self.wan is not None
        account = self.wan.sites[site].account
        place = account.home / "data" / directory.name
        shutil.copytree(directory, place)
        for changed in (place.parent, place, *place.rglob("*")):
            shutil.chown(changed, account.uid, account.gid)
        return str(place)

    def join(self, operator: Person, plane: Plane, screen: Screen) -> None:
        """Join every centre by the command that an operator types, and start the agents of the clusters."""
        agents = Agents(self._daemons, self._daemons.directory / "agents", plane, screen)
        for centre in self.all:
            told = operator.type("site", "join", centre.kind, centre.name, *centre.join, quiet=bool(centre.cluster))
            if centre.cluster is not None:
                agents.start(centre.cluster, told.strip())

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
        if site.has_slurm:
            what = (
                f"Slurm, {len(site.nodes)} nodes, those with -g in their name with GPUs; an agent that keeps datasets"
            )
            return self._made(site, "slurm", what, ["--agent"], site.account.name)
        return self._made(site, "ssh", "one host over SSH", words, "")

    def _made(self, site: WanSite, kind: str, what: str, settings: list[str], mapped: str) -> Centre:
        return Centre(
            name=site.name,
            kind=kind,
            what=what,
            join=_words(site.name, settings, mapped, REGIONS[site.name]),
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


def _words(name: str, settings: list[str], account: str, region: str = "") -> list[str]:
    """Settings (or `--agent`), mapping, price and region as flags; the empty account is the adapter's own login."""
    flags = settings if settings == ["--agent"] else [word for setting in settings for word in ("--set", setting)]
    flags = [*flags, "--account", f"{USER}={account}", "--price", f"cpu_hour={PRICES[name]}"]
    return [*flags, "--region", region] if region else flags
