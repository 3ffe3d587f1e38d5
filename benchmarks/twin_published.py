"""The twin against what others published: GPU packing (FGD, ATC 2023) and job scheduling (RLScheduler, SC 2020)."""

from __future__ import annotations

import csv
import gzip
import json
import time
from pathlib import Path
from typing import get_args

import numpy as np

from isthmus.twin.packing import Policy, pack, typical
from isthmus.twin.packing.arrivals import allocation, resampled
from isthmus.twin.readers import read_swf
from isthmus.twin.readers.openb import read_openb_nodes, read_openb_tasks
from isthmus.twin.schedulers import bounded_slowdown, simulate
from isthmus.twin.schedulers.sequence import rule_waits, sequence_of

Rows = list[tuple[str, str, str, str]]
WORKLOADS = ("default", "cpu050", "cpu250")
PUBLISHED: dict[Policy, str] = {
    "random": "01-Random",
    "dot-product": "02-DotProd",
    "clustering": "03-GpuClustering",
    "packing": "04-GpuPacking",
    "best-fit": "05-BestFit",
    "fgd": "06-FGD",
}
SEEDS = range(42, 52)
LOGS = {
    "Lublin-1": ("data/lublin_256.swf", "lublin_256.swf.gz", 256),
    "HPC2N": ("data/HPC2N-2002-2.2-cln.swf", "HPC2N-2002-2.2-cln.swf.gz", 240),
    "Lublin-2": ("data/lublin_256_new2", "lublin_256_new2.gz", 256),
}
# Table V with backfilling: the learned scheduler, and the best of all six (F1 on HPC2N, SJF on Lublin-2).
LEARNED = {"Lublin-1": 58.64, "HPC2N": 86.14, "Lublin-2": 118.79}
BEST = {"Lublin-1": 58.64, "HPC2N": 71.95, "Lublin-2": 91.99}


def fgd(traces: Path) -> tuple[dict[str, dict[str, dict[str, float]]], Rows]:
    """Per workload and policy: allocation at 130 % load, per cent, mean over the seeds; ours and the published one."""
    with gzip.open(traces / "gpu" / "fgd_expected_alloc.csv.gz", "rt") as file:
        table = {
            (row["workload"], row["sc_policy"], int(row["seed"])): float(row["130"]) for row in csv.DictReader(file)
        }
    nodes, _ = read_openb_nodes(traces / "gpu" / "openb_node_list_gpu_node.csv")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    rows: Rows = []
    for workload in WORKLOADS:
        tasks, _ = read_openb_tasks(traces / "gpu" / f"openb_pod_list_{workload}.csv.gz")
        mix = typical(tasks)
        arrivals = [resampled(tasks, nodes, 1.3, seed) for seed in SEEDS]
        figures[workload] = {}
        for policy in get_args(Policy):
            pack(arrivals[0][1], arrivals[0][0].take(np.arange(10)), policy, mix)
            begun = time.process_time()
            used = [pack(n, t, policy, mix, seed).used_milli for seed, (t, n) in zip(SEEDS, arrivals, strict=True)]
            spent = time.process_time() - begun
            rate = sum(len(t) for t, _ in arrivals) / spent
            got = [allocation(t, u, n, 130) for u, (t, n) in zip(used, arrivals, strict=True)]
            column = PUBLISHED.get(policy, "06-FGD")
            theirs = [table[f"openb_pod_list_{workload}", column, seed] for seed in SEEDS]
            figures[workload][policy] = {
                "got": round(float(np.mean(got)), 3),
                "published": round(float(np.mean(theirs)), 3),
                "largest_difference_of_a_seed": round(float(np.abs(np.subtract(got, theirs)).max()), 2),
                "tasks_per_cpu_s": round(rate),
            }
            one = figures[workload][policy]
            asked = f"{one['published']:.3f} +- 0.5" if policy in PUBLISHED else f">= FGD's {one['published']:.3f}"
            against = f"seeds differ by up to {one['largest_difference_of_a_seed']:.2f}; {rate:,.0f} tasks/CPU s"
            rows.append((f"GPUs given out at 130 %, {workload}, {policy}", f"{one['got']:.3f} %", asked, against))
    return figures, rows


def sc20(traces: Path) -> tuple[dict[str, dict[str, dict[str, float]]], Rows]:
    """Per log: each rule's mean bounded slowdown over the ten sequences, got and published; and our own scheduler's."""
    published = json.loads((traces / "reference-sc20" / "rlscheduler_table5_sequences.json").read_text())
    figures: dict[str, dict[str, dict[str, float]]] = {}
    rows: Rows = []
    for name, (trace, file, processors) in LOGS.items():
        jobs = sequence_of(read_swf(traces / "pwa" / file))
        figures[name] = {}
        cuts = []
        for entry in (entry for entry in published if entry["trace"] == trace):
            cuts = [jobs.cut(start, entry["length"]) for start in entry["starts"]]
            for rule, value in entry["mean"].items():
                waits = [rule_waits(cut, processors, rule, bool(entry["backfill"])) for cut in cuts]
                got = np.mean([bounded_slowdown(w, c.run_seconds).mean() for w, c in zip(waits, cuts, strict=True)])
                key = f"{rule}{', backfilling' if entry['backfill'] else ''}"
                figures[name][key] = {"got": round(float(got), 2), "published": round(value, 2)}
                rows.append(
                    (f"mean bounded slowdown, {name}, {key}", f"{got:.2f}", f"{value:.2f}", "RLScheduler, SC'20")
                )
        own = [bounded_slowdown(simulate(cut, processors, "selective"), cut.run_seconds).mean() for cut in cuts]
        figures[name]["selective (own)"] = {"got": round(float(np.mean(own)), 2), "published": BEST[name]}
        ratio = (
            f"{np.mean(own) / BEST[name]:.2f}x the best published, {np.mean(own) / LEARNED[name]:.2f}x the learned one"
        )
        rows.append((f"mean bounded slowdown, {name}, selective", f"{np.mean(own):.2f}", f"< {BEST[name]}", ratio))
    return figures, rows
