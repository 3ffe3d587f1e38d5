"""Sites: joined by administrators, watched and drained by their operators, listed for everybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import (
    ID,
    NAME,
    IdempotencyKey,
    Limit,
    SitePath,
    UserPath,
    answer,
    fingerprint,
    made,
    nothing,
    once,
    read_body,
    when,
)
from isthmus.api.joining import Change, Join, Leave, Mode, insert_site
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.api.task_rows import ATTEMPT_FIELDS, show
from isthmus.domain.errors import Conflict, Forbidden, Invalid, NotFound
from isthmus.domain.site import Pool, SiteDescription
from isthmus.engine import leaving
from isthmus.engine.datasets import labels_of
from isthmus.sites import registry
from isthmus.store import tables
from isthmus.store.documents import adapter, load
from isthmus.trust.access import Administrators, Caller, OfSite, Signed
from isthmus.trust.tokens import hash_of, new_secret

ENROLMENT_SECONDS = 3600.0
ENROLMENT_PREFIX = "ise_"
_LIVE = sa.text("state NOT IN ('succeeded', 'failed', 'cancelled', 'lost')")  # as the partial index says it
router = Router("sites")
# --- reading ----------------------------------------------------------------------------------------------------------


def _shown(
    row: sa.Row[Any], caller: Caller, operators: Sequence[str], data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    description = load(SiteDescription, row.description) if row.description else None
    mine = caller.operates(row.name)
    pools = adapter(tuple[Pool, ...]).dump_json(description.pools if description else ())
    return {
        "name": row.name,
        "kind": row.kind,
        "mode": row.mode,
        "region": row.region,
        "trust": row.trust,
        "state": row.state,
        "reachable": row.last_seen_at is not None and not row.error,
        "error": row.error,
        "last_seen_at": when(row.last_seen_at),
        "pools": orjson.Fragment(pools),
        "features": sorted(description.features) if description else [],
        "version": description.version if description else "",
        "prices": orjson.loads(row.prices),
        "accounts": orjson.loads(row.accounts) if mine else None,
        "config": orjson.loads(row.config) if mine else None,
        "operators": list(operators) if mine else None,
        "agent": _agent(row) if mine and row.mode == Mode.AGENT else None,
        "data": data,
    }


def _agent(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "version": row.agent_version,
        "clock_offset_seconds": row.agent_clock_offset,
        "last_seen_at": when(row.last_seen_at),
    }


def _kept(connection: sa.Connection, sites: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What sites keep of data: those whose agent said that it does."""
    d, r = tables.data_servers, tables.replicas.c
    used = dict(
        connection.execute(
            sa.select(r.site, sa.func.sum(r.size_bytes))
            .where(r.site.in_(sites), r.tier == "warm", r.in_place.is_(False))
            .where(r.state.in_(("arriving", "whole", "leaving")))
            .group_by(r.site)
        )
        .tuples()
        .all()
    )
    return {
        row.site: {
            "address": row.address,
            "quota_bytes": row.quota_bytes,
            "used_bytes": int(used.get(row.site) or 0),
            "free_bytes": row.free_bytes,
            "cold": row.cold,
            "announced_at": when(row.seen_at),
        }
        for row in connection.execute(sa.select(d).where(d.c.site.in_(sites)))
    }


def _one(connection: sa.Connection, name: str, caller: Caller) -> dict[str, Any]:
    row = connection.execute(sa.select(tables.sites).where(tables.sites.c.name == name)).first()
    if row is None:
        raise NotFound(f"There is no site {name!r}.")
    o = tables.site_operators
    operators = connection.scalars(sa.select(o.c.user).where(o.c.site == name).order_by(o.c.user)).all()
    return _shown(row, caller, operators, _kept(connection, [name]).get(name))


@router.route("GET", "/v1/sites", rule=Signed(None), answer=answers.Page[answers.Site])
async def list_sites(
    service: Serving,
    caller: Calling,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=NAME)] = None,
) -> Response:
    """Every site, by name."""
    s, o = tables.sites, tables.site_operators

    def read(connection: sa.Connection) -> list[dict[str, Any]]:
        query = sa.select(s).where(s.c.name > (cursor or "")).order_by(s.c.name).limit(limit + 1)
        rows = connection.execute(query).all()
        operators: dict[str, list[str]] = {}
        for row in connection.execute(sa.select(o).where(o.c.site.in_([row.name for row in rows])).order_by(o.c.user)):
            operators.setdefault(row.site, []).append(row.user)
        kept = _kept(connection, [row.name for row in rows])
        return [_shown(row, caller, operators.get(row.name, []), kept.get(row.name)) for row in rows]

    items = await service.database.read(read)
    following = items[limit - 1]["name"] if len(items) > limit else None
    return answer({"items": items[:limit], "next_cursor": following})


@router.route("GET", "/v1/sites/{site}", rule=Signed(None), answer=answers.Site)
async def get_site(service: Serving, caller: Calling, site: SitePath) -> Response:
    """One site."""
    return answer(await service.database.read(_one, site, caller))


@router.route("GET", "/v1/sites/{site}/tasks", rule=OfSite(), answer=answers.Page[answers.AttemptAtSite])
async def list_site_tasks(
    service: Serving,
    site: SitePath,
    live: bool = False,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """Attempts at a site with their local accounts, newest first; `live` leaves out what ended."""
    a = tables.attempts
    query = sa.select(a).where(a.c.site == site).order_by(a.c.key.desc()).limit(limit + 1)
    if live:
        query = query.where(_LIVE)
    if cursor is not None:
        query = query.where(a.c.key < cursor)
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    items = [show(row, [*ATTEMPT_FIELDS, "task_id", "project", "user"]) for row in rows[:limit]]
    return answer({"items": items, "next_cursor": rows[limit - 1].key if len(rows) > limit else None})


@router.route("GET", "/v1/sites/{site}/load", rule=OfSite(), answer=answers.Load)
async def get_load(service: Serving, site: SitePath) -> Response:
    """The load that Isthmus puts on a site."""
    hour_ago = service.clock() - 3600.0

    def read(connection: sa.Connection) -> dict[str, Any]:
        a, s = tables.attempts, tables.sites
        count = sa.func.count()
        states = connection.execute(
            sa.select(a.c.state, count, sa.func.sum(a.c.cpus)).where(a.c.site == site, _LIVE).group_by(a.c.state)
        ).all()
        row = connection.execute(sa.select(s.c.last_seen_at, s.c.error).where(s.c.name == site)).one()
        return {
            "site": site,
            "attempts": {state: number for state, number, _ in states},
            "cpus": int(sum(cpus for state, _, cpus in states if state in ("queued", "running", "unknown"))),
            "submitted_last_hour": connection.scalar(
                sa.select(count).where(a.c.site == site, a.c.submitted_at >= hour_ago)
            ),
            "ended_last_hour": connection.scalar(sa.select(count).where(a.c.site == site, a.c.ended_at >= hour_ago)),
            "last_seen_at": when(row.last_seen_at),
            "error": row.error,
        }

    return answer(await service.database.read(read))


# --- joining and changing ---------------------------------------------------------------------------------------------


async def _try_config(service: Service, kind: str, name: str, config: Mapping[str, Any]) -> None:
    """Build the adapter once, so that a wrong setting is refused now; nothing is asked of the site yet."""
    try:
        built = registry.build(kind, name, config, service.blobs)
    except Invalid as error:
        raise Invalid(f"config.{error.field}" if error.field else "config", error.cause, remedy=error.remedy) from None
    except (ImportError, AttributeError, TypeError) as error:
        raise Invalid(
            "kind", f"the kind {kind} does not load: {error}.", remedy="Is it installed as a whole?"
        ) from error
    await built.close()


@router.route("POST", "/v1/sites", rule=Administrators(), body=Join, answer=answers.Site, status=201, errors=[409])
async def join_site(request: Request, service: Serving, caller: Calling, key: IdempotencyKey = None) -> Response:
    """Join a site; whoever does so operates it. One that left may join again under its name."""
    join = await read_body(request, Join)
    if join.mode is Mode.DIRECT:
        await _try_config(service, join.kind, join.name, join.config)
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            insert_site(connection, join, user=caller.user, now=now)
            return _one(connection, join.name, caller)

        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    body = await service.database.write(store)
    service.gate.forget()
    service.engine.wake_sites()
    service.feed.prod()
    return made(body)


@router.route("PATCH", "/v1/sites/{site}", rule=OfSite(), body=Change, answer=answers.Site)
async def change_site(request: Request, service: Serving, caller: Calling, site: SitePath) -> Response:
    """Change a site's accounts and prices; administrators also its config, trust and region, which says what data may be there."""
    change = await read_body(request, Change)
    attested = (change.config, change.trust, change.region)
    if any(value is not None for value in attested) and not caller.rules_all:
        raise Forbidden("Only administrators change config, trust and region.", remedy="Ask one.")
    if change.config is not None:
        row = await service.database.read(_kind_and_mode, site)
        if row.mode == Mode.DIRECT:
            await _try_config(service, row.kind, site, change.config)
    now = service.clock()

    def store(connection: sa.Connection) -> dict[str, Any]:
        s = tables.sites
        if change.region is not None:
            _check_region(connection, site, change.region)
        values: dict[str, Any] = {
            name: value for name, value in (("region", change.region), ("trust", change.trust)) if value is not None
        }
        for name in ("config", "accounts", "prices"):
            value = getattr(change, name)
            if value is not None:
                values[name] = orjson.dumps(value).decode()
        if values:
            if "config" in values or "accounts" in values:  # what an adapter is built from
                values["version"] = s.c.version + 1
            connection.execute(s.update().where(s.c.name == site).values(values))
            note(connection, now, caller.user, "site.change", site, {"fields": sorted(set(values) - {"version"})})
        return _one(connection, site, caller)

    shown = await service.database.write(store)
    service.engine.wake_sites()
    return answer(shown)


def _check_region(connection: sa.Connection, site: str, region: str) -> None:
    """Conflict while a copy lies at the site that may not lie in the region."""
    r, d = tables.replicas.c, tables.datasets
    query = (
        sa.select(d)
        .join(tables.replicas, sa.and_(r.project == d.c.project, r.name == d.c.name))
        .where(r.site == site, d.c.regions != "[]")
    )
    for row in connection.execute(query):
        if not labels_of(row).allow(region):
            raise Conflict(
                f"A copy of {row.project}/{row.name} lies there, which may not be in {region or 'no region'}.",
                remedy=f"Let it go first: isthmus data rm {row.project}/{row.name} --at {site}",
                code="data_may_not_leave",
            )


def _kind_and_mode(connection: sa.Connection, site: str) -> sa.Row[Any]:
    s = tables.sites
    return connection.execute(sa.select(s.c.kind, s.c.mode).where(s.c.name == site)).one()


def _preview(connection: sa.Connection, site: str) -> dict[str, Any]:
    a = tables.attempts
    rows = connection.execute(sa.select(a.c.state, a.c.user, a.c.task_id).where(a.c.site == site, _LIVE)).all()
    return {
        "site": site,
        "attempts": dict(sorted(Counter(row.state for row in rows).items())),
        "users": dict(sorted(Counter(row.user for row in rows).items())),
        "tasks": len({row.task_id for row in rows}),
    }


async def _move(service: Service, caller: Caller, site: str, intent: Callable[..., object], **more: bool) -> Response:
    now = service.clock()

    def change(connection: sa.Connection) -> dict[str, Any]:
        intent(connection, now=now, site=site, by=caller.user, **more)
        note(connection, now, caller.user, f"site.{intent.__name__}", site, more)
        return _one(connection, site, caller)

    shown = await service.database.write(change)
    service.engine.wake_sites()
    service.engine.wake()
    service.feed.prod()
    return answer(shown)


@router.route("POST", "/v1/sites/{site}:drain", rule=OfSite(), answer=answers.Site | answers.DrainPreview, errors=[409])
async def drain_site(service: Serving, caller: Calling, site: SitePath, preview: bool = False) -> Response:
    """Send nothing new to a site; what is there ends in peace. `preview` says what that is and changes nothing."""
    if preview:
        return answer(await service.database.read(_preview, site))
    return await _move(service, caller, site, leaving.drain)


@router.route("POST", "/v1/sites/{site}:resume", rule=OfSite(), answer=answers.Site, errors=[409])
async def resume_site(service: Serving, caller: Calling, site: SitePath) -> Response:
    """End a drain."""
    return await _move(service, caller, site, leaving.resume)


@router.route("POST", "/v1/sites/{site}:leave", rule=OfSite(), body=Leave, answer=answers.Site, errors=[409])
async def leave_site(request: Request, service: Serving, caller: Calling, site: SitePath) -> Response:
    """Take a site out; with attempts there only by `force`, which asks the site to end them and then gives them up."""
    leave = await read_body(request, Leave)
    if leave.force:
        now = service.clock()
        await service.database.write(leaving.stop_new, now=now, site=site, by=caller.user)
        await service.engine.end_all(site)
    return await _move(service, caller, site, leaving.leave, force=leave.force)


# --- operators and enrolment ------------------------------------------------------------------------------------------


@router.route("PUT", "/v1/sites/{site}/operators/{user}", rule=Administrators(), status=204)
async def add_operator(service: Serving, caller: Calling, site: SitePath, user: UserPath) -> Response:
    """Make a user operator of a site."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        _one(connection, site, caller)
        if connection.execute(sa.select(tables.users.c.name).where(tables.users.c.name == user)).first() is None:
            raise NotFound(f"There is no user {user!r}.")
        o = tables.site_operators
        connection.execute(o.delete().where(o.c.site == site, o.c.user == user))
        connection.execute(o.insert().values(site=site, user=user))
        note(connection, now, caller.user, "operator.add", site, {"user": user})

    await service.database.write(change)
    service.gate.forget()
    return nothing()


@router.route("DELETE", "/v1/sites/{site}/operators/{user}", rule=Administrators(), status=204)
async def remove_operator(service: Serving, caller: Calling, site: SitePath, user: UserPath) -> Response:
    """Take a site from an operator."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        o = tables.site_operators
        if connection.execute(o.delete().where(o.c.site == site, o.c.user == user)).rowcount == 0:
            raise NotFound(f"{user} does not operate the site {site}.")
        note(connection, now, caller.user, "operator.remove", site, {"user": user})

    await service.database.write(change)
    service.gate.forget()
    return nothing()


@router.route("POST", "/v1/sites/{site}/enrolments", rule=OfSite(), answer=answers.Enrolment, status=201, errors=[409])
async def create_enrolment(
    request: Request, service: Serving, caller: Calling, site: SitePath, key: IdempotencyKey = None
) -> Response:
    """A one-time token, good for an hour, by which the site's agent gets a token of its own."""
    request_hash = await fingerprint(request)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            row = _kind_and_mode(connection, site)
            if row.mode != Mode.AGENT:
                raise Conflict(f"The site {site} is not served by an agent.", remedy="Join it with mode agent.")
            secret = new_secret(ENROLMENT_PREFIX)
            connection.execute(
                tables.enrolments.insert().values(
                    token_hash=hash_of(secret),
                    site=site,
                    created_by=caller.user,
                    created_at=now,
                    expires_at=now + ENROLMENT_SECONDS,
                )
            )
            note(connection, now, caller.user, "site.enrolment", site)
            return {"token": secret, "site": site, "expires_at": when(now + ENROLMENT_SECONDS)}

        return once(
            connection,
            now=now,
            user=caller.user,
            key=key,
            request_hash=request_hash,
            make=make,
            sealer=service.sealer,
        )

    return made(await service.database.write(store))
