"""How good the metering is: `python -m benchmarks.metering [--quick] [--json]`.

- the benchmark of a node as one file in a process of its own: how long it takes, how wide its figures are, its latency
  against a compiled chain of reads;
- a task's time on a pool it never ran on, pool after pool left out: on synthetic tasks whose truth is known, and on real
  kernels under different limits of this machine: one or two processors by affinity (a worker on each, which share the task's
  parts) times four instruction sets of OpenBLAS and NumPy, which give the rates another balance, as unlike machines have.
  These are taken by processor time (of the slowest worker), so that others on the machine do not count.

Errors are |ln(predicted / actual)|. Beside the prediction: the same time as elsewhere, and the time scaled by units.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import describe, table
from isthmus.domain.capability import NodeCapability, Quantity, WorkClass
from isthmus.metering import prediction, unit
from isthmus.metering.aggregate import by_kind
from isthmus.metering.packing import bench_file
from isthmus.metering.prediction import PARTS, Run
from isthmus.metering.reading import read_document

NARROW = "AVX512_SPR AVX512_ICL X86_V4 X86_V3"
SETS: dict[str, dict[str, str]] = {
    "as it is": {},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "AVX512_SPR AVX512_ICL X86_V4"},
    "Sandybridge": {"OPENBLAS_CORETYPE": "Sandybridge", "NPY_DISABLE_CPU_FEATURES": NARROW},
    "Nehalem": {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": NARROW},
}
KERNELS = r"""
import io, json, re, sys, time
import numpy as np
r = np.random.default_rng(1)
a, b = r.random((1100, 1100)), r.random((1100, 1100))
f, g = a.astype("f4"), b.astype("f4")
s = a @ a.T + 1100 * np.eye(1100)
big, more, out = (np.full(6_000_000, x) for x in (1.0, 2.0, 0.0))
where = r.permutation(6_000_000)[:1_500_000]
text = " ".join(f"{x:06x}" for x in r.integers(0, 16**6, 60_000))
points, centres = r.random((20_000, 32)), r.random((64, 32))

def python():
    seen = {}
    for word in text.split():
        seen[word[:3]] = seen.get(word[:3], 0) + int(word, 16) % 97
def blocks():
    x = a
    for _ in range(2):
        x = np.tanh(x @ b * 1e-3)
def kmeans():
    for _ in range(3):
        d = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
        d.argmin(1)
def table():
    json.loads(json.dumps([{"k": i, "v": str(i)} for i in range(40_000)]))
kernels = {
    "matrices fp64": lambda: [a @ b for _ in range(3)],
    "matrices fp32": lambda: [f @ g for _ in range(5)],
    "cholesky": lambda: [np.linalg.cholesky(s) for _ in range(3)],
    "least squares": lambda: np.linalg.lstsq(a[:, :300], b[:, 0], rcond=None),
    "neural blocks": blocks,
    "k-means": kmeans,
    "vectors in memory": lambda: [np.add(big, more, out=out) for _ in range(6)],
    "random gather": lambda: [big[where] for _ in range(6)],
    "sort": lambda: np.sort(a, axis=None),
    "fft": lambda: np.fft.rfft(big[: 2**21]),
    "words": python,
    "json": table,
}
import os
workers, parts = len(os.sched_getaffinity(0)), 2 * int(sys.argv[1])
ends = []
for cpu in sorted(os.sched_getaffinity(0)):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.sched_setaffinity(0, {cpu})
        mine = {}
        for name, kernel in kernels.items():
            kernel()
            times = []
            for _ in range(parts // workers):
                begun = time.process_time(); kernel(); times.append(time.process_time() - begun)
            mine[name] = 2 / workers * sorted(times)[len(times) // 2]  # a task is two parts
        os.write(writer, json.dumps(mine).encode())
        os._exit(0)
    os.close(writer)
    ends.append(os.fdopen(reader))
found = [json.load(end) for end in ends]
print(json.dumps({name: max(one[name] for one in found) for name in kernels}))
"""
CHAIN_BYTES = 64 * 1024**2


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, with wider figures")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    machine = describe()
    rows: list[tuple[str, str, str, str]] = []
    node = bench({}, None, seconds=15 if arguments.quick else 60)
    rows.append(("one node, --seconds 60", f"{node.seconds:.0f} s", "<= 120 s", ""))
    spread = {q.value: round(f.error, 4) for q, f in node.processor.figures.items()}
    rows += [(f"{name}: half of p10 to p90", f"{error:.1%}", "", "") for name, error in spread.items()]
    latency = node.processor.figures[Quantity.LATENCY].median / compiled_latency()
    rows.append(("memory latency, by the interpreter's chain", f"{latency:.2f}", "", "a compiled chain = 1"))
    result: dict[str, object] = {"bench_seconds": node.seconds, "spread": spread, "latency_ratio": round(latency, 3)}
    made_up = synthetic(20 if arguments.quick else 100, seed=1)
    measured = real(3 if arguments.quick else 8, 5 if arguments.quick else 20)
    for name, told in (
        ("synthetic", judge(made_up)),
        ("real", judge(measured)),
        ("real, instruction set never seen", judge(measured, like=lambda pool: pool.partition(",")[0])),
    ):
        result[name] = told
        for key in ("median", "p90"):
            against = f"same time {told['same_' + key]:.1%}, by units {told['units_' + key]:.1%}"
            rows.append((f"prediction, {name}: {key}", f"{told[key]:.1%}", "", against))
        rows.append((f"prediction, {name}: inside the 80 % interval", f"{told['coverage_80']:.1%}", "80 %", ""))
    print(json.dumps(machine))
    print(table(rows))
    if arguments.json:
        print(json.dumps({**result, "machine": machine}))


# --- one node -----------------------------------------------------------------------------------------------------------


def bench(
    environment: Mapping[str, str], cpus: int | None, *, seconds: float, by_processor_time: bool = False
) -> NodeCapability:
    """The benchmark as a process, bound to so many processors."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "bench.pyz"
        program.write_bytes(bench_file())
        words = [sys.executable, program.name, "--json", "--quiet", "--seconds", str(seconds)]
        words += ["--processor-time"] if by_processor_time else []
        return read_document(_run(words, environment, cpus, directory))


def _run(
    words: Sequence[str], environment: Mapping[str, str], cpus: int | None, directory: str = "/", *, threads: int = 0
) -> bytes:
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    allowed = sorted(os.sched_getaffinity(0))[:cpus]
    done = subprocess.run(
        words,
        env={**clean, "OPENBLAS_NUM_THREADS": str(threads or len(allowed)), **environment},
        cwd=directory,
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    return done.stdout


def compiled_latency() -> float:
    """Seconds of a dependent read over 64 MiB, by numba; the least of several tries."""
    from numba import njit

    @njit
    def walk(table: np.ndarray, here: int, steps: int) -> int:  # pragma: no cover
        for _ in range(steps):
            here = table[here]
        return here

    lines = CHAIN_BYTES // 64
    order = np.random.default_rng(1).permutation(lines) * 8
    chain = np.zeros(CHAIN_BYTES // 8, np.int64)
    chain[order] = np.roll(order, -1)
    here = walk(chain, 0, 10)
    times = []
    for _ in range(20):
        begun = time.thread_time()
        here = walk(chain, here, 400_000)
        times.append((time.thread_time() - begun) / 400_000)
    return statistics.median(times)


# --- histories of tasks -------------------------------------------------------------------------------------------------


def synthetic(tasks: int, *, seed: int, pools: int = 10, noise: float = 0.05) -> list[list[Run]]:
    """Tasks with a true amount of each part of work and a true overlap, timed with noise on random unlike pools."""
    chance = np.random.default_rng(seed)
    base = np.array([1 / unit.REFERENCE_FIGURES[q] if q is Quantity.LATENCY else unit.REFERENCE_FIGURES.get(q, 2.5e9) for q in PARTS])  # fmt: skip
    found = []
    for _ in range(tasks):
        size = np.exp(chance.normal(1.5, 0.8, pools))  # nodes of unlike size, and of unlike balance on top of it
        rates = base * size[:, None] ** (np.array([q not in unit.BY_THREAD for q in PARTS])) * np.exp(chance.normal(0, 0.5, (pools, len(PARTS))))  # fmt: skip
        work = list(WorkClass)[int(chance.integers(len(WorkClass)))]
        weights = np.array([unit.WEIGHTS[work].get(q, 0.0) for q in PARTS])
        shares = chance.dirichlet(weights * 5 + 0.05)
        exponent = (1.0, 2.0, 4.0)[int(chance.integers(3))]
        seconds = 100 * (((shares * base / rates) ** exponent).sum(axis=1)) ** (1 / exponent)
        seconds *= np.exp(chance.normal(0, noise, pools))
        found.append(
            [
                Run(pool=f"p{index}", rates=dict(zip(PARTS, rates[index], strict=True)), seconds=float(seconds[index]))
                for index in range(pools)
            ]
        )
    return found


def real(repetitions: int, seconds: float) -> list[list[Run]]:
    """Kernels under the limits of this machine; storage and network are left out, which no limit changes."""
    histories: dict[str, list[Run]] = {}
    for name, environment in SETS.items():
        node = bench(environment, 1, seconds=seconds, by_processor_time=True)
        for cpus in (1, 2):
            rates = {part: node_rate * (cpus if part in SHARED else 1) for part, node_rate in _rates(node).items()}
            pool = f"{name}, {cpus}"
            told = json.loads(_run([sys.executable, "-c", KERNELS, str(repetitions)], environment, cpus, threads=1))
            for kernel, took in told.items():
                histories.setdefault(kernel, []).append(Run(pool=pool, rates=rates, seconds=took))
            sys.stderr.write(f"{pool}: {json.dumps({k: round(v, 4) for k, v in told.items()})}\n")
    return list(histories.values())


SHARED = frozenset(set(PARTS) - {Quantity.STORAGE_READ, Quantity.STORAGE_WRITE})


def _rates(node: NodeCapability) -> dict[Quantity, float]:
    (pool,) = by_kind([node])
    return {part: rate for part, rate in prediction.rates_given(pool, 1).items() if part in SHARED}


# --- judging ------------------------------------------------------------------------------------------------------------


def judge(histories: Sequence[Sequence[Run]], like: Callable[[str], str] = str) -> dict[str, float]:
    """Errors on pools left out (with all that are `like` them), of the prediction and of two simpler ones, and how often
    the 80 % interval held."""
    errors: dict[str, list[float]] = {"": [], "same_": [], "units_": []}
    held = []
    for history in histories:
        for out in history:
            others = [run for run in history if like(run.pool) != like(out.pool)]
            profile = prediction.learn(others)
            told = prediction.predict(profile, out.rates)
            errors[""].append(abs(math.log(told.p50 / out.seconds)))
            held.append(told.p10 <= out.seconds <= told.p90)
            errors["same_"].append(abs(_mean(others, lambda run: run.seconds) - math.log(out.seconds)))
            scaled = _mean(others, lambda run: run.seconds * _size(run)) - math.log(_size(out))
            errors["units_"].append(abs(scaled - math.log(out.seconds)))
    found = {"coverage_80": sum(held) / len(held), "cases": float(len(held))}
    for name, values in errors.items():
        found[f"{name}median"] = statistics.median(values)
        found[f"{name}p90"] = float(np.quantile(values, 0.9))
    return {key: round(value, 4) for key, value in found.items()}


def _mean(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return statistics.fmean(math.log(of(run)) for run in runs)


def _size(run: Run) -> float:
    """A pool's general units as far as its rates are known: the geometric mean of all."""
    return math.exp(statistics.fmean(math.log(rate) for rate in run.rates.values()))


if __name__ == "__main__":
    main()
