"""What the models publish of their forecasts."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from isthmus.domain.site import Pool, SiteDescription
from isthmus.store import tables
from isthmus.store.documents import dump
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


async def test_operators_bring_in_carbon_by_the_hour(house: House, admin: httpx.AsyncClient, joined: str) -> None:
    """What was brought in is seen by everybody; only operators bring it; a half hour, nothing at all and less than nothing are
    refused."""
    path = f"/v1/sites/{joined}/carbon"
    bo = house.client(house.person("bo"))
    problem_of(await bo.get(path), 404)
    series = {"first_at": "2026-12-01T13:00:00Z", "grams_per_kwh": [100.0, 120.5]}
    problem_of(await bo.put(path, json=series), 403)
    put = await admin.put(path, json=series)
    assert put.status_code == 200, put.text
    seen = (await bo.get(path)).json()
    assert (seen["grams_per_kwh"], seen["forecast"], seen["error"]) == ([100.0, 120.5], [], None)
    assert seen["first_at"].startswith("2026-12-01T13:00:00")
    for wrong in ({"first_at": "2026-12-01T13:30:00Z"}, {"grams_per_kwh": []}, {"grams_per_kwh": [-1.0]}):
        problem_of(await admin.put(path, json=series | wrong), 422)


async def test_tariffs_by_the_hour_are_checked(admin: httpx.AsyncClient, joined: str) -> None:
    """24 or 168 prices are taken, another number or a power by the hour is refused."""
    path = f"/v1/sites/{joined}"
    for name, amount, status in (
        ("cpu_hour", ",".join(["0.1"] * 24), 200),
        ("carbon_grams_per_kwh", ",".join(["80"] * 168), 200),
        ("cpu_hour", "0.1,0.2", 422),
        ("cpu_watts", ",".join(["8"] * 24), 422),
        ("cpu_hour", "cheap", 422),
    ):
        got = await admin.patch(path, json={"prices": {"*": {name: amount}}})
        assert got.status_code == status, (name, got.text)


async def test_the_hours_ahead_are_told_with_their_sources(house: House, admin: httpx.AsyncClient, joined: str) -> None:
    """Everybody sees them; declared where nothing else is known, null where not even that; at most two days, at least an hour; a load is no more
    than the whole."""
    path, bo = f"/v1/sites/{joined}/ahead", house.client(house.person("bo"))
    text = dump(SiteDescription(kind="local", pools=(Pool(name="cpu"),)))
    house.execute(tables.sites.update().values(description=text))
    await admin.patch(f"/v1/sites/{joined}", json={"prices": {"*": {"load": "0.25", "cpu_hour": "0.5"}}})
    told = (await bo.get(path)).json()
    [pool] = told["pools"]
    assert len(pool["load"]["hours"]) == 24
    assert pool["load"]["hours"][0] == {"p10": 0.25, "p50": 0.25, "p90": 0.25, "source": "declared"}
    assert pool["price"]["hours"][23]["p50"] == 0.5
    assert pool["carbon"] is None
    assert len((await bo.get(f"{path}?hours=48")).json()["pools"][0]["price"]["hours"]) == 48
    problem_of(await bo.get(f"{path}?hours=49"), 422)
    problem_of(await bo.get("/v1/sites/nowhere/ahead"), 404)
    wrong = ",".join(["0.5"] * 23 + ["1.5"])
    problem_of(await admin.patch(f"/v1/sites/{joined}", json={"prices": {"*": {"load": wrong}}}), 422)
