"""Every call of the REST face about sites, people, tokens and secrets, as steps; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from isthmus.client.operations import every
from isthmus.client.records import Benchmark, Site, UsageRecord, read
from isthmus.client.wire import Steps, new_key, request, send

Document = dict[str, Any]


def sites() -> Steps[list[Site]]:
    """All sites."""
    return (yield from every("/v1/sites", lambda row: read(Site, row)))


def site(name: str) -> Steps[Site]:
    """One site."""
    return read(Site, (yield from send(request("GET", _site(name)))).document())


def join_site(
    kind: str,
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    accounts: Mapping[str, str] | None = None,
    prices: Mapping[str, Any] | None = None,
    region: str = "",
    trust: str = "",
    mode: str = "direct",
) -> Steps[Site]:
    """Join a site; `mode` is `direct`, or `agent` for one whose agent dials in."""
    body: Document = {"name": name, "kind": kind, "mode": mode, "config": dict(config or {})}
    optional = {"region": region, "trust": trust, "accounts": dict(accounts or {}), "prices": dict(prices or {})}
    body |= {key: value for key, value in optional.items() if value}
    call = request("POST", "/v1/sites", json=body, idempotency_key=new_key(), timeout_seconds=120)
    return read(Site, (yield from send(call)).document())


def change_site(name: str, changes: Mapping[str, Any]) -> Steps[Site]:
    """Change what an operator set of a site."""
    call = request("PATCH", _site(name), json=dict(changes), repeatable=True)
    return read(Site, (yield from send(call)).document())


def drain_site(name: str, *, preview: bool = False) -> Steps[Document]:
    """Let nothing new go to a site; with `preview` only say what it would hit."""
    return (yield from _post(f"{_site(name)}:drain", params={"preview": True} if preview else None, repeatable=True))


def resume_site(name: str) -> Steps[Document]:
    """Let tasks go to a drained site again."""
    return (yield from _post(f"{_site(name)}:resume", repeatable=True))


def leave_site(name: str, *, force: bool = False) -> Steps[Document]:
    """Take a site out; `force` gives up what still runs there."""
    return (yield from _post(f"{_site(name)}:leave", {"force": force}, repeatable=True))


def site_usage(name: str) -> Steps[list[UsageRecord]]:
    """What was used at a site, by whom."""
    return (yield from every(f"{_site(name)}/usage", lambda row: read(UsageRecord, row)))


def site_tasks(name: str, *, live: bool = True) -> Steps[list[Document]]:
    """The attempts at a site with the local account of each; `live` are those that have not ended."""
    return (yield from every(f"{_site(name)}/tasks", dict, {"live": live}))


def site_load(name: str) -> Steps[Document]:
    """The load that Isthmus itself puts on a site."""
    document = (yield from send(request("GET", f"{_site(name)}/load"))).document()
    return document if isinstance(document, dict) else {"items": document}


def bench_site(
    name: str,
    *,
    project: str,
    pools: Sequence[str] = (),
    nodes: int = 1,
    seconds: float | None = None,
    python: str = "",
) -> Steps[list[Benchmark]]:
    """Measure `nodes` nodes of each pool (of all, when none is named) by ordinary tasks of the caller in `project`."""
    body: Document = {"pools": list(pools), "nodes": nodes, "project": project}
    body |= {key: value for key, value in (("seconds", seconds), ("python", python)) if value}
    call = request("POST", f"{_site(name)}/benchmarks", json=body, idempotency_key=new_key())
    return [read(Benchmark, row) for row in (yield from send(call)).items()]


def site_benchmarks(name: str) -> Steps[list[Benchmark]]:
    """The measurements of a site's nodes, newest first."""
    return (yield from every(f"{_site(name)}/benchmarks", lambda row: read(Benchmark, row)))


def site_capabilities(name: str) -> Steps[list[Document]]:
    """What the pools of a site do, as measured: one for each kind of node."""
    return (yield from every(f"{_site(name)}/capabilities", dict, paged=False))


def site_forecasts(name: str) -> Steps[list[Document]]:
    """How good the forecasts at a site's pools were: one for each kind, pool and source."""
    return (yield from every(f"{_site(name)}/forecasts", dict, paged=False))


def site_ahead(name: str, *, hours: int = 24) -> Steps[Document]:
    """Load, price and carbon of a site's pools by the hour ahead, at most 48 hours."""
    found: Document = (yield from send(request("GET", f"{_site(name)}/ahead", params={"hours": hours}))).document()
    return found


def bring_carbon(name: str, first_at: str, grams_per_kwh: list[float]) -> Steps[Document]:
    """Bring in the carbon intensity of a site's grid by the hour."""
    body = {"first_at": first_at, "grams_per_kwh": grams_per_kwh}
    call = request("PUT", f"{_site(name)}/carbon", json=body, repeatable=True)
    found: Document = (yield from send(call)).document()
    return found


def site_carbon(name: str) -> Steps[Document]:
    """The carbon intensity of a site's grid by the hour, with its forecast."""
    found: Document = (yield from send(request("GET", f"{_site(name)}/carbon"))).document()
    return found


def enrol_site(name: str) -> Steps[Document]:
    """A one-time token for the agent of a site; it is answered once."""
    return (yield from _post(f"{_site(name)}/enrolments"))


def users() -> Steps[list[Document]]:
    """All users."""
    return (yield from every("/v1/users", dict))


def add_user(name: str, *, is_admin: bool = False) -> Steps[Document]:
    """Make a user."""
    body: Document = {"name": name}
    return (yield from _post("/v1/users", body | ({"is_admin": True} if is_admin else {}), keyed=True))


def disable_user(name: str) -> Steps[None]:
    """Shut a user out and end their tokens."""
    yield from send(request("DELETE", f"/v1/users/{_part(name)}"))


def projects() -> Steps[list[Document]]:
    """The caller's projects."""
    return (yield from every("/v1/projects", dict))


def add_project(name: str, *, home: str = "") -> Steps[Document]:
    """Make a project; `home` is the site of its people."""
    return (yield from _post("/v1/projects", {"name": name} | ({"home": home} if home else {}), keyed=True))


def project(name: str) -> Steps[Document]:
    """A project with its share and its use of it."""
    return dict((yield from send(request("GET", f"/v1/projects/{_part(name)}"))).document())


def share_project(name: str, share: float) -> Steps[Document]:
    """Set a project's share."""
    return (yield from _change_project(name, {"share": share}))


def home_project(name: str, home: str) -> Steps[Document]:
    """Set the site of a project's people; empty: it has none."""
    return (yield from _change_project(name, {"home": home}))


def _change_project(name: str, body: Document) -> Steps[Document]:
    call = request("PATCH", f"/v1/projects/{_part(name)}", json=body, repeatable=True)
    return dict((yield from send(call)).document())


def members(project: str) -> Steps[list[Document]]:
    """The members of a project."""
    return (yield from every(f"/v1/projects/{_part(project)}/members", dict))


def add_member(project: str, user: str, *, role: str = "member") -> Steps[Document]:
    """Make a user a member (`member` or `manager`) of a project."""
    return (yield from _post(f"/v1/projects/{_part(project)}/members", {"user": user, "role": role}, keyed=True))


def remove_member(project: str, user: str) -> Steps[None]:
    """Take a user out of a project."""
    yield from send(request("DELETE", f"/v1/projects/{_part(project)}/members/{_part(user)}"))


def tokens() -> Steps[list[Document]]:
    """The caller's tokens, without their secrets."""
    return (yield from every("/v1/tokens", dict))


def create_token(
    *, description: str = "", scopes: Sequence[str] = (), expires_in_seconds: int | None = None, user: str = ""
) -> Steps[Document]:
    """Make a token; its secret is answered once and never again."""
    optional = {
        "description": description,
        "scopes": list(scopes),
        "expires_in_seconds": expires_in_seconds,
        "user": user,
    }
    return (yield from _post("/v1/tokens", {key: value for key, value in optional.items() if value}))


def revoke_token(token_id: str) -> Steps[None]:
    """End a token at once."""
    yield from send(request("DELETE", f"/v1/tokens/{_part(token_id)}"))


def secrets(project: str) -> Steps[list[str]]:
    """The names of a project's secrets; values are never answered."""
    path = f"/v1/projects/{_part(project)}/secrets"
    return (yield from every(path, lambda row: str(row["name"] if isinstance(row, dict) else row)))


def set_secret(project: str, name: str, value: str) -> Steps[None]:
    """Store a secret of a project."""
    yield from send(request("PUT", _secret(project, name), json={"value": value}))


def remove_secret(project: str, name: str) -> Steps[None]:
    """Remove a secret of a project."""
    yield from send(request("DELETE", _secret(project, name)))


def _post(
    path: str,
    body: Document | None = None,
    *,
    params: Mapping[str, object] | None = None,
    keyed: bool = False,
    repeatable: bool | None = None,
) -> Steps[Document]:
    call = request(
        "POST", path, params=params, json=body, idempotency_key=new_key() if keyed else None, repeatable=repeatable
    )
    answer = yield from send(call)
    document = answer.document() if answer.body else {}
    return document if isinstance(document, dict) else {"items": document}


def _site(name: str) -> str:
    return f"/v1/sites/{_part(name)}"


def _secret(project: str, name: str) -> str:
    return f"/v1/projects/{_part(project)}/secrets/{_part(name)}"


def _part(name: str) -> str:
    return quote(name, safe="")
