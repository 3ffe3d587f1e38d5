"""What the models publish of their forecasts."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from isthmus.store import tables
from tests.api.conftest import House, problem_of


@pytest.fixture
async def joined(admin: httpx.AsyncClient, tmp_path: Path) -> str:
    """A site."""
    site = {"name": "here", "kind": "local", "config": {"root": str(tmp_path / "root")}, "accounts": {"*": ""}}
    assert (await admin.post("/v1/sites", json=site)).status_code == 201
    return "here"


async def test_everybody_sees_how_good_the_forecasts_were(house: House, admin: httpx.AsyncClient, joined: str) -> None:
    """One item for each kind, pool and source, in the API and in the metrics; an unknown site is NotFound."""
    figures = {"accuracy": 0.7, "error_seconds": 40.0, "since": 1.0, "updated_at": 2.0, "site": joined, "pool": "cpu"}
    rows = [
        {"kind": "wait", "source": "learned", "outcomes": 40, "coverage_95": 0.95, "coverage_90": 0.9, **figures},
        {"kind": "runtime", "source": "declared", "outcomes": 3, **figures},
    ]
    for row in rows:
        house.execute(tables.models.insert().values(row))
    bo = house.client(house.person("bo"))
    run, wait = (await bo.get(f"/v1/sites/{joined}/forecasts")).json()["items"]
    assert (run["kind"], run["source"], run["coverage_95"], run["outcomes"]) == ("runtime", "declared", None, 3)
    assert (wait["kind"], wait["accuracy"], wait["coverage_95"]) == ("wait", 0.7, 0.95)
    problem_of(await bo.get("/v1/sites/nowhere/forecasts"), 404)
    told = (await admin.get("/metrics")).text
    labels = 'kind="wait",pool="cpu",site="here",source="learned"'
    assert f"isthmus_forecast_accuracy{{{labels}}} 0.7" in told
    assert f'isthmus_forecast_coverage{{bound="95",{labels}}} 0.95' in told
