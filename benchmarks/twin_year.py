"""A year of a national platform in the twin: `python -m benchmarks.twin_year [--days N] [--data DIR]`; the last line is one JSON object.

250,000 jobs a day on 30 sites under our router in its fast mode, EASY at each site. A home's jobs are drawn, seeded, from one of three real
logs (KTH, CTC, SDSC-SP2 in turn): processors, run time and request of one job together, arrivals by the log's hours of the week;
inputs log-normal, mean 500 MB, over an access link of 100 Gbit/s for each site. A home's own jobs fill 40 to 80 % of its site.
Jobs are made and added up day by day (waits by bins, sums by day and home, energy, cost and carbon by the hour), in a thread beside
the core; only those that are not over are held. Reading and compilation are left out, making the jobs is included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.twin.federation import Ended, Federation, Stream
from isthmus.twin.readers import read_swf
from isthmus.twin.runnable import runnable
from isthmus.twin.scenario.account import account
from isthmus.twin.scenario.load import shapes_of
from isthmus.twin.scenario.model import Site, Synthetic
from isthmus.twin.scenario.run import streamed
from isthmus.twin.scenario.synthetic import days_of
from isthmus.twin.tally import Tally

SITES, JOBS_A_DAY = 30, 250_000
LOGS = (
    ("KTH-SP2.sc15-rebuilt.swf.gz", 100),
    ("CTC-SP2.sc15-rebuilt.swf.gz", 338),
    ("SDSC-SP2.sc15-rebuilt.swf.gz", 128),
)


def make(logs: Path, days: float, seed: int = 1) -> tuple[tuple[Site, ...], Federation, tuple[Synthetic, ...]]:
    """The sites, what joins them, and their homes' workloads."""
    random = np.random.default_rng(seed)
    shapes = []
    for name, processors in LOGS:
        log, _ = runnable(read_swf(logs / name), processors, needs_request=True)
        shapes.append(shapes_of(log, name))
    busy = random.uniform(0.8, 1.2, SITES)
    daily = JOBS_A_DAY * busy / busy.sum()
    load = random.permutation(np.linspace(0.4, 0.8, SITES))
    sites, parts = [], []
    for number in range(SITES):
        like = shapes[number % len(shapes)]
        area = float((like.processors * like.run_seconds).mean())
        tariff = np.where((np.arange(24) >= 8) & (np.arange(24) < 22), 0.12, 0.06) * random.uniform(0.7, 1.3)
        sites.append(
            Site(
                name=f"s{number}",
                processors=round(daily[number] * area / 86400 / load[number]),
                pue=1.25,
                watts_per_processor=8.0,
                tariff=tariff,
                intensity=np.full(24, random.uniform(50, 700)),
            )
        )
        parts.append(
            Synthetic(
                home=f"s{number}",
                jobs_per_day=float(daily[number]),
                days=days,
                most_processors=10_000,
                mean_input_bytes=5e8,
                like=like,
            )
        )
    pairs = np.stack(np.meshgrid(np.arange(SITES), np.arange(SITES), indexing="ij"), axis=-1)
    pairs[np.arange(SITES), np.arange(SITES)] = -1
    federation = Federation(
        processors=np.array([site.processors for site in sites]),
        paths=pairs,
        latency_seconds=np.full((SITES, SITES), 0.01),
        capacity_bytes_per_second=np.full(SITES, 12.5e9),
    )
    return tuple(sites), federation, tuple(parts)


def run(logs: Path, days: float, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The figures of so many days; seconds of the processor and of the clock, and the most memory this process ever had."""
    sites, federation, parts = make(logs, days)
    warm = Stream(federation, "holes")
    first = next(days_of(parts, sites, 9))
    warm.feed(first.take(slice(0, 2000)), last=True)
    begun, clock = time.process_time(), time.monotonic()
    stream = Stream(federation, "holes")
    tally = Tally(homes=SITES, processors=int(federation.processors.sum()))
    most = 0
    by_day: list[float] = []

    def note(day: int) -> None:
        nonlocal most
        most = max(most, stream.held)
        by_day.append(time.process_time() - begun)
        if day % 30 == 0:
            wall = time.monotonic() - clock
            say(f"day {day}: {wall:.0f} s, {by_day[-1]:.0f} s of the processor, {stream.held:,} jobs held")

    streamed(stream, days_of(parts, sites, 1), lambda ended: _add(tally, sites, ended), on_day=note)
    spent = time.process_time() - begun
    weeks = len(by_day) // 14 * 7 or len(by_day) // 2  # whole weeks, as a weekend is easier than a Monday
    return {
        "days": days,
        "cpu_s": round(spent, 1),
        "wall_s": round(time.monotonic() - clock, 1),
        "rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "jobs_per_cpu_s": round(tally.figures()["jobs"] / spent),
        "second_half_over_first": round((by_day[2 * weeks - 1] - by_day[weeks - 1]) / by_day[weeks - 1] - 1, 3)
        if weeks
        else None,
        "most_held": most,
        **{name: round(value, 4) for name, value in tally.figures().items()},
    }


def _add(tally: Tally, sites: tuple[Site, ...], ended: Ended) -> None:
    jobs = ended.jobs
    tally.add(ended, account(sites, ended.site, ended.start_seconds, jobs.run_seconds, jobs.processors))


def main() -> None:
    """Run, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--days", type=float, default=365.0)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.data / "traces" / "pwa", arguments.days, lambda text: print(text, flush=True))))


if __name__ == "__main__":
    main()
