"""How much the control plane carries: `python -m benchmarks.engine [--json] [--quick] [--soak N] [--only NAME ...]`.

Every figure goes over HTTP to a server process of its own. `accepted`, `lifecycle`, `dispatch` and `soak` run on
PostgreSQL (fsync on) with the null site; `active` (memory and recovery with 10,000 live tasks) on SQLite and on
PostgreSQL, the worse of both is reported.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, resident_mib, table
from benchmarks.serving import Service
from isthmus.lab import registry
from isthmus.lab.postgres import PostgresServer

KUEUE_PER_S = 43.0  # Kueue's own published benchmark, tasks through admission per second
SKYPILOT_MIB_PER_WORKER = 400.0  # SkyPilot's documentation: memory of one API worker
ENDED = "SELECT count(*) FROM tasks WHERE state = 'succeeded'"
Figures = dict[str, float]


def accepted(service: Service, number: int) -> Figures:
    """Tasks accepted per second through the batch call: one client, 1,000 in a call; the sites are slow meanwhile."""
    service.join_null(seconds=3600)
    service.batch(100)
    rates = []
    for _ in range(number // 1000):
        begun = time.monotonic()
        service.batch(1000)
        rates.append(1000 / (time.monotonic() - begun))
    return {"accepted_per_s": statistics.median(rates)}


def lifecycle(service: Service, number: int) -> Figures:
    """Tasks per second from the first call to the last end, usage recorded, against a site that finishes at once."""
    service.join_null()
    begun = time.monotonic()
    for _ in range(number // 1000):
        service.batch(1000)
    service.until(lambda: service.scalar(ENDED) == number, 60 + number / 20)
    took = time.monotonic() - begun
    service.until(lambda: service.scalar("SELECT count(*) FROM usage_records") == number, 60)
    return {"lifecycle_per_s": number / took}


def dispatch(service: Service, seconds: float) -> Figures:
    """From accept to handed to the site, at 30 tasks a second, each by a call of its own."""
    service.join_null()
    service.batch(10)
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for index in range(int(30 * seconds)):
            time.sleep(max(0.0, begun + index / 30 - time.monotonic()))
            pool.submit(service.batch, 1)
    number = int(30 * seconds) + 10
    service.until(lambda: service.scalar(ENDED) == number, 60)
    query = (
        "SELECT a.submitted_at - t.created_at FROM attempts a JOIN tasks t ON t.id = a.task_id "
        "ORDER BY 1 LIMIT 1 OFFSET :skip"
    )
    return {
        "accept_to_submit_p50_s": service.scalar(query, skip=int(number * 0.50)),
        "accept_to_submit_p95_s": service.scalar(query, skip=int(number * 0.95)),
    }


def active(service: Service, number: int) -> Figures:
    """Memory with so many live tasks, and the time after kill -9 until a new task is at the site."""
    service.join_null(seconds=36000)
    for _ in range(number // 1000):
        service.batch(1000)
    service.until(lambda: service.scalar("SELECT count(*) FROM tasks WHERE state = 'running'") == number, 300)
    time.sleep(5)
    assert service.process is not None
    memory = resident_mib(service.process.pid)
    recoveries = []
    for round_number in range(3):
        service.kill()
        begun = time.monotonic()
        service.start()
        service.batch(1)
        query = "SELECT count(*) FROM attempts WHERE submitted_at IS NOT NULL"
        service.until(lambda: service.scalar(query) == number + round_number + 1, 120, pause=0.02)  # noqa: B023
        recoveries.append(time.monotonic() - begun)
    return {"rss_mb_10k_active": memory, "recovery_s_10k": statistics.median(recoveries)}


def soak(service: Service, number: int) -> Figures:
    """A day of a national platform in one run: rate of the last 10,000 against the first, memory at both ends."""
    service.join_null()
    assert service.process is not None
    sent = 0
    memory: list[float] = []
    begun = time.monotonic()
    told = 0
    while True:
        ended = service.scalar(ENDED)
        while sent < number and sent - ended < 4000:
            service.batch(1000)
            sent += 1000
        if ended >= told + 10_000:
            told = ended
            memory.append(resident_mib(service.process.pid))
            print(f"  {ended:>7} ended after {time.monotonic() - begun:6.0f} s, {memory[-1]:.0f} MiB", flush=True)
        if ended >= number:
            break
        time.sleep(0.1)
    took = time.monotonic() - begun
    window = min(10_000, number // 2)
    nth = "SELECT ended_at FROM tasks WHERE state = 'succeeded' ORDER BY ended_at LIMIT 1 OFFSET :skip"
    first = service.scalar(nth, skip=window - 1) - service.scalar("SELECT min(created_at) FROM tasks")
    last = service.scalar(nth, skip=number - 1) - service.scalar(nth, skip=number - window)
    service.until(lambda: service.scalar("SELECT count(*) FROM usage_records") == number, 300)
    return {
        "soak_tasks": number,
        "soak_per_s": number / took,
        "soak_tail_ratio": first / last,
        "soak_rss_first_mb": memory[0] if memory else 0.0,
        "soak_rss_last_mb": resident_mib(service.process.pid),
    }


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory that goes with the scenario; kept, with the server's log, when it fails."""
    directory = registry.new_directory(f"isthmus-lab-bench-{name}-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def on_postgres(run: Callable[[Service], Figures], name: str) -> Figures:
    """Run a scenario on a fresh PostgreSQL that waits for its disk."""
    with scratch(name) as directory, PostgresServer(directory / "postgres", durable=True) as server:
        (directory / "service").mkdir()
        with Service(directory / "service", server.create_database("bench")) as service:
            return run(service)


def on_sqlite(run: Callable[[Service], Figures], name: str) -> Figures:
    """Run a scenario on a fresh SQLite file."""
    with scratch(name) as directory, Service(directory) as service:
        return run(service)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--json", action="store_true", help="last line is one JSON object")
    parser.add_argument("--quick", action="store_true", help="a sample within five minutes")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="also push N tasks through in one run")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=["accepted", "lifecycle", "dispatch", "active", "soak"]
    )
    options = parser.parse_args()
    machine = describe()
    print(machine)
    wanted = set(options.only) or {"accepted", "lifecycle", "dispatch", "active", "soak"}
    size = 5_000 if options.quick else 20_000
    figures: Figures = {}
    if "accepted" in wanted:
        figures |= on_postgres(lambda service: accepted(service, size), "accepted")
    if "lifecycle" in wanted:
        figures |= on_postgres(lambda service: lifecycle(service, size), "lifecycle")
        figures["lifecycle_per_s_sqlite"] = on_sqlite(lambda s: lifecycle(s, size), "lifecycle")["lifecycle_per_s"]
    if "dispatch" in wanted:
        figures |= on_postgres(lambda service: dispatch(service, 10 if options.quick else 60), "dispatch")
    if "active" in wanted:
        both = [run(lambda service: active(service, 10_000), "active") for run in (on_sqlite, on_postgres)]
        figures |= {name: max(one[name] for one in both) for name in both[0]}
    if "soak" in wanted:
        number = options.soak or (20_000 if options.quick else 30_000)
        figures |= on_postgres(lambda service: soak(service, number), "soak")
    print(table(rows(figures)))
    if options.json:
        answer: dict[str, Any] = {name: round(value, 3) for name, value in figures.items()}
        print(json.dumps({**answer, "machine": machine}))


def rows(figures: Figures) -> list[tuple[str, str, str, str]]:
    """The table: each figure beside what was asked and a peer or limit."""
    asked = {
        "accepted_per_s": (">= 1000", ""),
        "lifecycle_per_s": (">= 100", "{:.1f}x Kueue's published 43/s"),
        "accept_to_submit_p95_s": ("<= 3", ""),
        "rss_mb_10k_active": ("< 1000", "{:.2f}x one SkyPilot worker (400 MB)"),
        "recovery_s_10k": ("<= 5", ""),
        "soak_tail_ratio": (">= 0.9", ""),
    }
    peers = {"lifecycle_per_s": KUEUE_PER_S, "rss_mb_10k_active": SKYPILOT_MIB_PER_WORKER}
    return [
        (
            name,
            f"{value:.3g}" if value < 100 else f"{value:.0f}",
            asked.get(name, ("", ""))[0],
            asked.get(name, ("", ""))[1].format(value / peers[name]) if name in peers else "",
        )
        for name, value in figures.items()
    ]


if __name__ == "__main__":
    main()
