"""Scenarios run by the service for people: in a process of their own, within bounds, seen by who started them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from isthmus.api.twin_runs import RunState, TwinRuns, check
from isthmus.domain.errors import Invalid
from tests.api.conftest import House, problem_of

SMALL = """
name: two sites
router: holes
sites:
  - {name: north, processors: 8}
  - {name: south, processors: 16}
links:
  - {ends: [north, south], gbit_per_second: 10.0, latency_ms: 12.0}
workload:
  - home: north
    synthetic: {jobs_per_day: 40.0, days: 1.0, most_processors: 4}
"""


@pytest.mark.timeout(300)
async def test_a_scenario_is_run_and_its_report_is_its_owner_s(house: House, admin: httpx.AsyncClient) -> None:
    """Figures by name, the report as a download that runs nothing; nobody else sees the run."""
    started = await admin.post("/v1/twin/runs", json={"scenario": SMALL})
    assert started.status_code == 201, started.text
    address = f"/v1/twin/runs/{started.json()['id']}"
    problem_of(await admin.get(f"{address}/report"), 404)
    problem_of(await admin.post("/v1/twin/runs", json={"scenario": SMALL}), 429)
    async with asyncio.timeout(280):
        while (found := (await admin.get(address)).json())["state"] == "running":
            await asyncio.sleep(0.2)
    assert found["state"] == "done", found
    assert found["figures"]["jobs"] > 10
    assert found["homes"][0]["home"] == "north"
    report = await admin.get(f"{address}/report")
    assert report.headers["content-disposition"].startswith("attachment")
    assert report.headers["content-security-policy"].startswith("sandbox")
    assert "two sites" in report.text
    stranger = house.client(house.person("eve", projects={"elsewhere": "member"}))
    problem_of(await stranger.get(address), 404)
    assert (await stranger.get("/v1/twin/runs")).json()["items"] == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[1", "scenario"),
        ("no-such-name", "scenario"),
        (SMALL.replace("synthetic: {jobs_per_day: 40.0, days: 1.0, most_processors: 4}", "swf: /etc/passwd"), "scenario.workload.0"),
        (SMALL.replace("40.0", "1000000000.0"), "scenario.workload"),
        (SMALL.replace("40.0", "-1"), "scenario.workload.0.jobs_per_day"),
        (SMALL.replace("sites:", "places:"), "scenario.sites"),
        (SMALL + "\nfirst: &a [x, x]\nname: [*a, *a]\n", "scenario"),
        (SMALL + "\nname: [x]\n", "scenario.name"),
        ("[" * 5000, "scenario"),
    ],
)  # fmt: skip
def test_what_would_read_files_or_is_too_large_is_refused(text: str, field: str) -> None:
    """The field is named; no log of the service's machine is read."""
    with pytest.raises(Invalid) as caught:
        check(text)
    assert caught.value.field == field


async def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """Its process is gone and the message says why."""
    runs = TwinRuns(tmp_path / "twin", longest_seconds=0.2)
    run = await runs.start("east-data-west-compute", "ann", 1_800_000_000.0)
    assert run.task is not None
    await run.task
    assert (run.state, run.message) == (RunState.FAILED, "It took longer than 0.2 s.")
    await runs.close()
    assert list((tmp_path / "twin").iterdir()) == []
