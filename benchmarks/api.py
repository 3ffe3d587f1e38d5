"""The service levels of the REST face: `python -m benchmarks.api [--json] [--quick]` (docs/slo.md).

Reads and writes go at 50 requests a second, open loop: a late answer does not slow the next request down, and its time
counts from when it was due. The list is paged in a store of a million tasks (written straight into the tables).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import sqlalchemy as sa

from benchmarks.engine import on_postgres, scratch
from benchmarks.machine import describe, table
from benchmarks.serving import TASK, Service
from isthmus.domain.ids import make_id

Figures = dict[str, float]
ASKED = {
    "read_p99_ms": 150,
    "write_p99_ms": 500,
    "page_of_million_p99_ms": 200,
    "event_to_subscriber_p95_s": 1,
    "log_lag_p95_s": 2,
    "cold_start_s": 3,
    "up_to_first_result_s": 120,
}


def percentile(values: Sequence[float], part: float) -> float:
    """The value that this part of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def requests(service: Service, seconds: float) -> Figures:
    """40 reads and 10 writes a second, from due to answered, while what is written goes through its life."""
    service.join_null()
    service.batch(1000)
    service.until(lambda: service.scalar("SELECT count(*) FROM usage_records") == 1000, 120)
    ids = [row["id"] for row in service.http.get("/v1/tasks", params={"limit": 500}).json()["items"]]
    reads: list[float] = []
    writes: list[float] = []
    local = threading.local()

    def client() -> httpx.Client:
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=service.http.base_url, headers=service.http.headers, timeout=60)
        found: httpx.Client = local.client
        return found

    def read(due: float, index: int) -> None:
        address = f"/v1/tasks/{random.choice(ids)}" if index % 2 else "/v1/tasks"
        client().get(address, params={"limit": 50}).raise_for_status()
        reads.append(time.monotonic() - due)

    def write(due: float) -> None:
        client().post("/v1/tasks", params={"project": "default"}, json=TASK).raise_for_status()
        writes.append(time.monotonic() - due)

    begun = time.monotonic()
    with ThreadPoolExecutor(24) as pool:
        for index in range(int(50 * seconds)):
            due = begun + index / 50
            time.sleep(max(0.0, due - time.monotonic()))
            if index % 5 == 0:
                pool.submit(write, due)
            else:
                pool.submit(read, due, index)
    return {"read_p99_ms": 1000 * percentile(reads, 0.99), "write_p99_ms": 1000 * percentile(writes, 0.99)}


def million(service: Service, number: int) -> Figures:
    """Pages of 100 at random places of a list of that many tasks."""
    engine = sa.create_engine(service.database_url)
    spec = json.dumps(TASK)
    start = time.time() - 1e6
    rows = sa.text(
        'INSERT INTO tasks (id, project, "user", name, face, spec, state, priority, rank, array_id, blocked_by, attempts,'
        " max_attempts, fence, attempt, site, pool, avoid_sites, reason, message, due_at, created_at, updated_at, ended_at)"
        " VALUES (:id, 'default', 'admin', 't', 'v1', :spec, 'succeeded', 0, :at, '', 0, 0, 1, 0, '', '', '', '[]',"
        " 'exit_zero', '', 0, :at, :at, :at)"
    )
    with engine.begin() as connection:
        for begin in range(0, number, 10_000):
            connection.execute(
                rows,
                [
                    {
                        "id": make_id(int((start + index) * 1000), index.to_bytes(10, "big")),
                        "spec": spec,
                        "at": start + index,
                    }
                    for index in range(begin, min(number, begin + 10_000))
                ],
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE tasks"))
    engine.dispose()
    times: list[float] = []
    for _ in range(200):
        place = random.randrange(number)
        cursor = make_id(int((start + place) * 1000), place.to_bytes(10, "big"))
        begun = time.monotonic()
        answer = service.http.get("/v1/tasks", params={"limit": 100, "cursor": cursor, "state": "succeeded"})
        answer.raise_for_status()
        times.append(time.monotonic() - begun)
        if place > 200:
            assert len(answer.json()["items"]) == 100
    return {"page_of_million_p99_ms": 1000 * percentile(times, 0.99), "tasks_in_list": number}


def feed(service: Service, number: int) -> Figures:
    """From the time in an event to a subscriber that has it, while tasks go through."""
    service.join_null()
    lags: list[float] = []
    ready = threading.Event()

    def listen() -> None:
        with httpx.stream(
            "GET", f"{str(service.http.base_url).rstrip(chr(47))}/v1/events", headers=service.http.headers, timeout=60
        ) as stream:
            ready.set()
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    told = event["at"]
                    if event["kind"] == "task.waiting":
                        lags.append(time.time() - _seconds(told))
                    if len(lags) >= number:
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait(30)
    for _ in range(number):
        service.batch(1)
        time.sleep(0.05)
    listener.join(60)
    return {"event_to_subscriber_p95_s": percentile(lags, 0.95)}


def _seconds(when: Any) -> float:
    from datetime import datetime

    return when if isinstance(when, int | float) else datetime.fromisoformat(when).timestamp()


def logs(service: Service, lines: int) -> Figures:
    """From a line printed by a running task to a reader that polls as `isthmus logs -f` does."""
    config = {"root": str(service.directory / "local")}
    body = {"name": "local", "kind": "local", "mode": "direct", "config": config, "accounts": {"*": ""}}
    service.http.post("/v1/sites", json=body).raise_for_status()
    script = f"i=0; while [ $i -lt {lines} ]; do date +%s.%N; sleep 0.3; i=$((i+1)); done"
    spec = {"command": ["sh", "-c", script], "demand": {"memory_bytes": 67108864}}
    task = service.http.post("/v1/tasks", params={"project": "default"}, json=spec).raise_for_status().json()
    offset, lags, pending = 0, [], b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = service.http.get(f"/v1/tasks/{task['id']}/logs", params={"stream": "stdout", "offset": offset})
        answer.raise_for_status()
        offset = int(answer.headers["X-Next-Offset"])
        *whole, pending = (pending + answer.content).split(b"\n")
        lags += [time.time() - float(line) for line in whole if line]
        if answer.headers["X-Log-Complete"] == "true" and len(lags) >= lines:
            break
        time.sleep(0.5)
    return {"log_lag_p95_s": percentile(lags, 0.95)}


def cold_start() -> Figures:
    """A first start on an empty directory until it answers; and to the first result of a task on this machine."""
    starts, firsts = [], []
    for _ in range(3):
        with scratch("cold") as directory, Service(directory) as service:
            starts.append(service.started_in)
            config = {"root": str(directory / "local")}
            body = {"name": "local", "kind": "local", "mode": "direct", "config": config, "accounts": {"*": ""}}
            begun = time.monotonic()
            service.http.post("/v1/sites", json=body).raise_for_status()
            service.batch(1, demand={"memory_bytes": 67108864})
            service.until(lambda: service.scalar("SELECT count(*) FROM tasks WHERE state = 'succeeded'") == 1, 60)
            firsts.append(starts[-1] + time.monotonic() - begun)
    return {"cold_start_s": statistics.median(starts), "up_to_first_result_s": statistics.median(firsts)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--json", action="store_true", help="last line is one JSON object")
    parser.add_argument("--quick", action="store_true", help="a sample within three minutes")
    options = parser.parse_args()
    machine = describe()
    print(machine)
    quick = options.quick
    figures = cold_start()
    figures |= on_postgres(lambda service: requests(service, 10 if quick else 60), "requests")
    figures |= on_postgres(lambda service: million(service, 100_000 if quick else 1_000_000), "million")
    figures |= on_postgres(lambda service: feed(service, 50 if quick else 300), "feed")
    figures |= on_postgres(lambda service: logs(service, 20 if quick else 60), "logs")
    print(
        table(
            [
                (
                    name,
                    f"{value:.3g}",
                    f"<= {ASKED[name]}" if name in ASKED else "",
                    f"{value / ASKED[name]:.2f}x the limit" if name in ASKED else "",
                )
                for name, value in figures.items()
            ]
        )
    )
    if options.json:
        print(json.dumps({**{name: round(value, 4) for name, value in figures.items()}, "machine": machine}))


if __name__ == "__main__":
    main()
