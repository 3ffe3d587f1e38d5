"""How fast the twin's site schedulers are: `python -m benchmarks.twin [--data DIR] [--quick] [--json]`.

Jobs per second of processor time on one core, best of three, compilation and reading left out; SimGrid beside them; and a year of
a national platform (benchmarks.twin_year, in a process of its own, so that its memory is its own). With --quick 30 days of it are
run, the figures say so, and no year is claimed. The logs are those of the tests: the folder of public data is
ISTHMUS_SHARED_DATA, or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks import twin_federation, twin_published, twin_simgrid
from benchmarks.machine import describe, table
from isthmus.twin.readers import SwfLog, read_swf
from isthmus.twin.schedulers import bounded_slowdown, simulate
from isthmus.twin.schedulers.simulate import Estimates, Scheduler

LOGS = {"KTH-SP2": 100, "CTC-SP2": 338, "SDSC-SP2": 128}
# Jobs per processor second of others (SimGrid is run below), measured on two cores of such a machine when the twin was designed, not by this run.
PEERS = "pyss 9 k, Alea 1.2 k, AccaSim 0.8 k"
ASKED = 1_000_000
YEAR_SECONDS, YEAR_GB = 900, 8


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--quick", action="store_true", help="30 days in place of the year")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.data / "traces").is_dir():
        parser.error(f"there are no traces in {arguments.data}: give --data or set ISTHMUS_SHARED_DATA")
    machine = describe()
    figures: dict[str, dict[str, float]] = {}
    rows: list[tuple[str, str, str, str]] = []
    for name, processors in LOGS.items():
        log = read_swf(arguments.data / "traces" / "pwa" / f"{name}.sc15-rebuilt.swf.gz")
        few = log.where(np.arange(len(log)) < 10)
        for scheduler in get_args(Scheduler):
            for estimates in get_args(Estimates):
                rate, slowdown = _measure(log, few, processors, scheduler, estimates)
                key = f"{scheduler}, {estimates}"
                figures.setdefault(key, {})[name] = round(rate)
                asked = f"{ASKED:,}" if scheduler == "easy" else ""
                rows.append((f"{key}, {name} (slowdown {slowdown:.4f})", f"{rate:,.0f} jobs/CPU s", asked, PEERS))
    packing, more = twin_published.fgd(arguments.data / "traces")
    rows += more
    sequences, more = twin_published.sc20(arguments.data / "traces")
    rows += more
    federation, more = twin_federation.measure()
    rows += more
    simgrid, more = twin_simgrid.measure(arguments.data / "traces")
    rows += more
    year, more = _year(arguments.data, 30 if arguments.quick else 365)
    rows += more
    print(json.dumps(machine))
    print(table(rows))
    if arguments.json:
        result = {
            **simgrid,
            **year,
            "jobs_per_cpu_s": figures["easy, requested"],
            "all_jobs_per_cpu_s": figures,
            "federation_jobs_per_s": federation["holes"],
            "federation_jobs_per_s_by_router": federation,
            "fgd": packing,
            "sc20": sequences,
            "machine": machine,
        }
        print(json.dumps(result))


def _year(data: Path, days: int) -> tuple[dict[str, object], list[tuple[str, str, str, str]]]:
    """Seconds and memory of a year; of fewer days under names that say so."""
    words = [sys.executable, "-m", "benchmarks.twin_year", "--days", str(days), "--data", str(data)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    got = json.loads(done.stdout.splitlines()[-1])
    name = "year" if days == 365 else f"{days}_days"
    asked = (f"< {YEAR_SECONDS} s", f"< {YEAR_GB} GB") if days == 365 else ("", "")
    said = f"{got['cpu_s']:,.0f} s of the processors; second half {1 + (got['second_half_over_first'] or 0):.2f} times the first"
    rows = [
        (f"{got['jobs']:,} jobs, 30 sites, {days} days", f"{got['wall_s']:,.0f} s", asked[0], said),
        ("the same, memory", f"{got['rss_gb']:.2f} GB", asked[1], f"at most {got['most_held']:,} jobs held"),
    ]
    return {f"{name}_seconds": got["wall_s"], f"{name}_rss_gb": got["rss_gb"], f"{name}_run": got}, rows


def _measure(
    log: SwfLog, few: SwfLog, processors: int, scheduler: Scheduler, estimates: Estimates
) -> tuple[float, float]:
    simulate(few, processors, scheduler, estimates)
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        waits = simulate(log, processors, scheduler, estimates)
        best = min(best, time.process_time() - begun)
    return len(log) / best, float(bounded_slowdown(waits, log.run_seconds).mean())


if __name__ == "__main__":
    main()
