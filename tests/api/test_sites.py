"""Sites: joined, changed, drained, left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from isthmus.store import tables
from isthmus.trust.access import Scope
from tests.api.conftest import House, problem_of


def local(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """A site on this machine."""
    return {"name": "here", "kind": "local", "config": {"root": str(tmp_path / "root")}, "accounts": {"*": ""}} | more


async def test_a_site_is_joined_and_shown_by_rights(
    each_house: House, each_admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Everybody sees a site; config, accounts and operators only those who operate it."""
    joined = await each_admin.post(
        "/v1/sites", json=local(tmp_path, region="de-south", prices={"*": {"cpu_hour": "0.02"}})
    )
    assert joined.status_code == 201, joined.text
    site = joined.json()
    assert (site["name"], site["state"], site["reachable"], site["operators"]) == ("here", "active", False, ["admin"])
    assert site["prices"] == {"*": {"cpu_hour": "0.02"}}
    bo = each_house.client(each_house.person("bo"))
    shown = (await bo.get("/v1/sites/here")).json()
    assert (shown["region"], shown["config"], shown["accounts"], shown["operators"]) == ("de-south", None, None, None)
    assert [item["name"] for item in (await bo.get("/v1/sites")).json()["items"]] == ["here"]
    problem_of(await each_admin.post("/v1/sites", json=local(tmp_path)), 409)
    problem_of(await bo.post("/v1/sites", json=local(tmp_path, name="mine")), 403)


async def test_wrong_settings_are_refused_by_name(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    """An unknown kind, a bad price and a setting that the adapter does not know are named."""
    for change, field in (
        ({"kind": "abacus"}, "kind"),
        ({"name": "Here!"}, "name"),
        ({"prices": {"*": {"cpu_hour": "free"}}}, "prices.*.cpu_hour"),
        ({"prices": {"*": {"cpu": "1"}}}, "prices.*.cpu"),
        ({"accounts": {"bo": "a/b"}}, "accounts.bo"),
        ({"mode": "pigeon"}, "mode"),
    ):
        problem = problem_of(await admin.post("/v1/sites", json=local(tmp_path, **change)), 422)
        assert problem["errors"][0]["field"] == field
    problem = problem_of(await admin.post("/v1/sites", json=local(tmp_path, config={"rot": "/x"})), 422)
    assert problem["errors"][0]["field"].startswith("config")


async def test_operators_change_what_is_theirs(house: House, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    """An operator sets prices and accounts, not the adapter's settings; a change of accounts rebuilds the adapter."""
    await admin.post("/v1/sites", json=local(tmp_path))
    bo = house.client(house.person("bo"))
    problem_of(await bo.patch("/v1/sites/here", json={"region": "x"}), 403)
    assert (await admin.put("/v1/sites/here/operators/bo")).status_code == 204
    changed = await bo.patch("/v1/sites/here", json={"prices": {"*": {"cpu_hour": "1"}}, "accounts": {"bo": ""}})
    assert (changed.status_code, changed.json()["accounts"]) == (200, {"bo": ""})
    problem_of(await bo.patch("/v1/sites/here", json={"config": {"root": "/"}}), 403)
    problem_of(await bo.patch("/v1/sites/here", json={"trust": "high"}), 403)
    assert house.rows(sa.select(tables.sites.c.version))[0].version == 2
    assert (await admin.delete("/v1/sites/here/operators/bo")).status_code == 204
    problem_of(await bo.patch("/v1/sites/here", json={"region": "x"}), 403)
    problem_of(await admin.put("/v1/sites/here/operators/nobody"), 404)


async def test_a_site_drains_resumes_and_leaves(
    each_house: House, each_admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    """A drain's preview changes nothing; leaving waits for attempts unless forced; one that left may join again."""
    await each_admin.post("/v1/sites", json=local(tmp_path))
    task = (await each_admin.post("/v1/tasks", json={"command": ["a"]})).json()["id"]
    key = "01m8c494g6gkqz73913ayh9nm6"
    at = each_house.clock()
    each_house.execute(
        tables.attempts.insert().values(
            key=key, task_id=task, project="default", user="admin", number=1, fence=1, site="here", pool="p", cpus=2,
            state="running", created_at=at, updated_at=at, submitted_at=at,
        )
    )  # fmt: skip
    each_house.execute(
        tables.tasks.update()
        .where(tables.tasks.c.id == task)
        .values(attempt=key, state="running", site="here", fence=1)
    )
    preview = (await each_admin.post("/v1/sites/here:drain?preview=true")).json()
    assert preview == {"site": "here", "attempts": {"running": 1}, "users": {"admin": 1}, "tasks": 1}
    assert (await each_admin.get("/v1/sites/here")).json()["state"] == "active"
    assert (await each_admin.post("/v1/sites/here:drain")).json()["state"] == "draining"
    load = (await each_admin.get("/v1/sites/here/load")).json()
    assert (load["attempts"], load["cpus"], load["submitted_last_hour"]) == ({"running": 1}, 2, 1)
    rows = (await each_admin.get("/v1/sites/here/tasks?live=true")).json()["items"]
    assert [(row["key"], row["task_id"], row["user"]) for row in rows] == [(key, task, "admin")]
    assert (await each_admin.post("/v1/sites/here:resume")).json()["state"] == "active"
    problem_of(await each_admin.post("/v1/sites/here:leave", json={}), 409)
    assert (await each_admin.post("/v1/sites/here:leave", json={"force": True})).json()["state"] == "left"
    problem_of(await each_admin.post("/v1/sites/here:resume"), 409)
    assert (await each_admin.get("/v1/sites/here/tasks?live=true")).json()["items"] == []
    assert (await each_admin.post("/v1/sites", json=local(tmp_path))).status_code == 201
    kinds = [row.kind for row in each_house.rows(sa.select(tables.events).where(tables.events.c.site == "here"))]
    assert "site.draining" in kinds
    assert "site.left" in kinds


async def test_an_enrolment_is_for_agents_sites(house: House, admin: httpx.AsyncClient, tmp_path: Path) -> None:
    """A one-time token is made for a site in mode agent only, and only its hash is kept."""
    await admin.post("/v1/sites", json=local(tmp_path))
    problem_of(await admin.post("/v1/sites/here/enrolments"), 409)
    await admin.post("/v1/sites", json=local(tmp_path, name="far", mode="agent"))
    made = (await admin.post("/v1/sites/far/enrolments")).json()
    assert made["site"] == "far"
    assert made["token"] not in str(house.rows(sa.select(tables.enrolments)))
    operator = house.client(house.person("bo", scopes=[Scope.TASKS_WRITE], sites=["far"]))
    problem_of(await operator.post("/v1/sites/far/enrolments"), 403)
