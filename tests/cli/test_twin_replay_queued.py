"""`isthmus twin replay` on a day whose tasks really queued: the engine handed them to a site that starts them as they came."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.main import call
from isthmus.domain.task import Demand, TaskSpec
from isthmus.twin.paired import paired_interval
from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import simulate
from tests.client.service import RunningService
from tests.world.centre import Centre
from tests.world.history import World, run_history
from tests.world.virtual import EPOCH

TASKS = 90
WORLD_TABLES = ("sites", "attempts", "usage_records")
NEAR = 0.01  # of the mean wait, between the site's own first come, first served and the twin's


def in_order(self: Centre) -> None:
    """First come, first served: nobody passes one who waits."""
    for pool in self.pools:
        for native in [n for n in self.natives if n.state == "PENDING" and n.job.pool == pool.name]:
            if self._used(pool.name) + native.job.demand.cpus > pool.cpus:
                break
            self._start(native, pool)


def queued_day() -> dict[str, list[dict[str, Any]]]:
    """The rows of a history under virtual time: 8 processors, tasks of 1 to 8 of them, more than there is room for."""
    draws = random.Random(5)
    rows: dict[str, list[dict[str, Any]]] = {}

    async def play(world: World) -> None:
        world.settings = replace(world.settings, round_interval=10.0, poll_interval=10.0, describe_interval=60.0, move_interval=600.0, transfer_interval=600.0, benchmark_interval=600.0)  # fmt: skip
        await world.start_engine("one")
        for _ in range(TASKS):
            seconds = draws.randint(20, 240)
            world.submit(
                [
                    TaskSpec(
                        command=("true",),
                        env={"SECONDS": str(seconds), "EXIT": "0"},
                        demand=Demand(cpus=draws.choice((1, 1, 2, 4, 8)), memory_bytes=1024**2, walltime_seconds=2 * seconds),
                        max_attempts=20,
                    )
                ]
            )  # fmt: skip
            await asyncio.sleep(draws.expovariate(1 / 30))

    def keep(world: World) -> list[str]:
        world.peek.row_factory = sqlite3.Row
        for table in WORLD_TABLES:
            rows[table] = [dict(row) for row in world.peek.execute(f"SELECT * FROM {table}")]
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Centre, "schedule", in_order)
        _, problems = run_history(11, play, keep, plain_sites=1)
    assert problems == []
    return rows


def moved(rows: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """The same rows, so much later."""
    return [
        {name: value + seconds if name.endswith("_at") and value is not None else value for name, value in row.items()}
        for row in rows
    ]


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose store remembers that day as yesterday, from a quarter past midnight on."""
    running = RunningService(tmp_path_factory.mktemp("queued") / "state")
    try:
        running.start()
        day = datetime.now().astimezone().date() - timedelta(days=1)
        begin = datetime.combine(day, time(0, 15)).astimezone().timestamp()
        with sqlite3.connect(running.state / "isthmus.db", timeout=30) as store:
            for table, rows in queued_day().items():
                for row in moved(rows, begin - EPOCH):
                    marks = ", ".join("?" * len(row))
                    names = ", ".join(f'"{name}"' for name in row)
                    store.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        store.close()
        yield running
    finally:
        running.stop()


def test_the_twin_waits_as_long_as_the_site_did_and_pairs_another_scheduler(
    yesterday: RunningService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The site's own scheduler in the twin gives the recorded mean wait within 1 %, and nine waits of ten within 5 s; EASY
    shortens it, paired task by task; the whole history is read by the page."""
    for name in ("ISTHMUS_STATE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, yesterday.environment[name])
    monkeypatch.chdir(tmp_path)

    def replayed(*words: str) -> dict[str, Any]:
        assert call(["twin", "replay", "--since", "yesterday", "--site", "site0", "--json", *words]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        return dict(row)

    same = replayed("--policy", "fcfs", "--swf-out", "logs")
    assert (same["jobs"], same["processors"], same["left_out"]) == (TASKS, 8, {})
    assert same["wait_before_s"] > 200, "it must have queued"
    assert same["wait_after_s"] == pytest.approx(same["wait_before_s"], rel=NEAR)
    log = read_swf(tmp_path / "logs" / "site0.main.swf")
    apart = abs(simulate(log, 8, "fcfs") - log.wait_seconds)
    assert sorted(apart.tolist())[int(0.9 * TASKS)] <= 5

    other = replayed("--policy", "easy")
    assert other["wait_before_s"] == same["wait_before_s"]
    assert other["high_s"] < 0, "backfilling shortens the waits of that day, surely"
    difference = (simulate(log, 8, "easy") - log.wait_seconds).astype(float)
    assert other["difference_s"] == pytest.approx(difference.mean(), abs=0.001)
    assert (other["low_s"], other["high_s"]) == pytest.approx(paired_interval(difference, 1), abs=0.001)
    against = replayed("--policy", "easy", "--against", "fcfs")
    assert against["difference_s"] == pytest.approx(other["difference_s"], rel=0.05)
