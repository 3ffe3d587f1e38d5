"""Traffic engineering and the calendar: `python -m benchmarks.te [--data DIR] [--repetita DIR] [--full-lp SECONDS] [--promised SHARE] [--most N] [--json] [--quick]`.

Any folder of REPETITA `.graph` and `.demands` files will do. Against `lp_optimum.csv` where the folder has one; where the
table's figure and ours differ, our routing is checked link by link and our bound comes from shortest paths alone, so that the
row says who is nearer to the minimum. Seconds are processor seconds of one core, compilation left out.
The Kdl network carries a gravity matrix (mass = capacity at the node x log-normal(0, 1), seed 1) scaled so that shortest-path
routing would fill the mean link to 100 %; the figure is total flow served, against the upper bound that our prices prove.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, table
from benchmarks.te_calendar import MOST, PROMISED, Network, Outcome, one_to_many, stream_outcome
from benchmarks.te_requests import Stream
from isthmus.network.ecmp import link_loads, split_ratios
from isthmus.network.gravity import gravity_matrix
from isthmus.network.optimum import Optimiser, minimum_utilisation
from isthmus.network.readers import Instance, read_instances, read_optimum, read_teal_matrices, read_teal_topology
from isthmus.network.throughput import exact_throughput, maximum_throughput
from isthmus.network.topology import Floats, Topology
from isthmus.network.unsplit import steer_unsplit
from isthmus.network.waypoints import steer

Rows = list[tuple[str, str, str, str]]
Figures = dict[str, Any]


def main() -> None:
    """Measure, print the table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    named = os.environ.get("ISTHMUS_SHARED_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(named) if named else beside)
    parser.add_argument("--repetita", type=Path, help="a folder of .graph and .demands files")
    parser.add_argument(
        "--full-lp", type=float, default=200.0, help="processor seconds for the full LP of Kdl; 0 = none"
    )
    parser.add_argument(
        "--promised", type=float, default=PROMISED, help="share of each link that the calendar promises"
    )
    parser.add_argument("--most", type=int, default=MOST, help="promises that a failure may break; 1000 = any number")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="12 instances, no full LP, one stream of each kind")
    arguments = parser.parse_args()
    folder = arguments.repetita or arguments.data / "networks" / "repetita"
    instances = read_instances(folder)
    if not instances:
        parser.error(f"there are no REPETITA instances in {folder}: give --data or --repetita")
    if arguments.quick:
        instances = instances[:: max(1, len(instances) // 12)]
    machine = describe()
    rows, figures = _repetita(instances, folder / "lp_optimum.csv")
    teal = arguments.data / "networks" / "teal"
    if teal.is_dir():
        for more, found in (
            _kdl(read_teal_topology(teal / "Kdl.json"), 0.0 if arguments.quick else arguments.full_lp),
            _b4(read_teal_topology(teal / "B4.json"), read_teal_matrices(teal / "B4.real.npz")),
            _calendar(_networks(teal, instances), 1 if arguments.quick else 3, arguments.promised, arguments.most),
        ):
            rows += more
            figures |= found
    print(json.dumps(machine))
    print(table(rows))
    if arguments.json:
        print(json.dumps(figures | {"machine": machine}))


def _repetita(instances: list[Instance], published: Path) -> tuple[Rows, Figures]:
    reference = read_optimum(published) if published.is_file() else {}
    first = instances[0]
    steer_unsplit(first.topology, first.demands, steer(first.topology, first.demands))  # compiles
    link_loads(first.topology, first.demands)
    names = ("error", "gap", "overfull", "ecmp", "split", "unsplit", "lp_seconds", "te_seconds", "unsplit_seconds")
    columns: dict[str, list[float]] = {name: [] for name in names}
    differ: dict[str, list[float]] = {}
    for instance in instances:
        topology, demands = instance.topology, instance.demands
        capacity = topology.capacity_bits_per_second
        begun = time.process_time()
        optimum = minimum_utilisation(topology, demands)
        lp = time.process_time()
        ratios = split_ratios(topology)
        split = steer(topology, demands, good_enough=1.002 * optimum.utilisation, ratios=ratios)
        te = time.process_time()
        whole = steer_unsplit(topology, demands, split, good_enough=1.002 * optimum.utilisation, ratios=ratios)
        ended = time.process_time()
        table_value = reference.get(instance.name, optimum.bound)
        error = abs(optimum.utilisation / table_value - 1)
        if error > 1e-3:
            differ[instance.name] = [table_value, optimum.utilisation, optimum.bound]
        row = {
            "error": error,
            "gap": optimum.utilisation / optimum.bound - 1,
            "overfull": float(_carried(instance, optimum.flows) / optimum.utilisation - 1),
            "ecmp": float((link_loads(topology, demands) / capacity).max()) / optimum.utilisation,
            "split": split.utilisation / optimum.utilisation,
            "unsplit": whole.utilisation / optimum.utilisation,
            "lp_seconds": lp - begun,
            "te_seconds": te - lp,
            "unsplit_seconds": ended - te,
        }
        for name, value in row.items():
            columns[name].append(value)
    of = {name: np.array(values) for name, values in columns.items()}
    agree = [error for error in of["error"] if error <= 1e-3]
    total = {name: float(of[name].sum()) for name in ("lp_seconds", "te_seconds", "unsplit_seconds")}
    figures: Figures = {
        "instances": len(instances),
        "lp_worst_error": float(of["error"].max()),
        "lp_agreeing": len(agree),
        "lp_worst_error_agreeing": max(agree, default=0.0),
        "lp_differing_table_ours_bound": differ,
        "lp_worst_gap_to_own_bound": float(max(of["gap"].max(), of["overfull"].max())),
        "ecmp_median": float(np.median(of["ecmp"])),
        "within_1pct_share": float((of["split"] <= 1.01).mean()),
        "unsplit_median": float(np.median(of["unsplit"])),
        "seconds": total["te_seconds"],
        **total,
    }
    higher = sum(table_value > ours * 1.001 for table_value, ours, _ in differ.values())
    rows = [
        ("instances", f"{len(instances)}", "", ""),
        ("LP equal to the table to 0.1 %", f"{len(agree)}", f"{len(instances)}", "lp_optimum.csv"),
        ("LP lower than the table, routing checked", f"{higher}", "0", "lp_optimum.csv"),
        ("LP from its own bound, worst", f"{figures['lp_worst_gap_to_own_bound']:.1e}", "<= 1e-3", "LP duality"),
        ("LP, all instances", f"{total['lp_seconds']:.1f} s", "<= 30 s", ""),
        ("ECMP / LP, median", f"{figures['ecmp_median']:.3f}", "1.33", "published 1.33"),
        ("one waypoint, split: within 1 %", f"{figures['within_1pct_share']:.1%}", ">= 95 %", "LP optimum"),
        ("the same, all instances", f"{total['te_seconds']:.1f} s", "<= 60 s", ""),
        ("one waypoint, unsplit: median", f"{figures['unsplit_median']:.4f}", "<= 1.05", "LP optimum"),
        ("the same, all instances", f"{total['unsplit_seconds']:.1f} s", "", ""),
    ]
    return rows, figures


def _carried(instance: Instance, flows: Floats) -> float:
    """Maximum utilisation of `flows` [N, M], after a check that they bring each demand where it goes."""
    topology, demands = instance.topology, instance.demands
    for node in range(topology.node_count):
        out = np.bincount(topology.source, flows[node], minlength=topology.node_count)
        into = np.bincount(topology.target, flows[node], minlength=topology.node_count)
        wanted = np.delete(demands[:, node], node)
        assert np.allclose(np.delete(out - into, node), wanted, rtol=1e-6, atol=1e-6 * demands.max())
    return float((flows.sum(axis=0) / topology.capacity_bits_per_second).max())


def _kdl(topology: Topology, limit_seconds: float) -> tuple[Rows, Figures]:
    demands = gravity_matrix(topology, seed=1, total_bits_per_second=1.0)
    mean = link_loads(topology, demands).sum() / topology.capacity_bits_per_second.sum()
    demands /= mean
    maximum_throughput(topology, demands, sweeps=2)  # compiles
    begun = time.process_time()
    found = maximum_throughput(topology, demands)
    seconds = time.process_time() - begun
    figures: Figures = {
        "kdl_share": found.share,
        "kdl_seconds": seconds,
        "kdl_satisfied": float(found.served.sum() / demands.sum()),
        "kdl_speedup": None,
    }
    rows: Rows = [
        ("Kdl: total flow, of what is at most possible", f"{found.share:.2%}", ">= 98 %", "proven upper bound"),
        ("the same, time", f"{seconds:.1f} s", "<= 30 s", ""),
    ]
    if limit_seconds:
        before = _children_seconds()
        child = multiprocessing.get_context("spawn").Process(target=_full_lp, args=(topology, demands, limit_seconds))
        child.start()
        child.join()
        full = _children_seconds() - before
        more = "" if child.exitcode == 0 else "> "  # stopped by its limit, so at least
        figures |= {"kdl_speedup": full / seconds, "kdl_full_lp_seconds": full, "kdl_full_lp_finished": not more}
        rows.append(
            ("Kdl: full LP (HiGHS), times as long", f"{more}{full / seconds:.1f}", ">= 8", f"{more}{full:.0f} s")
        )
    return rows, figures


def _full_lp(topology: Topology, demands: Floats, limit_seconds: float) -> None:
    """In a process of its own, which the kernel ends when it has had `limit_seconds` of processor time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_seconds), int(limit_seconds)))
    exact_throughput(topology, demands)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _b4(topology: Topology, matrices: list[Floats]) -> tuple[Rows, Figures]:
    optimiser = Optimiser(topology)
    optimiser.solve(matrices[0])
    spent = []
    for matrix in matrices:
        begun = time.process_time()
        optimiser.solve(matrix)
        spent.append(1000 * (time.process_time() - begun))
    rows = [("B4: warm re-optimisation, worst of 36 matrices", f"{max(spent):.1f} ms", "<= 50 ms", "")]
    return rows, {"b4_ms": max(spent), "b4_median_ms": float(np.median(spent))}


def _networks(teal: Path, instances: list[Instance]) -> list[Topology]:
    meshed = [
        one.topology for one in instances if one.name in ("Geant2010", "Nsfnet", "Abilene", "Arpanet19723", "Cernet")
    ]
    return [read_teal_topology(teal / "B4.json"), *meshed[:2]]


def _calendar(networks: list[Topology], seeds: int, promised: float, most: int) -> tuple[Rows, Figures]:
    total, many, each, streams = Outcome(), np.zeros(4), {}, []
    for topology in networks:
        network, one = Network(topology), Outcome()
        for seed in range(1, seeds + 1):
            stream = stream_outcome(network, Stream(seed=seed, count=300, load=1.5), promised=promised, most=most)
            streams.append([stream.admitted / stream.fixed, stream.missed_one_failure, stream.before_failure])
            one = one.plus(stream)
            many += one_to_many(network, Stream(seed=seed, count=100, load=0.5, targets=(3, 7)))
        total = total.plus(one)
        cut = one.missed_one_failure / one.before_failure
        each[f"{topology.node_count} nodes, {topology.link_count} links"] = [one.admitted / one.fixed, cut]
    figures: Figures = {
        "admitted_over_fixed": total.admitted / total.fixed,
        "admitted_bytes_over_fixed": total.admitted_bytes / total.fixed_bytes,
        "missed_share": total.missed / total.admitted,
        "missed_share_one_failure": total.missed_one_failure / total.before_failure,
        "unavoidable_share_one_failure": total.unavoidable / total.before_failure,
        "moved_over_lost_bytes": total.moved_bytes / total.lost_bytes if total.lost_bytes else 0.0,
        "p2mp_bytes_share": float(many[2] / many[3]),
        "transfers": total.asked,
        "admitted_over_fixed_and_missed_share_one_failure_by_network": each,
        "admitted_over_fixed_missed_and_promised_before_failure_by_stream": streams,
    }
    rows = [
        (
            "calendar: admitted, of fixed-rate reservations",
            f"{figures['admitted_over_fixed']:.2f}",
            ">= 1.15",
            "best start, 6 rates",
        ),
        ("the same in bytes", f"{figures['admitted_bytes_over_fixed']:.2f}", "", ""),
        ("deadlines missed, nothing fails", f"{total.missed} of {total.admitted}", "0", ""),
        ("the same, one cable fails", f"{total.missed_one_failure} of {total.before_failure}", "<= 1 %", ""),
        ("the same, the fewest that any plan misses", f"{total.unavoidable}", "", "integer programme"),
        ("bytes moved that need not have, of those that must", f"{figures['moved_over_lost_bytes']:.2f}", "", ""),
        ("one to 3-7: bytes of unicast on shortest paths", f"{figures['p2mp_bytes_share']:.1%}", "<= 60 %", ""),
    ]
    return rows, figures


if __name__ == "__main__":
    main()
