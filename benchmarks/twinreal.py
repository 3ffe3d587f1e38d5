"""The twin against real Slurm: `python -m benchmarks.twinreal [--json] [--quick] [--clusters N] [--keep FILE]`, as root.

Two clusters of the lab (each two nodes of eight processors, sched/backfill with bf_interval=2) run 100 sleeping tasks of 1
to 20 s from a seed, handed in with sbatch to one and the other in turn; three seeds. The twin replays what the accounting
says (submissions, processors, requests, run times) under the same scheduler. Its two latencies are measured first, on the
idle clusters, by other jobs than those that are compared. `--keep` writes what the accounting said, `--from FILE` reads it
instead of starting clusters.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import slurm_stream
from benchmarks.machine import describe, table
from benchmarks.slurm_stream import PROCESSORS, Planned, Ran
from isthmus.lab import registry
from isthmus.lab.centres import CENTRES
from isthmus.lab.mariadb import MariaDb
from isthmus.twin.schedulers import simulate
from isthmus.twin.schedulers.cycles import Cycle, cyclic_waits

SEEDS = (4, 5, 6)
"""The twin's scheduler was settled on streams of seeds 1 to 3."""
BACKFILL_SECONDS = 2.0
"""bf_interval of isthmus.lab.slurm_config."""
WINDOW_SECONDS = 30.0
"""What slurm.conf(5) says of bf_window_linear where it is not set."""
ASKED = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What the twin's schedulers need of the jobs that ran."""

    submit_seconds: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    requested_processors: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one seed, 30 tasks")
    parser.add_argument("--clusters", type=int, choices=(1, 2), default=2)
    parser.add_argument("--keep", type=Path, metavar="FILE")
    parser.add_argument("--from", dest="kept", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    machine = describe()
    if arguments.kept:
        record = {name: [Ran(**row) for row in rows] for name, rows in json.loads(arguments.kept.read_text()).items()}
    else:
        seeds, tasks = (SEEDS[:1], 30) if arguments.quick else (SEEDS, 100)
        record = _real(seeds, tasks, CENTRES[: arguments.clusters])
    if arguments.keep:
        arguments.keep.write_text(json.dumps({name: [asdict(one) for one in rows] for name, rows in record.items()}))
    cycle = Cycle(
        backfill_seconds=BACKFILL_SECONDS,
        window_seconds=WINDOW_SECONDS,
        node_processors=PROCESSORS // 2,
        notice_seconds=_notice(record.pop("idle")),
        release_seconds=_release(record.pop("line")),
    )
    runs = {name: _compare(ran, cycle) for name, ran in record.items()}
    # The run whose difference is the median one, so that the three figures belong together.
    middle = sorted(runs.values(), key=lambda run: abs(run["difference"]))[len(runs) // 2]
    result = {
        **middle,
        "runs": runs,
        "notice_seconds": round(cycle.notice_seconds, 3),
        "release_seconds": round(cycle.release_seconds, 3),
        "machine": machine,
    }
    print(json.dumps(machine))
    print(table(_rows(runs, cycle, middle)))
    if arguments.json:
        print(json.dumps(result))


def _real(seeds: Sequence[int], tasks: int, names: Sequence[str]) -> dict[str, list[Ran]]:
    """The two measurements of the idle clusters and a stream of each seed; the clusters are removed in the end."""
    directory = registry.new_directory()
    database = MariaDb(directory / "mariadb")
    sites = [slurm_stream.cluster(directory, name, database) for name in names]
    many = len(sites)
    idle = [
        Planned(at_seconds=3.3 * (i // many), processors=4, sleep_seconds=1, request_minutes=1)
        for i in range(10 * many)
    ]
    line = [
        Planned(at_seconds=0, processors=PROCESSORS // 2, sleep_seconds=2, request_minutes=1) for _ in range(30 * many)
    ]
    try:
        with contextlib.ExitStack() as stack:
            database.start()
            stack.callback(database.stop)
            for site in sites:
                site.directory.mkdir(parents=True)
                stack.enter_context(site)
            record = {"idle": slurm_stream.run(sites, idle), "line": slurm_stream.run(sites, line)}
            for seed in seeds:
                record[f"seed {seed}"] = slurm_stream.run(sites, slurm_stream.stream(seed, tasks, many))
            return record
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _notice(idle: Sequence[Ran]) -> float:
    """Mean seconds from submission to start where nothing is in the way; whole seconds each, unbiased in the mean."""
    return statistics.fmean(job.start - job.submit for job in idle)


def _release(line: Sequence[Ran]) -> float:
    """Mean seconds from the end of a job until the next of a line starts that has been waiting for its processors.

    Two jobs at a time fill a cluster: the start of each from the third on is set against the end that made room for it.
    """
    gaps: list[int] = []
    for jobs in _by_cluster(line):
        starts, ends = sorted(job.start for job in jobs), sorted(job.end for job in jobs)
        gaps += [start - end for start, end in zip(starts[2:], ends, strict=False)]
    return statistics.fmean(gaps)


def _by_cluster(ran: Sequence[Ran]) -> list[list[Ran]]:
    return [[job for job in ran if job.cluster == name] for name in sorted({job.cluster for job in ran})]


def _compare(ran: Sequence[Ran], cycle: Cycle) -> dict[str, float]:
    sites = _by_cluster(ran)
    real = np.array([job.start - job.submit for jobs in sites for job in jobs], dtype=np.float64)
    twin = np.concatenate([cyclic_waits(_columns(jobs), PROCESSORS, cycle) for jobs in sites])
    bare = np.concatenate([simulate(_columns(jobs), PROCESSORS, "easy") for jobs in sites]).mean()
    return {
        "mean_wait_real_s": round(float(real.mean()), 2),
        "mean_wait_twin_s": round(float(twin.mean()), 2),
        "difference": round(float(twin.mean() / real.mean() - 1), 4),
        "easy_without_latencies_difference": round(float(bare / real.mean() - 1), 4),
        "median_difference_of_a_job_s": round(float(np.median(np.abs(twin - real))), 2),
        "correlation": round(float(np.corrcoef(twin, real)[0, 1]), 4),
        "jobs": len(ran),
    }


def _columns(ran: Sequence[Ran]) -> Jobs:
    return Jobs(
        submit_seconds=np.array([job.submit for job in ran], dtype=np.int64),
        run_seconds=np.array([max(job.end - job.start, 1) for job in ran], dtype=np.int64),
        requested_processors=np.array([job.processors for job in ran], dtype=np.int64),
        requested_seconds=np.array([job.request_seconds for job in ran], dtype=np.int64),
    )


def _rows(runs: dict[str, dict[str, float]], cycle: Cycle, middle: dict[str, float]) -> list[tuple[str, str, str, str]]:
    rows = [
        (f"{name}: mean wait in the twin", f"{run['mean_wait_twin_s']:.1f} s ({run['difference']:+.1%})",
         f"{run['mean_wait_real_s']:.1f} s",
         f"EASY without latencies {run['easy_without_latencies_difference']:+.1%}; correlation {run['correlation']:.3f}")
        for name, run in runs.items()
    ]  # fmt: skip
    return [
        *rows,
        ("median difference of the mean wait", f"{abs(middle['difference']):.1%}", f"<= {ASKED:.0%}", "real Slurm"),
        ("idle cluster: submission to start", f"{cycle.notice_seconds:.2f} s", "", "measured, a parameter of the twin"),
        ("idle cluster: end to next start", f"{cycle.release_seconds:.2f} s", "", "measured, a parameter of the twin"),
    ]


if __name__ == "__main__":
    main()
