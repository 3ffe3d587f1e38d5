"""Access: every route has a rule, and every rule keeps out whom it should."""

from __future__ import annotations

import re
from typing import Any

import httpx
from fastapi.routing import APIRoute

from isthmus.api.app import ROUTERS
from isthmus.api.routing import Guard
from isthmus.store import tables
from isthmus.trust.access import Administrators, Agents, Anonymous, Figures, InProject, OfSite, OfTask, Scope, Signed
from tests.api.conftest import House, problem_of

ROUTES = [route for router in ROUTERS for route in router.routes]
KEY = "01m8c494g6gkqz73913ayh9nm6"
HASH = "0" * 64
OPEN = {
    "/v1/health",
    "/v1/version",
    "/v1/agent/enrol",
    "/v1/sign-in",
    "/v1/sign-in/oidc",
    "/v1/sign-in/oidc/callback",
    "/v1/sign-in:redeem",
    "/",
    "/assets/{name}",
}  # enrolment is by a one-time token in its body


def path_of(route: Any, **values: str) -> str:
    """A path of the route, with these parameters."""
    given = {
        "task_id": KEY,
        "site": "s1",
        "project": "secretive",
        "sha256": HASH,
        "user": "bo",
        "name": "x",
        "token_id": KEY,
    }
    given |= values
    return re.sub(r"\{(\w+):part\}", lambda match: given.get(match[1], KEY), route.path)


def test_every_route_of_the_app_is_behind_a_rule(house: House) -> None:
    """Whatever way a route came into the app, it has exactly one guard, and only the named ones are open."""
    seen = 0
    for route in house.app.routes:
        assert isinstance(route, APIRoute), f"{route} is no declared route"
        guards = [d.call for d in route.dependant.dependencies if isinstance(d.call, Guard)]
        assert len(guards) == 1, f"{route.path} has {len(guards)} rules"
        if isinstance(guards[0].rule, Anonymous) and not route.path_format.startswith("/ga4gh/"):
            assert route.path_format in OPEN
        seen += 1
    assert seen == len(ROUTES) > 60


async def test_no_route_answers_without_a_token(house: House) -> None:
    """Without a token, or with a wrong one, nothing but the open routes answers; nothing of the body is looked at."""
    wrong = []
    for route in ROUTES:
        if isinstance(route.rule, Anonymous):
            continue
        for token in (None, "ist_wrong"):
            answer = await house.client(token).request(route.method, path_of(route))
            if answer.status_code != 401 or answer.headers["www-authenticate"] != "Bearer":
                wrong.append((route.handler.__name__, token, answer.status_code))
    assert wrong == []


async def test_strangers_get_nothing_of_a_task_project_or_site(house: House) -> None:
    """A user with every scope but no rights in it is kept out of each route that names a task, a project or a site, and
    of all that is for administrators or agents."""
    house.person("ann", projects={"secretive": "manager"})
    task = (
        await house.client(house.person("ann")).post("/v1/tasks?project=secretive", json={"command": ["a"]})
    ).json()["id"]
    house.execute(
        tables.sites.insert().values(
            name="s1",
            kind="local",
            mode="direct",
            state="active",
            config="{}",
            accounts="{}",
            created_by="ann",
            created_at=1.0,
        )
    )
    house.person("bo", projects={"other": "manager"})
    wrong = []
    for route in ROUTES:  # with a fresh token each, since some routes end the session
        stranger = house.client(house.person("bo", scopes=[s for s in Scope if s is not Scope.AGENT]))
        answer = await stranger.request(route.method, path_of(route, task_id=task), params={"project": "secretive"})
        match route.rule:
            case OfTask() | InProject():
                right = answer.status_code == 404
            case OfSite() | Administrators() | Agents():
                right = answer.status_code == 403
            case _:
                right = answer.status_code not in (401, 500)
        if not right or "secretive" in answer.text.replace("'secretive'", ""):
            wrong.append((route.handler.__name__, answer.status_code, answer.text))
    assert wrong == []


async def test_a_token_without_the_scope_is_refused(house: House) -> None:
    """An administrator with a token that only reads figures gets figures, and what any token gets."""
    house.person("root", is_admin=True, projects={"secretive": "manager"}, sites=["s1"])
    wrong = []
    for route in ROUTES:
        token = house.person("root", scopes=[Scope.METRICS])
        answer = await house.client(token).request(route.method, path_of(route))
        if isinstance(route.rule, Anonymous | Figures) or (isinstance(route.rule, Signed) and route.rule.scope is None):
            right = answer.status_code != 401
        else:
            right = answer.status_code == 403
        if not right:
            wrong.append((route.handler.__name__, answer.status_code))
    assert wrong == []


async def test_an_agents_token_is_for_the_mailbox_only(house: House) -> None:
    """An agent lists no tasks, no projects, is nobody, and makes no tokens."""
    agent = house.client(house.person("agent-of-s1", scopes=[Scope.AGENT], agent_site="s1"))
    for method, path in (("GET", "/v1/tasks"), ("GET", "/v1/projects"), ("GET", "/v1/me"), ("POST", "/v1/tokens")):
        problem_of(await agent.request(method, path), 403)


async def test_other_projects_rows_stay_out_of_every_list(house: House, admin: httpx.AsyncClient) -> None:
    """Tasks, usage and projects of others do not show in lists; naming them is NotFound, as for what does not exist."""
    house.person("ann", projects={"secretive": "member"})
    ann = house.client(house.person("ann"))
    await ann.post("/v1/tasks?project=secretive", json={"command": ["a"]})
    bo = house.client(house.person("bo", projects={"other": "member"}))
    assert (await bo.get("/v1/tasks")).json()["items"] == []
    assert [p["name"] for p in (await bo.get("/v1/projects")).json()["items"]] == ["other"]
    hidden = problem_of(await bo.get("/v1/tasks?project=secretive"), 404)
    absent = problem_of(await bo.get("/v1/tasks?project=absent"), 404)
    assert hidden["detail"].replace("secretive", "absent") == absent["detail"]
    assert len((await admin.get("/v1/tasks")).json()["items"]) == 1


async def test_members_change_their_own_tasks_managers_all(house: House) -> None:
    """A member may not cancel another's task, a manager may."""
    ann = house.client(house.person("ann", projects={"p": "member"}))
    bo = house.client(house.person("bo", projects={"p": "member"}))
    eve = house.client(house.person("eve", projects={"p": "manager"}))
    task = (await ann.post("/v1/tasks?project=p", json={"command": ["a"]})).json()["id"]
    problem_of(await bo.post(f"/v1/tasks/{task}:cancel"), 403)
    assert (await eve.post(f"/v1/tasks/{task}:cancel")).json()["state"] == "cancelled"


async def test_rights_that_are_taken_stop_at_once(house: House, admin: httpx.AsyncClient) -> None:
    """Removing a member, disabling a user, revoking a token is felt by the next call."""
    bo = house.client(house.person("bo", projects={"p": "member"}))
    assert (await bo.get("/v1/tasks?project=p")).status_code == 200
    assert (await admin.delete("/v1/projects/p/members/bo")).status_code == 204
    problem_of(await bo.get("/v1/tasks?project=p"), 404)
    assert (await bo.get("/v1/me")).status_code == 200
    assert (await admin.delete("/v1/users/bo")).status_code == 204
    problem_of(await bo.get("/v1/me"), 401)
