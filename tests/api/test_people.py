"""Users, projects, members, tokens, secrets."""

from __future__ import annotations

import httpx
import pytest
import sqlalchemy as sa

from isthmus.engine.serving import add_usage
from isthmus.store import tables
from isthmus.trust.access import Scope
from tests.api.conftest import House, problem_of


async def test_a_person_gets_to_work(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """An administrator makes a user, a project, a membership and a token; the user submits with it."""
    assert (await each_admin.post("/v1/users", json={"name": "bo"})).status_code == 201
    project = await each_admin.post("/v1/projects", json={"name": "physics"})
    assert (project.status_code, project.json()["role"]) == (201, "manager")
    problem_of(await each_admin.post("/v1/projects", json={"name": "physics"}), 409)
    member = await each_admin.post("/v1/projects/physics/members", json={"user": "bo"})
    assert member.json() == {"user": "bo", "role": "member"}
    made = await each_admin.post("/v1/tokens", json={"scopes": ["tasks:write"], "user": "bo", "expires_in_seconds": 60})
    token = made.json()
    assert token["token"].startswith("ist_")
    bo = each_house.client(token["token"])
    assert (await bo.get("/v1/me")).json() == {
        "user": "bo",
        "is_admin": False,
        "scopes": ["tasks:write"],
        "projects": {"physics": "member"},
        "sites": [],
    }
    assert (await bo.post("/v1/tasks?project=physics", json={"command": ["a"]})).status_code == 201
    listed = (await bo.get("/v1/tokens")).json()["items"]
    assert [item["id"] for item in listed] == [token["id"]]
    assert "token" not in listed[0]
    each_house.clock.now += 61
    problem_of(await bo.get("/v1/me"), 401)


async def test_roles_change_and_members_leave(house: House, admin: httpx.AsyncClient) -> None:
    """POST again changes a role, DELETE removes; unknown users and projects are named."""
    house.person("bo")
    await admin.post("/v1/projects/default/members", json={"user": "bo"})
    await admin.post("/v1/projects/default/members", json={"user": "bo", "role": "manager"})
    members = (await admin.get("/v1/projects/default/members")).json()["items"]
    assert members == [{"user": "admin", "role": "manager"}, {"user": "bo", "role": "manager"}]
    assert (await admin.delete("/v1/projects/default/members/bo")).status_code == 204
    problem_of(await admin.delete("/v1/projects/default/members/bo"), 404)
    problem_of(await admin.post("/v1/projects/default/members", json={"user": "nobody"}), 422)
    problem_of(await admin.post("/v1/projects/nowhere/members", json={"user": "bo"}), 404)
    problem_of(await admin.post("/v1/projects/default/members", json={"user": "bo", "role": "king"}), 422)


async def test_a_token_gives_no_more_than_its_maker_has(house: House) -> None:
    """Scopes beyond one's own, tokens for others, and the scope agent are refused; a token does not outlive its maker."""
    bo = house.client(house.person("bo", scopes=[Scope.TASKS_READ], expires_at=house.clock() + 50))
    problem_of(await bo.post("/v1/tokens", json={"scopes": ["tasks:write"]}), 403)
    problem_of(await bo.post("/v1/tokens", json={"scopes": ["tasks:read"], "user": "admin"}), 403)
    problem_of(await bo.post("/v1/tokens", json={"scopes": ["agent"]}), 422)
    problem_of(await bo.post("/v1/tokens", json={"scopes": []}), 422)
    made = await bo.post("/v1/tokens", json={"scopes": ["tasks:read"], "expires_in_seconds": 500})
    child = house.client(made.json()["token"])
    assert (await child.get("/v1/tasks")).status_code == 200
    house.clock.now += 51
    problem_of(await child.get("/v1/tasks"), 401)


async def test_tokens_are_revoked_by_their_user(house: House, admin: httpx.AsyncClient) -> None:
    """Others' tokens are not found, one's own stop at once, an administrator revokes any."""
    bo_token = house.person("bo", projects={"p": "member"})
    ann = house.client(house.person("ann"))
    bo = house.client(bo_token)
    own = (await bo.get("/v1/tokens")).json()["items"][0]["id"]
    problem_of(await ann.delete(f"/v1/tokens/{own}"), 404)
    assert (await bo.delete(f"/v1/tokens/{own}")).status_code == 204
    problem_of(await bo.get("/v1/me"), 401)
    other = (await ann.get("/v1/tokens")).json()["items"][0]["id"]
    assert (await admin.delete(f"/v1/tokens/{other}")).status_code == 204
    problem_of(await ann.get("/v1/me"), 401)


async def test_a_repeated_token_request_is_sealed_in_the_store(house: House, admin: httpx.AsyncClient) -> None:
    """With an Idempotency-Key the same secret is answered twice, and is readable nowhere in the store."""
    key = {"Idempotency-Key": "t1"}
    first = await admin.post("/v1/tokens", json={"scopes": ["tasks:read"]}, headers=key)
    again = await admin.post("/v1/tokens", json={"scopes": ["tasks:read"]}, headers=key)
    assert first.json() == again.json()
    secret = first.json()["token"]
    for table in tables.metadata.sorted_tables:
        for row in house.rows(sa.select(table)):
            assert not any(secret in str(value) for value in row), table.name


async def test_secrets_are_written_never_read(house: House, admin: httpx.AsyncClient) -> None:
    """A secret is kept sealed, only its name is ever answered, and a task may name it."""
    assert (await admin.put("/v1/projects/default/secrets/KEY", json={"value": "hush-hush"})).status_code == 204
    assert (await admin.put("/v1/projects/default/secrets/KEY", json={"value": "hush-hush-2"})).status_code == 204
    listed = await admin.get("/v1/projects/default/secrets")
    assert [item["name"] for item in listed.json()["items"]] == ["KEY"]
    assert "hush" not in listed.text
    problem_of(await admin.get("/v1/projects/default/secrets/KEY"), 405)
    (row,) = house.rows(sa.select(tables.secrets))
    assert b"hush" not in row.sealed
    assert house.service.sealer.unseal(row.sealed, "secret:default/KEY") == b"hush-hush-2"
    assert (await admin.post("/v1/tasks", json={"command": ["a"], "secrets": {"V": "KEY"}})).status_code == 201
    assert (await admin.delete("/v1/projects/default/secrets/KEY")).status_code == 204
    problem_of(await admin.delete("/v1/projects/default/secrets/KEY"), 404)
    for table in (tables.events, tables.audit, tables.tasks):
        assert "hush" not in str(house.rows(sa.select(table)))


async def test_administrators_do_not_lock_themselves_out(admin: httpx.AsyncClient) -> None:
    """One does not disable oneself or stop being an administrator by accident."""
    problem_of(await admin.delete("/v1/users/admin"), 409)
    problem_of(await admin.post("/v1/users", json={"name": "admin", "is_admin": False}), 409)


async def test_a_project_with_tasks_stays(house: House, admin: httpx.AsyncClient) -> None:
    """Records are kept: only a project without tasks is removed."""
    await admin.post("/v1/projects", json={"name": "empty"})
    assert (await admin.delete("/v1/projects/empty")).status_code == 204
    await admin.post("/v1/tasks", json={"command": ["a"]})
    problem_of(await admin.delete("/v1/projects/default"), 409)


async def test_people_are_listed_in_pages(house: House, admin: httpx.AsyncClient) -> None:
    """Walking the cursors meets every user once."""
    for name in ("eve", "bo", "ann"):
        house.person(name)
    first = (await admin.get("/v1/users?limit=2")).json()
    rest = (await admin.get("/v1/users", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [user["name"] for user in first["items"] + rest["items"]] == ["admin", "ann", "bo", "eve"]
    assert rest["next_cursor"] is None


async def test_changes_are_audited(house: House, admin: httpx.AsyncClient) -> None:
    """Who did what to whom is in the audit."""
    await admin.post("/v1/users", json={"name": "bo"})
    await admin.delete("/v1/users/bo")
    rows = house.rows(sa.select(tables.audit).order_by(tables.audit.c.seq))
    assert [(row.user, row.action, row.subject) for row in rows] == [
        ("admin", "user.put", "bo"),
        ("admin", "user.disable", "bo"),
    ]


async def test_a_share_is_set_by_administrators_and_seen_by_members(
    each_house: House, each_admin: httpx.AsyncClient
) -> None:
    """What a project used is shown beside its share; who is no member sees nothing, who is no administrator changes nothing."""
    await each_admin.post("/v1/projects", json={"name": "physics"})
    bo = each_house.client(each_house.person("bo"))
    problem_of(await bo.get("/v1/projects/physics"), 404)
    await each_admin.post("/v1/projects/physics/members", json={"user": "bo"})
    first = (await bo.get("/v1/projects/physics")).json()
    assert (first["share"], first["of_share"], first["waiting"]) == (1.0, None, 0)
    problem_of(await bo.patch("/v1/projects/physics", json={"share": 9}), 403)
    problem_of(await each_admin.patch("/v1/projects/physics", json={"share": 0}), 422)
    problem_of(await each_admin.patch("/v1/projects/nowhere", json={"share": 2}), 404)
    assert (await each_admin.patch("/v1/projects/physics", json={"share": 3})).json()["share"] == 3.0
    now = each_house.clock()
    each_house.service.database.write_now(add_usage, now, 86400.0, {"physics": 900.0, "default": 100.0})
    shown = (await bo.get("/v1/projects/physics")).json()
    assert (shown["part"], shown["active_projects"], shown["used_cpu_seconds"]) == (0.75, 2, 900.0)
    assert shown["of_share"] == pytest.approx(0.9 / 0.75)
    await bo.post("/v1/tasks?project=physics", json={"command": ["a"]})
    assert (await bo.get("/v1/projects/physics")).json()["waiting"] == 1


async def test_a_project_has_a_home_that_is_a_site(each_house: House, each_admin: httpx.AsyncClient) -> None:
    """Set at the start or later, by administrators; a home that is no site is refused; an empty one is none; a share stays."""
    await each_admin.post("/v1/sites", json={"kind": "null", "name": "alpha"})
    made = (await each_admin.post("/v1/projects", json={"name": "physics", "home": "alpha"})).json()
    assert made["home"] == "alpha"
    problem_of(await each_admin.post("/v1/projects", json={"name": "art", "home": "nowhere"}), 422)
    problem_of(await each_admin.patch("/v1/projects/physics", json={"home": "nowhere"}), 422)
    problem_of(await each_admin.patch("/v1/projects/physics", json={"home": "No Site"}), 422)
    problem_of(await each_admin.patch("/v1/projects/physics", json={}), 422)
    await each_admin.patch("/v1/projects/physics", json={"share": 2})
    shown = (await each_admin.get("/v1/projects/physics")).json()
    assert (shown["home"], shown["share"]) == ("alpha", 2.0)
    assert (await each_admin.patch("/v1/projects/physics", json={"home": ""})).json()["home"] == ""
    assert [
        one["home"] for one in (await each_admin.get("/v1/projects")).json()["items"] if one["name"] == "physics"
    ] == [""]
