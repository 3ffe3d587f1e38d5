"""Histories with faults: `python -m benchmarks.faults [--json] [--quick] [--histories N] [--only local|slurm|world]`.

One history is one fault (a SIGKILL of the control plane at a named point, of the agent, of a job's wrapper; a cut link;
a scheduler that stands still) with the tasks that were under way; what the tasks left and what the site counted is checked
against the store at the end. `local`: this host, directly and through an agent, on SQLite. `slurm`: a real cluster, on
PostgreSQL. `world`: simulated sites under virtual time. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.faultcheck import Accounting, Verdict, check
from benchmarks.faultrig import Rig, kill_wrapper
from benchmarks.machine import describe, table
from isthmus.engine import failpoints
from isthmus.lab import registry
from isthmus.lab.accounts import fresh_name
from isthmus.lab.errors import LabError
from isthmus.lab.mariadb import MariaDb
from isthmus.lab.postgres import PostgresServer
from isthmus.lab.processes import Daemons, remove_stale
from isthmus.lab.slurm import SlurmCluster
from tests.agent.proxy import Weather

FAULTS_LOCAL = ("server", "server", "server", "agent", "link", "wrapper", "pause")
FAULTS_SLURM = ("server", "server", "server", "controller", "accounting", "wrapper", "pause", "scancel")
QUIET_SECONDS = 180.0


class Play:
    """Runs histories on one rig; `sites` are where tasks go."""

    def __init__(self, rig: Rig, rng: random.Random, roots: Path, sites: tuple[str, ...]) -> None:
        self.rig, self.rng, self.roots, self.sites = rig, rng, roots, sites
        self.accepted: set[str] = set()
        self.unanswered: list[tuple[str, list[float], str]] = []
        self.counts: dict[str, int] = {}
        self.cluster: SlurmCluster | None = None
        self.user = ""

    def history(self, fault: str) -> None:
        """One fault and a few tasks."""
        self.counts[fault] = self.counts.get(fault, 0) + 1
        self._submit(self.rng.choice(self.sites))
        getattr(self, f"_{fault}")()

    def _submit(self, site: str) -> None:
        long = self.rng.random() < 0.2
        seconds = [round(self.rng.uniform(0.05, 0.5), 2) for _ in range(2)] + ([2.5] if long else [])
        self.unanswered.append((site, seconds, secrets.token_hex(8)))
        self.ask_again()

    def ask_again(self) -> None:
        """Repeat under the same key what got no answer, as a client does."""
        left = []
        for site, seconds, key in self.unanswered:
            try:
                self.accepted.update(self.rig.submit(site, seconds, key))
            except httpx.HTTPError:
                left.append((site, seconds, key))
        self.unanswered = left

    def _server(self) -> None:
        """F1: SIGKILL at a failpoint, or after a while wherever it is."""
        rig = self.rig
        if rig.server is not None and not rig.server.is_alive():
            self._restart()
        assert rig.server is not None
        rig.server.join(self.rng.uniform(0.2, 1.2))
        rig.kill_server()
        self._restart()

    def _restart(self) -> None:
        place, passage = self.rng.choice(failpoints.NAMES), self.rng.randint(1, 3)
        self.rig.start(f"{place}=kill:{passage}" if self.rng.random() < 0.8 else "")
        self.ask_again()

    def alive(self) -> None:
        """Start the control plane if its failpoint killed it meanwhile."""
        if self.rig.server is None or not self.rig.server.is_alive():
            self.counts["server"] = self.counts.get("server", 0) + 1
            self._restart()

    def _agent(self) -> None:
        time.sleep(self.rng.uniform(0.1, 0.8))
        self.rig.kill_agent()
        self.rig.start_agent()

    def _link(self) -> None:
        """F19 to F22: cut, silent, or one way."""
        assert self.rig.link is not None
        weather = self.rng.choice((Weather.CUT, Weather.HOLD, Weather.DEAF))
        for _ in range(self.rng.choice((1, 1, 4))):
            self.rig.link.turn(weather)
            time.sleep(self.rng.uniform(0.1, 0.8))
            self.rig.link.turn(Weather.FINE)

    def _wrapper(self) -> None:
        """SIGKILL of a running job's wrapper."""
        site = self.rng.choice(self.sites)
        with suppress(httpx.HTTPError):
            self.accepted.update(self.rig.submit(site, [1.5], secrets.token_hex(8)))
        for _ in range(30):
            self.alive()
            live = {row.key for row in self.rig.rows("SELECT key FROM attempts WHERE state IN ('queued', 'running')")}
            if kill_wrapper(self.roots, live):
                return
            time.sleep(0.1)

    def _pause(self) -> None:
        """F3: the control plane stands still for a moment."""
        self.alive()
        assert self.rig.server is not None
        with suppress(ProcessLookupError):
            os.kill(self.rig.server.pid or 0, 19)
            time.sleep(self.rng.uniform(0.2, 1.5))
            os.kill(self.rig.server.pid or 0, 18)

    def _controller(self) -> None:
        """F15, F23: slurmctld stands still longer than the message time-out, or for a moment."""
        assert self.cluster is not None
        self.cluster.pause_controller()
        time.sleep(self.rng.choice((0.5, 2.0, 2.0, 12.0)))
        self.cluster.resume_controller()

    def _accounting(self) -> None:
        """F27: slurmdbd is away for a while."""
        assert self.cluster is not None
        self.cluster.stop_accounting()
        time.sleep(self.rng.uniform(0.2, 2.0))
        self.cluster.start_accounting()

    def _scancel(self) -> None:
        """The site's operator ends every job of the account."""
        assert self.cluster is not None
        time.sleep(self.rng.uniform(0.2, 1.5))
        with suppress(LabError):
            self.cluster.run("scancel", "-u", self.user)

    def run(self, faults: tuple[str, ...], number: int, limit_seconds: float) -> None:
        """Histories until there are so many, or the time is over; then peace until everything is settled."""
        end = time.monotonic() + limit_seconds
        while sum(self.counts.values()) < number and time.monotonic() < end:
            self.alive()
            self.history(self.rng.choice(faults))
            self._hold_back()
        self.rig.kill_server()
        self.rig.start()
        self.ask_again()
        self.rig.until(self._settled, QUIET_SECONDS)

    def _hold_back(self) -> None:
        """Do not run ahead of the site."""
        for _ in range(600):
            self.alive()
            open_tasks = self.rig.rows("SELECT count(*) AS n FROM tasks WHERE state NOT IN ('succeeded', 'failed')")[
                0
            ].n
            if open_tasks < 60:
                return
            time.sleep(0.1)

    def _settled(self) -> bool:
        tasks = "SELECT 1 FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled') LIMIT 1"
        usage = "SELECT 1 FROM attempts WHERE state = 'succeeded' AND usage_state = 'due' LIMIT 1"
        return not self.rig.rows(tasks) and not self.rig.rows(usage)


def report(name: str, play: Play, verdict: Verdict, begun: float) -> dict[str, Any]:
    """The figures of one adapter."""
    return {
        "adapter": name,
        "histories": sum(play.counts.values()),
        "faults": play.counts,
        "tasks": len(play.accepted),
        "violations": len(verdict.violations),
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "accounted_wrongly": len(verdict.accounted),
        "seconds": round(time.monotonic() - begun, 1),
        "told": verdict.violations[:20],
    }


@contextmanager
def _directory() -> Iterator[Path]:
    remove_stale()
    directory = registry.new_directory("isthmus-faults-")
    try:
        yield directory
    finally:
        if os.environ.get("KEEP"):
            print(f"kept: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def local(number: int, limit_seconds: float, seed: int) -> dict[str, Any]:
    """This host, directly and through an agent."""
    begun = time.monotonic()
    with _directory() as directory:
        rig = Rig(directory)
        try:
            rig.start()
            for name, mode in (("here", "direct"), ("far", "agent")):
                config = {"root": str(directory / "roots" / name), "cpus": 16, "memory": "8G", "grace_seconds": 2}
                rig.join(name, "local", config, mode=mode)
            play = Play(rig, random.Random(seed), directory / "roots", ("here", "far"))
            play.run(FAULTS_LOCAL, number, limit_seconds)
            return report("local", play, check(rig, play.accepted), begun)
        finally:
            rig.stop()


def slurm(number: int, limit_seconds: float, seed: int) -> dict[str, Any]:
    """A real Slurm cluster with accounting; the store is PostgreSQL."""
    with _directory() as directory:
        people = Daemons(directory / "people")
        try:
            account = people.make_account(fresh_name(), directory / "people" / "home")
            with (
                PostgresServer(directory / "postgres") as server,
                MariaDb(directory / "mariadb") as accounts,
                SlurmCluster(directory / "alpha", "alpha", cpus_per_node=16, gpu_nodes=1, database=accounts) as cluster,
            ):
                cluster.add_user(account.name)
                url = server.create_database("faults")
                return slurm_histories(directory, cluster, account.name, url, number, limit_seconds, seed)
        finally:
            people.close()


def slurm_histories(
    directory: Path,
    cluster: SlurmCluster,
    user: str,
    database: str,
    number: int,
    limit_seconds: float,
    seed: int,
    faults: tuple[str, ...] = FAULTS_SLURM,
) -> dict[str, Any]:
    """Histories on a cluster that runs already."""
    begun = time.monotonic()
    roots = directory / "roots"
    roots.mkdir(mode=0o755)
    roots.chmod(0o777)
    rig = Rig(directory, database)
    try:
        rig.start()
        config = {"switch_account": "runuser", "env": cluster.environment, "root": f"{roots}/{{account}}"}
        config |= {"describe_seconds": 1, "query_seconds": 0.5, "submit_timeout_seconds": 8}
        rig.join(cluster.name, "slurm", config, account=user)
        play = Play(rig, random.Random(seed), roots, (cluster.name,))
        play.cluster, play.user = cluster, user
        play.run(faults, number, limit_seconds)
        return report("slurm", play, check(rig, play.accepted, _sacct(cluster)), begun)
    finally:
        rig.stop()


def _sacct(cluster: SlurmCluster) -> Accounting:
    def ask() -> list[tuple[str, str, int]]:
        text = cluster.run("sacct", "-a", "-X", "-n", "-P", "-D", "-S", "now-1day", "-o", "JobName,JobID,ElapsedRaw")
        rows = (line.split("|") for line in text.splitlines())
        return [(name, job, int(elapsed or 0)) for name, job, elapsed in rows]

    return ask


def world(number: int, limit_seconds: float, seed: int) -> dict[str, Any]:
    """Simulated sites under virtual time."""
    command = [sys.executable, "-m", "tests.world", "--json", "--seeds", f"{seed}-{seed + number - 1}"]
    command += ["--limit-seconds", str(limit_seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    told = [f"--seed {bad['seed']}: {problem}" for bad in result.pop("bad") for problem in bad["problems"]]
    lost = [line for line in told if "not settled" in line or "is not stored" in line]
    doubled = [line for line in told if "to completion" in line]
    return {"adapter": "world", **result, "lost": len(lost), "doubled": len(doubled), "told": told[:20]}


ADAPTERS: dict[str, Callable[[int, float, int], dict[str, Any]]] = {"local": local, "slurm": slurm, "world": world}
SHARES = {"local": 0.5, "slurm": 0.5, "world": 0.25}  # of the histories asked for; the simulated ones come on top


def main() -> int:
    """Run them all; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="within five minutes")
    parser.add_argument("--histories", type=int, default=0)
    parser.add_argument("--only", choices=sorted(ADAPTERS))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    total = options.histories or (120 if options.quick else 1000)
    chosen = [options.only] if options.only else list(ADAPTERS)
    scale = sum(SHARES[name] for name in chosen if name != "world") or SHARES["world"]
    print(json.dumps(describe()))
    parts = []
    for name in chosen:
        number = round(total * SHARES[name] / scale)
        part = ADAPTERS[name](number, 70.0 if options.quick else 3600.0, options.seed)
        print(json.dumps(part, indent=None if options.json else 1), file=sys.stderr)
        parts.append(part)
    figures = {key: sum(part[key] for part in parts) for key in ("histories", "violations", "lost", "doubled")}
    asked = {"histories": f">= {total}"}
    print(table([(key, str(value), asked.get(key, "0"), "") for key, value in figures.items()]))
    print(json.dumps({**figures, "adapters": {part["adapter"]: part for part in parts}}))
    return bool(figures["violations"])


if __name__ == "__main__":
    sys.exit(main())
