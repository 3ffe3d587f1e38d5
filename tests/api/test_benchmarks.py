"""Measuring a site: asked for by its operators, the capabilities seen by everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from isthmus.domain.site import Pool, SiteDescription
from isthmus.store import tables
from isthmus.store.documents import dump
from isthmus.trust.access import Scope
from tests.api.conftest import House, problem_of


@pytest.fixture
async def joined(house: House, admin: httpx.AsyncClient, tmp_path: Path) -> str:
    """A site with two pools, as if it had described itself."""
    site = {"name": "here", "kind": "local", "config": {"root": str(tmp_path / "root")}, "accounts": {"*": ""}}
    assert (await admin.post("/v1/sites", json=site)).status_code == 201
    problem_of(await admin.post("/v1/sites/here/benchmarks", json={}), 409)
    pools = (Pool(name="cpu", nodes=2, cpus_per_node=4), Pool(name="gpu", cpus_per_node=2), Pool(name="off", up=False))
    s = tables.sites
    house.execute(
        s.update().where(s.c.name == "here").values(description=dump(SiteDescription(kind="local", pools=pools)))
    )
    return "here"


async def test_an_operator_measures_all_pools_that_are_up(house: House, admin: httpx.AsyncClient, joined: str) -> None:
    """One task for each, of the operator, in the list of benchmarks, with the program in the store; noted in the audit."""
    made = await admin.post(f"/v1/sites/{joined}/benchmarks", json={})
    assert made.status_code == 201, made.text
    items = made.json()["items"]
    assert sorted((item["pool"], item["state"], item["user"]) for item in items) == [
        ("cpu", "due", "admin"),
        ("gpu", "due", "admin"),
    ]
    task = (await admin.get(f"/v1/tasks/{items[0]['task_id']}")).json()
    assert task["spec"]["constraints"]["sites_allow"] == [joined]
    program = task["spec"]["inputs"][0]["blob"]
    assert (await admin.get(f"/v1/blobs/{program}")).content.startswith(b"#!")
    listed = (await admin.get(f"/v1/sites/{joined}/benchmarks?limit=1")).json()
    assert listed["items"][0]["task_id"] == max(item["task_id"] for item in items)
    rest = (await admin.get(f"/v1/sites/{joined}/benchmarks?cursor={listed['next_cursor']}")).json()
    assert (len(rest["items"]), rest["next_cursor"]) == (1, None)
    actions = [row.action for row in house.rows(sa.select(tables.audit))]
    assert "site.bench" in actions


async def test_a_repeat_under_one_key_measures_once(house: House, admin: httpx.AsyncClient, joined: str) -> None:
    """A lost answer does not cost the site another run."""
    key = {"Idempotency-Key": "k1"}
    body = {"pools": ["cpu"], "nodes": 2, "seconds": 5, "python": "/opt/bin/python3"}
    one = await admin.post(f"/v1/sites/{joined}/benchmarks", json=body, headers=key)
    other = await admin.post(f"/v1/sites/{joined}/benchmarks", json=body, headers=key)
    assert one.json() == other.json()
    assert len(house.rows(sa.select(tables.benchmarks))) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pools": ["nopool"]}, "pools.0"),
        ({"nodes": 0}, "nodes"),
        ({"seconds": 200}, "seconds"),
        ({"python": "a b"}, "python"),
        ({"project": "No!"}, "project"),
        ({"else": 1}, "else"),
    ],
)
async def test_wrong_wishes_are_refused_by_name(
    admin: httpx.AsyncClient, joined: str, change: dict[str, Any], field: str
) -> None:
    """Each wrong field is named."""
    problem = problem_of(await admin.post(f"/v1/sites/{joined}/benchmarks", json=change), 422)
    assert problem["errors"][0]["field"] == field


async def test_only_operators_measure_and_only_in_their_projects(
    house: House, admin: httpx.AsyncClient, joined: str
) -> None:
    """A stranger may not; an operator needs a token for tasks, and a project of theirs; a drained site takes nothing."""
    bo = house.client(house.person("bo", projects={"p": "member"}))
    problem_of(await bo.post(f"/v1/sites/{joined}/benchmarks", json={"project": "p"}), 403)
    problem_of(await bo.get(f"/v1/sites/{joined}/benchmarks"), 403)
    await admin.put(f"/v1/sites/{joined}/operators/bo")
    problem_of(await bo.post(f"/v1/sites/{joined}/benchmarks", json={}), 404)
    assert (await bo.post(f"/v1/sites/{joined}/benchmarks", json={"project": "p"})).status_code == 201
    narrow = house.client(house.person("bo", scopes=[Scope.SITES_OPERATE]))
    problem_of(await narrow.post(f"/v1/sites/{joined}/benchmarks", json={"project": "p"}), 403)
    await admin.post(f"/v1/sites/{joined}:drain")
    problem_of(await admin.post(f"/v1/sites/{joined}/benchmarks", json={}), 409)


async def test_everybody_sees_capabilities(house: House, admin: httpx.AsyncClient, joined: str, tmp_path: Path) -> None:
    """Published to all who are signed in; an unknown site is NotFound; a site that left and joins again is measured anew."""
    c = tables.capabilities
    house.execute(
        c.insert().values(
            site=joined,
            pool="cpu",
            kind="4 x P",
            measured_at=1.0,
            stored_at=2.0,
            general_units=4.0,
            body='{"kind":"4 x P"}',
        )
    )
    bo = house.client(house.person("bo"))
    (item,) = (await bo.get(f"/v1/sites/{joined}/capabilities")).json()["items"]
    assert (item["pool"], item["capability"]["kind"]) == ("cpu", "4 x P")
    problem_of(await bo.get("/v1/sites/nowhere/capabilities"), 404)
    await admin.post(f"/v1/sites/{joined}:leave", json={"force": True})
    site = {"name": joined, "kind": "local", "config": {"root": str(tmp_path / "other")}, "accounts": {"*": ""}}
    assert (await admin.post("/v1/sites", json=site)).status_code == 201
    assert (await bo.get(f"/v1/sites/{joined}/capabilities")).json()["items"] == []
