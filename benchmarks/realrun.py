"""Two real Slurm clusters and an SSH host over an emulated network: `python -m benchmarks.realrun [--seed N] [--tasks N] [--json]`.

The centres and the network are those of the demonstration: two disjoint paths, one thin and fast, one fat and slow; the clusters
have agents that keep datasets, and routers follow. N tasks of six kinds, short and long, of 1 to 8 processors, come half at once and half over a
minute (`realrun_work`): some with an uploaded file, some with a dataset that lies at a cluster, some with both. Each policy in turn gets
the same tasks at the same times, with contents of its own, on the same machines. `isthmus` leaves the place to the brain; `round_robin` pins
each task to the sites in turn; `nearest_data` pins it to the site where its dataset lies, else to the one next to where uploads are.
Before that one burst teaches. `coverage_p80`: the share of the brain's tasks that ended within the 10 % and 90 %
quantiles of their end as predicted when they were placed; `cold` is that of the burst that teaches, of which nothing was known.
Needs root on Debian with Slurm; what is missing is said. Ctrl-C and SIGTERM remove everything too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, table
from benchmarks.realrun_work import allowed, document, drawn, lay_out
from isthmus.client import datasets, operations
from isthmus.client.records import Task
from isthmus.demo import agents
from isthmus.demo.centres import HOME, REGIONS, USER, Centres
from isthmus.demo.plane import Person, Plane
from isthmus.demo.screen import Screen
from isthmus.domain.dataset import DatasetRef
from isthmus.domain.placement import Receipt, Why
from isthmus.lab import registry
from isthmus.lab.processes import Daemons, remove_stale
from isthmus.placement.plans import plan_of

SITES = {"north": 8, "south": 8, "workshop": 8}  # processors of a node; uploads are next to the first
POLICIES = ("isthmus", "round_robin", "nearest_data")
PROJECT = "bench"
COLD = 50  # the tasks that are placed first


def main() -> None:
    """Run all policies, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--limit", type=float, default=420.0, help="seconds for each policy")
    parser.add_argument("--teach", type=int, default=60, help="tasks handed in at once beforehand")
    parser.add_argument("--policies", default=",".join(POLICIES), help="in this order")
    parser.add_argument("--keep", type=Path, help="a folder that gets the service's store and logs at the end")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    machine = describe() | {"seed": arguments.seed}
    print(json.dumps(machine), flush=True)
    remove_stale()
    run = _Run(arguments)
    try:
        run.start()
        found = {policy: run.measure(policy) for policy in arguments.policies.split(",")}
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing interrupts the removal
        run.stop()
    rows = [
        (name, f"{of['makespan_s']:.0f} s, mean {of['mean_end_s']:.0f} s", str(of["ended_well"]), str(of["by_site"]))
        for name, of in found.items()
    ]
    print(table([("policy", "makespan, mean end", "ended well", "by site"), *rows]))
    machine["load_at_end"] = round(os.getloadavg()[0], 2)
    if arguments.json:
        print(json.dumps(_summary(arguments.tasks, found, run.taught) | {"machine": machine}))


def _interrupted(_number: int, _frame: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _summary(tasks: int, found: dict[str, dict[str, Any]], taught: dict[str, Any]) -> dict[str, Any]:
    own = found.get("isthmus", {})
    spans = {name: of["makespan_s"] for name, of in found.items()}
    return {
        "tasks": tasks,
        "coverage_p80": own.get("coverage"),
        "coverage_first_50": own.get("coverage_first_50"),
        "coverage_rest": own.get("coverage_rest"),
        "coverage_cold": taught.get("coverage"),
        "makespan_s": spans,
        "mean_end_s": {name: of["mean_end_s"] for name, of in found.items()},
        "ratio": {name: round(spans["isthmus"] / span, 3) for name, span in spans.items() if own and name != "isthmus"},
        "policies": found,
        "taught": taught,
    }


class _Run:
    """The centres, the service and its client for as long as the benchmark runs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._directory = registry.new_directory("isthmus-realrun-")
        self._daemons = Daemons(self._directory / "plane")
        self._screen = Screen()
        self._centres = Centres(self._directory, self._daemons)
        self._plane = Plane(self._daemons, self._daemons.directory / "state", self._screen)
        self._desk = self._daemons.directory / "desk"
        self.taught: dict[str, Any] = {}

    def start(self) -> None:
        """Start and join everything, and teach."""
        if self._centres.left_out:
            raise SystemExit("cannot run here: " + "; ".join(self._centres.left_out))
        # compiled beforehand, as after an upgrade
        subprocess.run([sys.executable, "-m", "isthmus.placement.joint"], check=True)
        self._centres.start(self._screen)
        self._plane.start(self._centres.place(), address=self._centres.address, region=REGIONS[HOME])
        self._desk.mkdir(mode=0o700)
        state = {"ISTHMUS_STATE": str(self._plane.state), **self._plane.trusted}
        operator = Person("admin", state, self._desk, self._screen)
        for words in (("user", "add", USER), ("project", "add", PROJECT), ("project", "member", "add", PROJECT, USER)):
            operator.type(*words)
        self._centres.join(operator, self._plane, self._screen)
        operator.type("site", "set", "workshop", "--set", f"cpus={SITES['workshop']}")
        token = operator.type("token", "create", "--user", USER, show=False).strip()
        self._client = self._plane.client(token, PROJECT)
        self._await_sites()
        assert self._centres.wan is not None
        network = self._desk / "network.yaml"
        network.write_text(json.dumps(agents.network(self._centres.wan.topology.name)), encoding="utf-8")
        operator.type("net", "load", network.name, "--yes", quiet=True)
        if self._arguments.teach:
            self.taught = self.measure("isthmus", self._arguments.teach, "taught", self._arguments.seed + 1_000_000)
            time.sleep(40)  # what ended is learned from every half minute

    def stop(self) -> None:
        """Remove everything, whatever of it there is."""
        keep = self._arguments.keep
        with contextlib.ExitStack() as removal:  # each part goes, also where another cannot
            removal.callback(shutil.rmtree, self._directory, ignore_errors=True)
            removal.callback(self._centres.stop)
            removal.callback(self._daemons.close)
            self._daemons.stop("server")
            if keep is not None and self._plane.state.exists():
                keep.mkdir(parents=True, exist_ok=True)
                for part in [*self._plane.state.glob("*.db*"), *self._daemons.directory.glob("*.log")]:
                    shutil.copy(part, keep)

    def measure(self, policy: str, count: int = 0, name: str = "", seed: int | None = None) -> dict[str, Any]:
        """One policy on all tasks; what it came to."""
        name, seed = name or policy, self._arguments.seed if seed is None else seed
        directory = self._desk / name
        self._register(directory, name, seed)
        tasks = drawn(seed, count or self._arguments.tasks, at_once=bool(count))
        documents = [
            document(one, number, directory, name, PROJECT, allowed(policy, number, one, SITES))
            for number, one in enumerate(tasks)
        ]
        begun, clock = time.time(), time.monotonic()
        ids = self._hand_in([one.arrives for one in tasks], documents, clock)
        until = time.monotonic() + self._arguments.limit
        while True:
            known = [task for task in self._client.tasks(limit=None) if task.id in ids]
            if all(task.ended for task in known) or time.monotonic() > until:
                break
            time.sleep(2)
        shutil.rmtree(directory)
        ended = [task for task in known if task.ended_at is not None]
        ends = [task.ended_at.timestamp() - begun for task in ended if task.ended_at is not None]
        found = {
            "makespan_s": round(max(ends, default=0.0), 1),
            "mean_end_s": round(sum(ends) / max(1, len(ends)), 1),
            "ended": len(ended),
            "ended_well": sum(task.succeeded for task in ended),
            "by_site": {site: sum(task.site == site for task in known) for site in SITES},
            "load": round(os.getloadavg()[0], 2),
            **(self._covered(ended) if policy == "isthmus" else {}),
        }
        print(json.dumps({name: found}), flush=True)
        return found

    def _await_sites(self) -> None:
        until = time.monotonic() + 90
        while True:
            found = {site.name: site for site in self._client.sites() if site.reachable and site.pools}
            if found.keys() >= SITES.keys() and all(found[name].data.get("address") for name in ("north", "south")):
                return
            if time.monotonic() > until:
                raise SystemExit(f"not all sites answer: {sorted(found)}")
            time.sleep(0.5)

    def _register(self, directory: Path, name: str, seed: int) -> None:
        """Make this policy's datasets of files that lie at the clusters."""
        directory.mkdir()
        for site, path in lay_out(directory, name, seed):
            there = self._centres.lay(site, path)
            self._client.run(datasets.register(site, there, DatasetRef(project=PROJECT, name=path.name)))

    def _hand_in(self, arrivals: Sequence[float], documents: Sequence[dict[str, Any]], clock: float) -> set[str]:
        """Each task at its time; those of one moment together."""
        ids: set[str] = set()
        first = 0
        while first < len(documents):
            with contextlib.suppress(ValueError):
                time.sleep(clock + arrivals[first] - time.monotonic())
            last = first + 1
            while last < len(documents) and clock + arrivals[last] <= time.monotonic():
                last += 1
            made = self._client.submit_many(documents[first:last])
            ids.update(one.id for group in made for one in group)
            first = last
        return ids

    def _covered(self, ended: Sequence[Task]) -> dict[str, Any]:
        """How many ended within the interval that was predicted, before it, and after it."""
        told: list[tuple[float, float, float, float]] = []  # when it was decided, p10, actual, p90
        for task in ended:
            receipts = [one for one in self._client.run(operations.receipts(task.id)) if one.chosen_site]
            if receipts and task.ended_at is not None:
                told.append(_told(max(receipts, key=lambda one: one.decided_at), task.ended_at.timestamp()))
        told.sort()
        return {
            "coverage": _share(told),
            "coverage_first_50": _share(told[:COLD]),
            "coverage_rest": _share(told[COLD:]),
            "sooner": round(sum(took < low for _, low, took, _ in told) / max(1, len(told)), 3),
            "later": round(sum(took > high for _, _, took, high in told) / max(1, len(told)), 3),
            "width_s": round(sorted(high - low for _, low, _, high in told)[len(told) // 2], 1) if told else None,
            "predicted": len(told),
        }


def _told(receipt: Receipt, ended_at: float) -> tuple[float, float, float, float]:
    plan = plan_of(next(one for one in receipt.candidates if one.why is Why.CHOSEN))
    took = ended_at - receipt.decided_at
    return receipt.decided_at, plan.finish_p10_seconds, took, plan.finish_p90_seconds


def _share(told: Sequence[tuple[float, float, float, float]]) -> float | None:
    return round(sum(low <= took <= high for _, low, took, high in told) / len(told), 3) if told else None


if __name__ == "__main__":
    main()
