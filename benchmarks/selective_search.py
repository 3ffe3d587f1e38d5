"""How selective got its weights: `python -m benchmarks.selective_search [--data DIR] [--tries N] [--seed N] [--json]`.

Sequences of 1,024 jobs (and one of 833) of Lublin-1, Lublin-2 and HPC2N, none of which shares a job with the ten on which
selective is compared with others (from job 1,981 on). What is made small is the product of the three logs' mean bounded
slowdowns. The first tries are drawn at random, the later ones near the best eight.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from benchmarks.machine import describe, table
from benchmarks.twin_published import LOGS
from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import bounded_slowdown
from isthmus.twin.schedulers.outages import replan
from isthmus.twin.schedulers.replan import TRAINED, Weights
from isthmus.twin.schedulers.sequence import Sequence, sequence_of

RANDOM_TRIES = 60
KEPT = 8
SYNTHETIC = [(start, 1024) for start in range(0, 957, 80)] + [(6252, 833)]  # before, and between, those compared
NEVER = 1e9


def main() -> None:
    """Search, print the best settings and the one in use, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--tries", type=int, default=450)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    draw = np.random.default_rng(arguments.seed)
    training: list[tuple[list[Sequence], int]] = []
    for name, (_, file, processors) in LOGS.items():
        jobs = sequence_of(read_swf(arguments.data / "traces" / "pwa" / file))
        cuts = SYNTHETIC
        if name == "HPC2N":
            cuts = [(int(start), 1024) for start in draw.integers(10_000, len(jobs) - 1024, 60)]
        training.append(([jobs.cut(*cut) for cut in cuts], processors))
    found: list[tuple[float, Weights, list[float]]] = []
    for number in range(arguments.tries):
        weights = _random(draw) if number < RANDOM_TRIES else _near(draw, found[int(draw.integers(KEPT))][1])
        found.append(_tried(weights, training))
        found.sort(key=lambda one: one[0])
    best = [*found[:KEPT], _tried(TRAINED, training)]
    rows = []
    for score, weights, means in best:
        setting = (
            f"width {weights.width:.2f}, stretch {weights.stretch:.2f}, reserved at {weights.reserved_stretch:.1f}"
        )
        mean = ", ".join(f"{name} {value:.2f}" for name, value in zip(LOGS, means, strict=True))
        rows.append((setting, f"{score:.3f}", "", f"{mean}{', in use' if weights == TRAINED else ''}"))
    print(json.dumps(describe()))
    print(table(rows))
    if arguments.json:
        print(json.dumps({"tries": arguments.tries, "best": best[0], "in_use": best[-1], "machine": describe()}))


def _tried(weights: Weights, training: list[tuple[list[Sequence], int]]) -> tuple[float, Weights, list[float]]:
    means = []
    for cuts, processors in training:
        waits = [replan(cut, processors, "selective", weights=weights).wait_seconds for cut in cuts]
        slowdowns = [bounded_slowdown(w, cut.run_seconds).mean() for w, cut in zip(waits, cuts, strict=True)]
        means.append(float(np.mean(slowdowns)))
    return float(np.log(means).sum()), weights, means


def _random(draw: np.random.Generator) -> Weights:
    reserved = 10 ** draw.uniform(0.5, 4) if draw.random() < 0.5 else NEVER
    return Weights(width=draw.uniform(0, 1.5), stretch=draw.uniform(0, 1.5), reserved_stretch=reserved)


def _near(draw: np.random.Generator, weights: Weights) -> Weights:
    return Weights(
        width=abs(weights.width + draw.normal() * 0.2),
        stretch=abs(weights.stretch + draw.normal() * 0.2),
        reserved_stretch=weights.reserved_stretch * float(np.exp(draw.normal() * 0.5)),
    )


if __name__ == "__main__":
    main()
