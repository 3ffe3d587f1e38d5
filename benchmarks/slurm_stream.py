"""A seeded stream of short tasks through real Slurm clusters of the lab, as the clusters' own accounting tells it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.lab.mariadb import MariaDb
from isthmus.lab.slurm import SlurmCluster

PROCESSORS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A task to be: when it is handed in (seconds from the stream's start), how wide, for how long, how long it asks for."""

    at_seconds: float
    processors: int
    sleep_seconds: float
    request_minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A job as sacct tells it; times in whole seconds since 1970, as Slurm keeps them."""

    cluster: str
    job: int
    submit: int
    start: int
    end: int
    processors: int
    request_seconds: int


def stream(seed: int, tasks: int, clusters: int) -> list[Planned]:
    """Tasks of 1 to 20 s (log-uniform) on 1 to 8 processors, asking for several times their run time in whole minutes.

    They come about 1.5 times as fast as the clusters can run them, so that queues grow and then empty.
    """
    chance = random.Random(seed)
    planned = []
    at = 0.0
    for _ in range(tasks):
        seconds = round(20.0 ** chance.random(), 2)
        processors = chance.choice((1, 1, 2, 3, 4, 4, 6, 8))
        minutes = max(1, round(seconds * chance.uniform(3, 20) / 60 + 0.5))
        planned.append(Planned(at_seconds=at, processors=processors, sleep_seconds=seconds, request_minutes=minutes))
        at += chance.expovariate(clusters / 1.05)
    return planned


def cluster(directory: Path, name: str, database: MariaDb) -> SlurmCluster:
    """The cluster: two nodes of eight processors with accounting; not started yet."""
    return SlurmCluster(
        directory / name, name, nodes=2, gpu_nodes=0, cpus_per_node=PROCESSORS // 2, licences={}, database=database
    )


def run(sites: Sequence[SlurmCluster], planned: Sequence[Planned], deadline_seconds: float = 1500) -> list[Ran]:
    """Hand the tasks in when they are due, to one cluster after another; wait for the last and read the accounting."""
    begun = time.monotonic()
    jobs: list[list[int]] = [[] for _ in sites]
    for number, task in enumerate(planned):
        time.sleep(max(0.0, begun + task.at_seconds - time.monotonic()))
        jobs[number % len(sites)].append(_submit(sites[number % len(sites)], task))
    while any(site.run("squeue", "-h", "-o", "%i") for site in sites):
        if time.monotonic() - begun > deadline_seconds:
            raise RuntimeError(f"the jobs did not end within {deadline_seconds:.0f} s")
        time.sleep(2)
    return [ran for site, own in zip(sites, jobs, strict=True) for ran in _accounting(site, own)]


def _submit(site: SlurmCluster, task: Planned) -> int:
    options = [f"--ntasks={task.processors}", f"--time={task.request_minutes}", "--output=/dev/null", "--chdir=/"]
    said = site.run("sbatch", "--parsable", *options, input_text=f"#!/bin/sh\nexec sleep {task.sleep_seconds}\n")
    return int(said.split(";")[0])


def _accounting(site: SlurmCluster, jobs: Sequence[int]) -> list[Ran]:
    wanted = set(jobs)
    for _ in range(60):
        # The controller sends its records to the accounting a little later.
        shown = site.run(
            "env", "SLURM_TIME_FORMAT=%s", "sacct", "-X", "-n", "-P", "-a", "-S", "now-3hours",
            "-o", "JobIDRaw,Submit,Start,End,AllocCPUS,TimelimitRaw,State",
        )  # fmt: skip
        rows = [line.split("|") for line in shown.splitlines()]
        done = {int(row[0]): row for row in rows if row[6] == "COMPLETED"}
        if wanted <= done.keys():
            break
        time.sleep(1)
    else:
        raise RuntimeError(f"the accounting does not know {sorted(wanted - done.keys())} as completed")
    return [
        Ran(
            cluster=site.name,
            job=job,
            submit=int(done[job][1]),
            start=int(done[job][2]),
            end=int(done[job][3]),
            processors=int(done[job][4]),
            request_seconds=60 * int(done[job][5]),
        )
        for job in sorted(wanted)
    ]
