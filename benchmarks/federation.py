"""Real logs joined into a federation: `python -m benchmarks.federation [--log FILE PROCESSORS ...] [--json] [--quick]`.

Each log is a home site with its own processors and EASY; the first 330 days of each, aligned at 0; no data moves. Three
routers: isolated (every job at home), shortest_backlog (at arrival, to the least requested work waiting and running per
processor), ours (isthmus.placement.federation). Arrivals x1.15 means submission times divided by 1.15, in whole seconds.

mean_wait_s and avebsld (mean of max(1, (wait + run) / max(run, 10 s))) are over all jobs, home_avebsld over those of a
home, wherever they ran. Utilisation: processor seconds used until the last submission, over processors times that time.
Estimates are the users' requests; a log without them is refused, unless --estimate actual is given.
Without --log: KTH 100, CTC 338, SDSC-SP2 128, HPC2N 240 in ISTHMUS_SHARED_DATA or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, table
from isthmus.twin.federation import Federation, Outcome, Router, Workload, federate
from isthmus.twin.readers import SwfLog, read_swf
from isthmus.twin.runnable import runnable
from isthmus.twin.schedulers import bounded_slowdown

LOGS = (
    ("KTH-SP2.sc15-rebuilt.swf.gz", 100),
    ("CTC-SP2.sc15-rebuilt.swf.gz", 338),
    ("SDSC-SP2.sc15-rebuilt.swf.gz", 128),
    ("HPC2N-2002-2.2-cln.swf.gz", 240),
)
ROUTERS: dict[str, Router] = {"isolated": "isolated", "shortest_backlog": "shortest-backlog", "ours": "holes"}


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--log", nargs=2, action="append", metavar=("FILE", "PROCESSORS"), help="a home; repeat it")
    parser.add_argument("--days", type=float, default=330.0)
    parser.add_argument("--arrivals", type=float, nargs="+", default=[1.0, 1.15, 1.3], metavar="FACTOR")
    parser.add_argument("--estimate", choices=["requested", "actual"], default="requested")
    parser.add_argument("--not-rational", action="store_true", help="ours without the rows of rationality")
    parser.add_argument("--quick", action="store_true", help="the first 30 days")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    given = arguments.log or [(str(arguments.data / "traces" / "pwa" / name), size) for name, size in LOGS]
    try:
        logs = [(Path(file), int(size)) for file, size in given]
    except ValueError:
        parser.error("PROCESSORS is a whole number")
    for file, size in logs:
        if not file.is_file() or size < 1:
            parser.error(f"{file} is no file, or {size} no number of processors; see --data and --log")
    names = [f"{file.name.split('.')[0]}" for file, _ in logs]
    names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
    sites = Federation(processors=np.array([size for _, size in logs]))
    work = join(
        [_read(file, size, arguments.estimate) for file, size in logs], 30.0 if arguments.quick else arguments.days
    )
    machine = describe()
    result: dict[str, Any] = {}
    rows: list[tuple[str, str, str, str]] = []
    for factor in arguments.arrivals:
        denser = replace(work, submit_seconds=np.floor(work.submit_seconds / factor).astype(np.int64))
        figures: dict[str, Any] = {}
        for key, router in ROUTERS.items():
            begun = time.process_time()
            got = federate(denser, sites, router, rational=not arguments.not_rational)
            figures[key] = _figures(denser, got, sites, names) | {"cpu_s": round(time.process_time() - begun, 2)}
        result[f"{factor:.2f}"] = figures
        rows += _rows(f"x{factor:.2f}", figures)
    print(json.dumps(machine))
    print(table(rows))
    if arguments.json:
        print(json.dumps(result | {"machine": machine}))


def _read(file: Path, processors: int, estimate: str) -> SwfLog:
    log, left = runnable(read_swf(file), processors, needs_request=estimate == "requested")
    for line in log.bad_lines[:5]:
        print(f"{file.name}, line {line.number} left out: {line.cause}", file=sys.stderr)
    for one in left:
        print(f"{file.name}: {len(one.job_ids)} jobs left out: {one.cause}", file=sys.stderr)
    if not len(log):
        sys.exit(f"{file} has no job that {processors} processors can run")
    return log if estimate == "requested" else replace(log, requested_seconds=log.run_seconds)


def join(logs: list[SwfLog], days: float) -> Workload:
    """The first days of each log, its first submission at 0, as the workload of home 0, 1, ..."""
    kept = []
    for log in logs:
        log = replace(log, submit_seconds=log.submit_seconds - log.submit_seconds.min())
        kept.append(log.where(log.submit_seconds < days * 86400))
    home = np.repeat(np.arange(len(kept)), [len(log) for log in kept])
    return Workload(
        submit_seconds=np.concatenate([log.submit_seconds for log in kept]),
        run_seconds=np.concatenate([log.run_seconds for log in kept]),
        processors=np.concatenate([log.requested_processors for log in kept]),
        requested_seconds=np.concatenate([log.requested_seconds for log in kept]),
        home=home,
        input_bytes=np.zeros(len(home), dtype=np.int64),
    )


def _figures(work: Workload, got: Outcome, sites: Federation, names: list[str]) -> dict[str, Any]:
    waits = got.start_seconds - work.submit_seconds
    slowdown = bounded_slowdown(waits, work.run_seconds)
    until = int(work.submit_seconds.max())
    used = np.minimum(got.start_seconds + work.run_seconds, until) - np.minimum(got.start_seconds, until)
    homes = [work.home == home for home in range(len(names))]
    return {
        "mean_wait_s": round(float(waits.mean()), 2),
        "avebsld": round(float(slowdown.mean()), 4),
        "utilisation": round(float((used * work.processors).sum() / (sites.processors.sum() * until)), 5),
        "home_avebsld": {n: round(float(slowdown[mine].mean()), 4) for n, mine in zip(names, homes, strict=True)},
        "home_mean_wait_s": {n: round(float(waits[mine].mean()), 1) for n, mine in zip(names, homes, strict=True)},
        "moved": round(float((got.site != work.home).mean()), 4),
        "jobs": len(waits),
    }


def _rows(factor: str, figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    alone, naive, ours = figures["isolated"], figures["shortest_backlog"], figures["ours"]
    rows = [
        (f"{factor} mean wait, ours", f"{ours['mean_wait_s']:,.0f} s", f"<= {naive['mean_wait_s']:,.0f} s (naive)", f"isolated {alone['mean_wait_s']:,.0f} s"),
        (f"{factor} AVEbsld, ours", f"{ours['avebsld']:.2f}", "", f"naive {naive['avebsld']:.2f}, isolated {alone['avebsld']:.2f}"),
        (f"{factor} utilisation, ours", f"{ours['utilisation']:.4f}", f">= {alone['utilisation']:.4f}", f"naive {naive['utilisation']:.4f}"),
    ]  # fmt: skip
    for name, value in ours["home_avebsld"].items():
        by_itself, by_naive = alone["home_avebsld"][name], naive["home_avebsld"][name]
        rows.append(
            (
                f"{factor} AVEbsld of {name}, ours",
                f"{value:.2f}",
                f"<= {by_itself:.2f} (alone)",
                f"naive {by_naive:.2f}",
            )
        )
    return rows


if __name__ == "__main__":
    main()
