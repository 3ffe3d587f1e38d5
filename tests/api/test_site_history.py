"""What a site's history, the counts of tasks and the export of usage say, against rows that are known."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from isthmus.api import counts
from isthmus.api.site_history import Stay, by_bucket
from isthmus.domain.ids import make_id
from isthmus.store import tables
from tests.api.conftest import House, problem_of

HOUR = 3600.0


def stay(
    started: float, ended: float | None, *, cpus: int = 1, submitted: float | None = None, failed: bool = False
) -> Stay:
    """One attempt's stay."""
    return Stay(submitted=submitted, started=started, ended=ended, cpus=cpus, failed=failed)


def test_processors_are_shared_out_over_the_parts_by_time() -> None:
    """A stay counts in each part for as long as it was there; what was there before and is there still counts inside only."""
    parts = by_bucket([stay(50.0, 150.0, cpus=4), stay(-10.0, None, cpus=2)], 0.0, 400.0, 4)
    assert [part["cpus"] for part in parts] == [pytest.approx(4.0), pytest.approx(4.0), 2.0, 2.0]
    assert [part["started"] for part in parts] == [1, 0, 0, 0]
    assert [part["ended"] for part in parts] == [0, 1, 0, 0]


def test_waits_are_quantiles_of_what_started_and_null_where_nothing_did() -> None:
    """The smallest value that half, and nine of ten, do not exceed."""
    stays = [stay(10.0 + n, 20.0 + n, submitted=10.0) for n in range(1, 11)]
    parts = by_bucket(stays, 0.0, 200.0, 2)
    assert (parts[0]["wait_p50_seconds"], parts[0]["wait_p90_seconds"]) == (5.0, 9.0)
    assert parts[1]["wait_p50_seconds"] is None


def record(house: House, n: int, **more: Any) -> None:
    """A usage record and its attempt."""
    key = make_id(1_700_000_000_000 + n, bytes([n]) * 10)
    now = house.clock()
    common = {"task_id": key, "project": "default", "user": "ann", "site": "s", "pool": "p"}
    attempt = {
        "key": key,
        "number": 1,
        "fence": 1,
        "state": "succeeded",
        "submitted_at": now - 2 * HOUR - 60.0,
        "created_at": now,
        "updated_at": now,
    }
    usage = {
        "attempt": key, "account": "=cmd", "source": "wrapper", "native_id": "1", "native_state": "", "started_at": now - 2 * HOUR,
        "ended_at": now - HOUR, "elapsed_seconds": 3600, "nodes": 1, "cpus": 8, "accelerators": 0, "cpu_seconds": 100.5,
        "allocated_cpu_seconds": 28_800, "max_rss_bytes": 1, "read_bytes": 0, "written_bytes": 0, "charge": "0.160000000001",
        "energy_kwh": None, "carbon_grams": None, "created_at": now - HOUR,
    }  # fmt: skip
    house.execute(tables.attempts.insert(), [{**common, **attempt}])
    house.execute(tables.usage_records.insert(), [{**common, **usage, **more}])


@pytest.fixture
async def site(house: House, admin: httpx.AsyncClient) -> str:
    """A site with two records."""
    join = {"name": "s", "kind": "local", "mode": "agent", "config": {"root": "/nowhere"}}
    assert (await admin.post("/v1/sites", json=join)).status_code == 201
    record(house, 1)
    record(house, 2, project="other", carbon_grams="12.5")
    return "s"


async def test_a_site_s_day_is_told_in_parts(admin: httpx.AsyncClient, site: str) -> None:
    """An hour of twice eight processors, two hours ago, each after a wait of a minute."""
    answer = (await admin.get(f"/v1/sites/{site}/history", params={"buckets": 24})).json()
    assert answer["complete"] is True
    busy = [part["cpus"] for part in answer["buckets"]]
    assert busy[22] == pytest.approx(16.0)
    assert sum(busy) == pytest.approx(16.0)
    assert answer["buckets"][22]["wait_p90_seconds"] == pytest.approx(60.0)


async def test_a_page_of_usage_says_what_the_attempts_say(house: House, admin: httpx.AsyncClient, site: str) -> None:
    """When each was handed in, what it asked for, how it ended; null where the attempt is not there any more."""
    record(house, 3)
    gone = tables.attempts.c.key == make_id(1_700_000_000_003, bytes([3]) * 10)
    house.execute(tables.attempts.delete().where(gone))
    for path in (f"/v1/sites/{site}/usage", f"/v1/usage?site={site}"):
        items = {item["attempt"]: item for item in (await admin.get(path)).json()["items"]}
        assert len(items) == 3
        there = items[make_id(1_700_000_000_001, bytes([1]) * 10)]
        assert (there["state"], there["requested_seconds"], there["observed_start_at"]) == ("succeeded", 3600, None)
        assert there["submitted_at"] < there["started_at"]
        lost = items[make_id(1_700_000_000_003, bytes([3]) * 10)]
        assert [lost[name] for name in ("submitted_at", "observed_start_at", "requested_seconds", "state")] == [
            None
        ] * 4


async def test_usage_is_exported_exactly(admin: httpx.AsyncClient, site: str) -> None:
    """Every digit of the money; a name that a spreadsheet would run is made harmless in CSV and kept in Parquet."""
    answer = await admin.get(f"/v1/sites/{site}/usage:export")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [Decimal(row["charge"]) for row in rows] == [Decimal("0.160000000001")] * 2
    assert {row["account"] for row in rows} == {"'=cmd"}
    assert rows[0]["started_at"].endswith("+00:00")
    packed = await admin.get(f"/v1/sites/{site}/usage:export", params={"format": "parquet"})
    table = pq.read_table(io.BytesIO(packed.content)).to_pylist()
    assert [(row["charge"], row["account"], row["carbon_grams"]) for row in table] == [
        ("0.160000000001", "=cmd", None),
        ("0.160000000001", "=cmd", "12.5"),
    ]


async def test_more_records_than_fit_are_refused(
    admin: httpx.AsyncClient, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the remedy: a time."""
    monkeypatch.setattr("isthmus.api.usage_export.MOST", 1)
    body = problem_of(await admin.get(f"/v1/sites/{site}/usage:export"), 422)
    assert "since" in body["remedy"]


async def test_tasks_are_counted_by_state_up_to_a_bound(
    house: House, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that one may see; a state with more than is counted is named."""
    for _ in range(3):
        await admin.post("/v1/tasks", json={"command": ["a"], "hold": True})
    assert (await admin.get("/v1/tasks:counts")).json() == {"states": {"held": 3}, "more": []}
    stranger = house.client(house.person("eve", projects={"elsewhere": "member"}))
    assert (await stranger.get("/v1/tasks:counts")).json() == {"states": {}, "more": []}
    monkeypatch.setattr(counts, "COUNTED", 2)
    assert (await admin.get("/v1/tasks:counts")).json() == {"states": {"held": 2}, "more": ["held"]}
