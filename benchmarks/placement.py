"""Joint placement against exact solvers, greedy orders and split decisions: `python -m benchmarks.placement [--quick] [--json]`.

One process, one thread; seconds are of the processor, compilation left out; solvers that stop by the clock are given so much
more of it as others use of this machine. Instances: benchmarks/instances.py. Gaps are certified: above the larger of the round's own bound and the LP's
value where it was solved (HiGHS, options generated until the LP's own prices attract no more).
B4 is from the folder of public data: ISTHMUS_SHARED_DATA, or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.instances import Network, World, federation, make_world, offloading, random_network, read_network
from benchmarks.machine import describe, table
from benchmarks.peers import Outcome, constraint_program, in_order, integer_program, outcome, split
from isthmus.domain.placement import PoolView, Snapshot, WaitingTask
from isthmus.domain.roads import Piece, Roads, Route, Way
from isthmus.domain.site import Pool
from isthmus.domain.task import Constraints, Demand, Objective
from isthmus.placement import decide
from isthmus.placement.joint.audit import audit
from isthmus.placement.joint.problem import Answer, Budget, Prices, Problem
from isthmus.placement.joint.single import choose
from isthmus.placement.joint.solve import solve

COLD = Budget(sweeps=300, placings=10, passes=4)
WARM = Budget(sweeps=24, placings=4, passes=1)
WARM_BUCKETS = Budget(sweeps=60, placings=5, passes=2)
WARM_LARGE = Budget(sweeps=40, placings=4, passes=1)
NETWORK_LOADS = (0.25, 0.5, 1.0)
SAID = 0.5  # the load of the network for which the figure is given; the table shows the others
Rows = list[tuple[str, str, str, str]]


def main() -> None:
    """Measure, print the tables, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--quick", action="store_true", help="a fifth of the tasks, 10 s for each solver")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    machine = describe()
    print(json.dumps(machine))
    tasks, limit = (2_000, 10.0) if arguments.quick else (10_000, 60.0)
    world = make_world(30, random_network(40, 72, 1), 2)
    for buckets in (1, 12):  # compile
        solve(federation(world, 50, 9, buckets=buckets), None, Budget(sweeps=2))

    rows: Rows = []
    plain, prices = _rounds(world, tasks, 1, WARM)
    rows += _round_rows(f"{tasks:,} tasks, warm", plain, "30,000 tasks/s, 1.3 %")
    timed, _ = _rounds(world, tasks, 12, WARM_BUCKETS)
    rows += _round_rows(f"{tasks:,} tasks, 12 time buckets, warm", timed, "10,000 tasks/s, 1.3 %")
    large, _ = _rounds(world, 10 * tasks, 1, WARM_LARGE, seeds=(4,), exact=False)
    rows += _round_rows(f"{10 * tasks:,} tasks, warm", large, "1.3 %, certified")
    single = _single(world, prices)
    decided, reading = _decided(), _decided(with_data=True)
    rows.append(("one task alone, arrays, p50 / p99", f"{single[0]:.3f} / {single[1]:.3f} ms", "p99 < 5 ms", ""))
    rows.append(("the same, `decide` with its receipt", f"{decided[0]:.3f} / {decided[1]:.3f} ms", "p99 < 5 ms", ""))
    rows.append(("the same, with data and paths", f"{reading[0]:.3f} / {reading[1]:.3f} ms", "p99 < 5 ms", ""))
    over, split_rows = _over_split(arguments.data, 1_000 if arguments.quick else 4_000)
    print(table(rows + split_rows))

    peers = _peers(federation(world, tasks, 4), prices, limit, plain["bound"][0])
    print(f"\nThe same round of {tasks:,} tasks, everybody:")
    print(table(peers[0]))
    peers_timed = _peers_timed(federation(world, tasks, 4, buckets=12), timed)
    print(f"\nThe same round of {tasks:,} tasks, with 12 time buckets:")
    print(table(peers_timed))
    if arguments.json:
        result = {
            "gap_10k": max(plain["gap"]),
            "tasks_per_s_10k_warm": round(min(plain["rate"])),
            "gap_10k_buckets": max(timed["gap"]),
            "tasks_per_s_10k_buckets": round(min(timed["rate"])),
            "gap_100k": max(large["gap"]),
            "tasks_per_s_100k_warm": round(min(large["rate"])),
            "single_p99_ms": round(max(single[1], decided[1], reading[1]), 4),
            "single_without_data_p99_ms": round(max(single[1], decided[1]), 4),
            "joint_over_split": min(over[str(SAID)].values()),
            "joint_over_split_all": over,
            "peers": peers[1],
            "tasks": tasks,
            "machine": machine,
        }
        print(json.dumps(result))


def _rounds(
    world: World, tasks: int, buckets: int, budget: Budget, seeds: tuple[int, ...] = (4, 5, 6), *, exact: bool = True
) -> tuple[dict[str, list[float]], Prices]:
    """A cold round, then one round for each seed, each from the prices of the one before it; the worst is what counts."""
    answer = solve(federation(world, tasks, 3, buckets=buckets), None, COLD)
    figures: dict[str, list[float]] = {name: [] for name in ("gap", "rate", "bound", "primal", "seconds", "in_time")}
    first = answer.prices
    for seed in seeds:
        problem = federation(world, tasks, seed, buckets=buckets)
        begun = time.process_time()
        answer = solve(problem, answer.prices, budget)
        seconds = time.process_time() - begun
        bound = answer.dual
        if exact and buckets == 1:
            relaxed = audit(problem, answer.prices)
            bound = max(bound, relaxed.bound)
        figures["gap"].append(answer.primal / bound - 1)
        figures["rate"].append(tasks / seconds)
        figures["bound"].append(bound)
        figures["primal"].append(answer.primal)
        figures["seconds"].append(seconds)
        figures["in_time"].append(_figures(problem, answer, seconds).in_time)
    return figures, first


def _figures(problem: Problem, answer: Answer, seconds: float) -> Outcome:
    return outcome(problem, answer.pool, answer.path, answer.bucket, seconds)


def _round_rows(name: str, figures: dict[str, list[float]], asked: str) -> Rows:
    gaps = ", ".join(f"{100 * gap:.2f}" for gap in figures["gap"])
    rates = ", ".join(f"{rate:,.0f}" for rate in figures["rate"])
    return [(f"{name}: tasks/s (each round)", rates, asked, ""), ("    above the bound, %", gaps, "", "")]


def _single(world: World, prices: Prices) -> tuple[float, float]:
    """p50 and p99 in milliseconds of processor time over 2,000 tasks, after one to compile."""
    problems = [federation(world, 1, seed) for seed in range(2_001)]
    choose(problems[0], prices)
    return _quantiles([partial(choose, problem, prices) for problem in problems[1:]])


def _decided(*, with_data: bool = False) -> tuple[float, float]:
    """The same for what the service calls: 30 pools, a receipt with every candidate; `with_data` 500 tasks that read a data set of
    two copies, with three paths from each site to each other over 144 links."""
    rng = np.random.default_rng(1)
    views = tuple(
        PoolView(
            site=f"s{index}",
            pool=Pool(
                name="main",
                nodes=int(rng.integers(2, 100)),
                cpus_per_node=64,
                memory_bytes_per_node=2**38,
                free_cpus=int(rng.integers(0, 128)),
                price_per_cpu_hour=Decimal(int(rng.integers(1, 9))) / 100,
            ),
        )
        for index in range(30)
    )
    snapshot = Snapshot(now=1e9, pools=views)
    tasks = [
        WaitingTask(
            id=f"t{index}",
            user="ada",
            demand=Demand(cpus=int(rng.integers(1, 65)), walltime_seconds=int(rng.integers(60, 86_400))),
            objective=Objective(),
            constraints=Constraints(),
        )
        for index in range(2_000)
    ]
    if not with_data:
        return _quantiles([partial(decide, snapshot, [task]) for task in tasks])
    links = {
        f"l{n}": Way(bytes_per_second=float(rng.lognormal(18.5, 0.5)), source="measured", low=3e7, high=3e8)
        for n in range(144)
    }
    pairs = [(one.site, other.site) for one in views for other in views if one is not other]
    routes = {pair: tuple(_route(links, rng) for _ in range(3)) for pair in pairs}
    snapshot = replace(snapshot, roads=Roads(links=links, routes=routes))
    reading = [replace(task, data=(_piece(number, rng),)) for number, task in enumerate(tasks[:500])]
    return _quantiles([partial(decide, snapshot, [task]) for task in reading])


def _route(links: dict[str, Way], rng: np.random.Generator) -> Route:
    over = tuple(f"l{n}" for n in rng.choice(len(links), rng.integers(2, 6), replace=False))
    rate = min(links[name].bytes_per_second for name in over)
    return Route(links=over, latency_seconds=0.02, bytes_per_second=rate)


def _piece(number: int, rng: np.random.Generator) -> Piece:
    held = frozenset(f"s{n}" for n in rng.integers(0, 30, 2))
    return Piece(name=f"d{number}", size_bytes=int(rng.lognormal(21.0, 1.0)), places=held)


def _quantiles(calls: list[Callable[[], object]]) -> tuple[float, float]:
    taken = []
    for call in calls:
        begun = time.process_time_ns()
        call()
        taken.append((time.process_time_ns() - begun) / 1e6)
    return float(np.quantile(taken, 0.5)), float(np.quantile(taken, 0.99))


def _over_split(data: Path, tasks: int) -> tuple[dict[str, dict[str, float]], Rows]:
    """Admitted data of joint placement over that of site-then-path, by load of the network and network."""
    networks: dict[str, tuple[Network, int, np.ndarray | None]] = {"40 nodes": (random_network(40, 72, 1), 12, None)}
    b4 = data / "networks" / "teal" / "B4.json"
    if b4.is_file():
        traffic = np.load(b4.with_name("B4.real.npz"))["tm0"].sum(axis=1)
        networks["B4"] = (read_network(b4), 6, traffic / traffic.sum())
    ratios: dict[str, dict[str, float]] = {}
    rows: Rows = []
    for load in NETWORK_LOADS:
        for name, (network, sites, weights) in networks.items():
            problem = offloading(network, sites, tasks, 5, load, weights)
            ours = _figures(problem, solve(problem, None, COLD), 0.0).admitted
            first, nearest = split(problem).admitted, split(problem, nearest=True).admitted
            ratios.setdefault(str(load), {})[name] = round(ours / first, 3)
            against = (
                f"site first {100 * first:.0f} %, nearest site first {100 * nearest:.0f} % ({ours / nearest:.2f}x)"
            )
            got = f"{100 * ours:.0f} % of the data, {ours / first:.2f}x"
            rows.append((f"{name}, network load {load}: admitted", got, "1.25x" if load == SAID else "", against))
    return ratios, rows


def _clock_for_each_second() -> float:
    """Seconds by the clock that a second of the processor takes here now; at most 6."""
    begun, worked = time.perf_counter(), time.process_time()
    while time.process_time() - worked < 2.0:
        sum(range(10_000))
    return min(6.0, (time.perf_counter() - begun) / (time.process_time() - worked))


def _peer_row(name: str, found: Outcome, bound: float) -> tuple[str, str, str, str]:
    above = f"cost {found.cost:,.0f}, {100 * (found.cost / bound - 1):+.2f} % above the bound"
    return name, above, f"{found.seconds:.2f} s", f"{100 * found.in_time:.1f} % meet their deadlines"


def _peers(problem: Problem, prices: Prices, limit: float, bound: float) -> tuple[Rows, dict[str, dict[str, float]]]:
    """Everybody on the same round."""
    begun = time.process_time()
    relaxed = audit(problem, prices)
    audit_seconds = time.process_time() - begun
    found: dict[str, Outcome] = {}
    for name, start, budget in (
        ("joint, warm", prices, WARM),
        ("joint, warm, more passes", prices, Budget(sweeps=100, placings=10, passes=6)),
        ("joint, cold", None, COLD),
    ):
        begun = time.process_time()
        answer = solve(problem, start, budget)
        found[name] = _figures(problem, answer, time.process_time() - begun)
    found["as they come"] = in_order(problem, by_regret=False)
    found["most regret first"] = in_order(problem, by_regret=True)
    found["site first, then path"] = split(problem)
    found[f"HiGHS MIP, about {limit:.0f} s"] = integer_program(problem, limit * _clock_for_each_second())
    found[f"CP-SAT, about {limit:.0f} s"] = constraint_program(problem, limit * _clock_for_each_second())
    rows: Rows = [("HiGHS LP (the bound)", f"cost {relaxed.value:,.0f}", f"{audit_seconds:.2f} s", "")]
    rows += [_peer_row(name, of, bound) for name, of in found.items()]
    figures = {
        name: {
            "above_bound": round(of.cost / bound - 1, 5),
            "cpu_seconds": round(of.seconds, 3),
            "deadlines_met": round(of.in_time, 4),
        }
        for name, of in found.items()
    }
    return rows, figures


def _peers_timed(problem: Problem, timed: dict[str, list[float]]) -> Rows:
    bound = timed["bound"][0]
    rows: Rows = []
    ours = Outcome(cost=timed["primal"][0], seconds=timed["seconds"][0], in_time=timed["in_time"][0], admitted=1.0)
    rows.append(_peer_row("joint, 12 buckets, warm", ours, bound))
    rows.append(_peer_row("as they come", in_order(problem, by_regret=False), bound))
    rows.append(_peer_row("most regret first", in_order(problem, by_regret=True), bound))
    rows.append(_peer_row("site first, then path", split(problem), bound))
    return rows


if __name__ == "__main__":
    main()
