"""How fast many sites are: a seeded stream on 30 sites of 256 processors, with inputs that move over shared links.

Widths 1 to 32, run times log-normal (median 403 s), requests three times as long, load 0.7 of all processors, homes unlike
busy, inputs log-normal (median 66 MB) over an access link of 10 Gbit/s for each site. Made input: no trace of so many sites is public.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from isthmus.twin.federation import Federation, Router, Workload, federate

SITES, PROCESSORS, LOAD, JOBS = 30, 256, 0.7, 1_000_000
ROUTERS: tuple[Router, ...] = ("holes", "shortest-backlog")


def make(jobs: int, seed: int = 1) -> tuple[Workload, Federation]:
    """The stream and the sites."""
    random = np.random.default_rng(seed)
    width = 2 ** random.integers(0, 6, jobs)
    run = np.maximum(1, random.lognormal(6.0, 1.2, jobs)).astype(np.int64)
    span = float((width * run).sum()) / (SITES * PROCESSORS * LOAD)
    busy = random.uniform(0.5, 1.5, SITES)
    work = Workload(
        submit_seconds=np.sort(random.uniform(0, span, jobs)).astype(np.int64),
        run_seconds=run,
        processors=width,
        requested_seconds=run * 3,
        home=random.choice(SITES, jobs, p=busy / busy.sum()),
        input_bytes=random.lognormal(18.0, 2.0, jobs).astype(np.int64),
    )
    paths = np.stack(np.meshgrid(np.arange(SITES), np.arange(SITES), indexing="ij"), axis=-1)
    paths[np.arange(SITES), np.arange(SITES)] = -1
    sites = replace(
        Federation(processors=np.full(SITES, PROCESSORS)),
        paths=paths,
        latency_seconds=np.full((SITES, SITES), 0.01),
        capacity_bytes_per_second=np.full(SITES, 1.25e9),
    )
    return work, sites


def measure() -> tuple[dict[str, int], list[tuple[str, str, str, str]]]:
    """Jobs per second of processor time by router, compilation left out; and the rows of the table."""
    few, sites = make(2000)
    work, _ = make(JOBS)
    figures: dict[str, int] = {}
    for router in ROUTERS:
        federate(few, sites, router)
        begun = time.process_time()
        federate(work, sites, router)
        figures[router] = round(JOBS / (time.process_time() - begun))
    rows = [
        (f"{SITES} sites with transfers, {router}", f"{rate:,} jobs/CPU s", ">= 200,000", "")
        for router, rate in figures.items()
    ]
    return figures, rows
