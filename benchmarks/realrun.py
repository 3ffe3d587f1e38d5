"""Two real Slurm clusters and an SSH host over an emulated network: `python -m benchmarks.realrun [--tasks N] [--json]`.

The centres and the network are those of the demonstration (two disjoint paths, one thin and fast, one fat and slow). N mixed tasks of
five kinds, each with an uploaded file of its own (0.2 to 8 MB, log-normal), are handed in at once: by each policy in turn, on the
same machines. `isthmus` leaves the place to the brain; `round_robin` pins task i to site i mod 3; `nearest_data` pins every task to
the site with the fewest links to where its data is. Before that 25 tasks teach the run times, and 60 how far ends are from their
predictions. `coverage_80`: the share of the tasks placed
by the brain that ended within the 10 % and 90 % quantiles of their end as predicted when they were placed. Needs root on Debian with
Slurm; what is missing is said.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, table
from isthmus.client import operations
from isthmus.client.records import Task
from isthmus.client.sync import Client
from isthmus.demo.centres import USER, Centres
from isthmus.demo.plane import Person, Plane
from isthmus.demo.screen import Screen
from isthmus.domain.placement import Why
from isthmus.lab import registry
from isthmus.lab.processes import Daemons, remove_stale
from isthmus.placement.plans import plan_of

SITES = ("north", "south", "workshop")
NEAREST = "north"  # one router from the desk, where uploads are; the others are behind the wide network
KINDS = ((1, 1.5), (1, 4.0), (2, 2.0), (2, 6.0), (4, 3.0))  # processors, median seconds
SPREAD = 0.25  # of the log of a task's seconds around its kind's
POLICIES = ("isthmus", "round_robin", "nearest_data")
PROJECT = "bench"


def main() -> None:
    """Run all policies, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--limit", type=float, default=480.0, help="seconds for each policy")
    parser.add_argument("--teach", type=int, nargs="+", default=[25, 60], help="bursts of tasks beforehand")
    parser.add_argument("--keep", type=Path, help="a folder that gets the service's store at the end")
    parser.add_argument("--policies", default=",".join(POLICIES), help="in this order")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    machine = describe()
    print(json.dumps(machine), flush=True)
    remove_stale()
    directory = registry.new_directory("isthmus-realrun-")
    screen, centres = Screen(), Centres(directory)
    if centres.left_out:
        raise SystemExit("cannot run here: " + "; ".join(centres.left_out))
    daemons = Daemons(directory / "plane")
    plane = Plane(daemons, daemons.directory / "state", screen)
    found: dict[str, dict[str, Any]] = {}
    try:
        subprocess.run(
            [sys.executable, "-m", "isthmus.placement.joint"], check=True
        )  # compiled beforehand, as after an upgrade
        centres.start(screen)
        plane.start(centres.place())
        client = _joined(centres, plane, daemons.directory / "desk", screen)
        for number, count in enumerate(arguments.teach):
            _run(client, daemons.directory / f"teach{number}", count, "isthmus", arguments.limit)
            time.sleep(40)  # what ended is learned from every half minute
        for policy in arguments.policies.split(","):
            found[policy] = _run(client, daemons.directory / policy, arguments.tasks, policy, arguments.limit)
            print(json.dumps({policy: found[policy]}), flush=True)
    finally:
        daemons.close()
        centres.stop()
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for part in plane.state.glob("*.db*"):
                shutil.copy(part, arguments.keep)
        shutil.rmtree(directory, ignore_errors=True)
    rows = [
        (name, f"{of['makespan_s']:.0f} s, mean {of['mean_end_s']:.0f} s", str(of["ended_well"]), str(of["by_site"]))
        for name, of in found.items()
    ]
    print(table([("policy", "makespan, mean end", "ended well", "by site"), *rows]))
    if arguments.json:
        print(json.dumps({"tasks": arguments.tasks, **found, "machine": machine}))


def _joined(centres: Centres, plane: Plane, desk: Path, screen: Screen) -> Client:
    desk.mkdir(mode=0o700)
    operator = Person("admin", {"ISTHMUS_STATE": str(plane.state)}, desk, screen)
    for words in (("user", "add", USER), ("project", "add", PROJECT), ("project", "member", "add", PROJECT, USER)):
        operator.type(*words)
    centres.join(operator)
    client = plane.client(operator.type("token", "create", "--user", USER, show=False).strip(), PROJECT)
    until = time.monotonic() + 90
    while not {site.name for site in client.sites() if site.reachable and site.pools} >= set(SITES):
        if time.monotonic() > until:
            raise SystemExit("not all sites answer")
        time.sleep(0.5)
    return client


def _run(client: Client, directory: Path, count: int, policy: str, limit: float) -> dict[str, Any]:
    directory.mkdir()
    rng = random.Random(7)  # the same tasks for every policy
    documents = [_document(rng, directory, policy, number) for number in range(count)]
    begun = time.time()
    ids = [one.id for group in client.submit_many(documents) for one in group]
    until = time.monotonic() + limit
    while True:
        tasks = {task.id: task for task in client.tasks(limit=None) if task.id in set(ids)}
        if all(task.ended for task in tasks.values()) or time.monotonic() > until:
            break
        time.sleep(2)
    ended = [task for task in tasks.values() if task.ended_at is not None]
    ends = [task.ended_at.timestamp() - begun for task in ended if task.ended_at is not None]
    sites = {site: sum(task.site == site for task in tasks.values()) for site in SITES}
    return {
        "makespan_s": round(max(ends, default=0.0), 1),
        "mean_end_s": round(sum(ends) / max(1, len(ends)), 1),
        "ended_well": sum(task.succeeded for task in ended),
        "by_site": sites,
        **(_covered(client, ended) if policy == "isthmus" else {}),
    }


def _document(rng: random.Random, directory: Path, policy: str, number: int) -> dict[str, Any]:
    """One task: a kind, its seconds, its file; pinned by the policy."""
    kind = rng.randrange(len(KINDS))
    cpus, median = KINDS[kind]
    seconds = median * rng.lognormvariate(0.0, SPREAD)
    size = int(min(8e6, max(2e5, rng.lognormvariate(14.0, 1.0))))
    path = directory / f"data-{number}.bin"
    path.write_bytes(rng.randbytes(size))
    allowed = {"isthmus": SITES, "round_robin": (SITES[number % len(SITES)],), "nearest_data": (NEAREST,)}[policy]
    return {
        "name": f"kind{kind}",
        "command": f"wc -c < data.bin > size.txt; sleep {seconds:.2f}",
        "inputs": [{"file": str(path), "path": "data.bin"}],
        "outputs": ["size.txt"],
        "cpus": cpus,
        "memory": "128M",
        "time": "3m",
        "sites": list(allowed),
    }


def _covered(client: Client, ended: list[Task]) -> dict[str, Any]:
    """How many ended within the interval that was predicted, before it, and after it."""
    inside = before = after = known = 0
    for task in ended:
        receipts = [one for one in client.run(operations.receipts(task.id)) if one.chosen_site]
        if not receipts or task.ended_at is None:
            continue
        receipt = max(receipts, key=lambda one: one.decided_at)
        plan = plan_of(next(one for one in receipt.candidates if one.why is Why.CHOSEN))
        took = task.ended_at.timestamp() - receipt.decided_at
        known += 1
        before += took < plan.finish_p10_seconds
        after += took > plan.finish_p90_seconds
        inside += plan.finish_p10_seconds <= took <= plan.finish_p90_seconds
    share = max(1, known)
    return {
        "coverage_80": round(inside / share, 3),
        "sooner": round(before / share, 3),
        "later": round(after / share, 3),
        "predicted": known,
    }


if __name__ == "__main__":
    main()
