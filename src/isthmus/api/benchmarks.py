"""Measuring sites: benchmarks that an operator asks for, and the capabilities of pools that everybody may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from fastapi import Query, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import ID, IdempotencyKey, Limit, SitePath, answer, fingerprint, made, once, read_body, when
from isthmus.api.routing import Router
from isthmus.api.schemas import NameText
from isthmus.api.service import Calling, Serving
from isthmus.domain.errors import Conflict, Invalid, NotFound
from isthmus.domain.ids import is_name
from isthmus.domain.site import Pool, SiteDescription, SiteState
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import benchmarks
from isthmus.store import tables
from isthmus.store.documents import load
from isthmus.trust.access import DEFAULT_PROJECT, OfSite, Scope, Signed

MAX_NODES = 100
SECONDS = (3.0, 100.0)
router = Router("benchmarks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What to measure: `nodes` nodes of each of `pools` (none named: all) for about `seconds`, by the site's `python`.

    The tasks belong to the caller and to `project`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    pools: tuple[str, ...] = ()
    nodes: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODES})] = 1
    seconds: Annotated[float, Field(json_schema_extra={"minimum": SECONDS[0], "maximum": SECONDS[1]})] = 60.0
    python: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 1024, "pattern": "^[!-~]+$"})] = (
        "python3"
    )
    project: NameText = DEFAULT_PROJECT

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise Invalid("nodes", f"is {self.nodes}.", remedy=f"Give 1 to {MAX_NODES}.")
        if not SECONDS[0] <= self.seconds <= SECONDS[1]:
            raise Invalid("seconds", f"is {self.seconds}.", remedy=f"Give {SECONDS[0]:g} to {SECONDS[1]:g}.")
        if not 1 <= len(self.python) <= 1024 or not all("!" <= sign <= "~" for sign in self.python):
            raise Invalid("python", "is not the name of a program.", remedy="Write it like python3.")
        if not is_name(self.project):
            raise Invalid("project", f"{self.project[:80]!r} is not a project.", remedy="Name one of yours.")


@router.route(
    "POST",
    "/v1/sites/{site}/benchmarks",
    rule=OfSite(),
    body=Measure,
    answer=answers.Page[answers.Benchmark],
    status=201,
    errors=[409],
)
async def bench_site(
    request: Request, service: Serving, caller: Calling, site: SitePath, key: IdempotencyKey = None
) -> Response:
    """Measure nodes of a site's pools by ordinary tasks; their capabilities are stored when the tasks have ended."""
    from isthmus.metering.packing import bench_file

    caller.need(Scope.TASKS_WRITE)
    measure = await read_body(request, Measure)
    caller.need_project(measure.project)
    request_hash = await fingerprint(request)
    content = bench_file()
    program = await service.blobs.put_bytes(content)
    now = service.clock()

    def store(connection: sa.Connection) -> bytes:
        def make() -> dict[str, Any]:
            pools = _pools(connection, site, measure.pools)
            ids = benchmarks.submit(
                connection,
                now=now,
                user=caller.user,
                project=measure.project,
                site=site,
                pools=pools,
                nodes=measure.nodes,
                program=program,
                program_bytes=len(content),
                python=measure.python,
                seconds=measure.seconds,
            )
            note(connection, now, caller.user, "site.bench", site, {"tasks": len(ids)})
            b = tables.benchmarks
            rows = connection.execute(sa.select(b).where(b.c.task_id.in_(ids)).order_by(b.c.task_id)).all()
            return {"items": [_shown(row) for row in rows], "next_cursor": None}

        return once(connection, now=now, user=caller.user, key=key, request_hash=request_hash, make=make)

    body = await service.database.write(store)
    service.engine.wake()
    service.feed.prod()
    return made(body)


def _pools(connection: sa.Connection, site: str, wanted: tuple[str, ...]) -> list[Pool]:
    row = connection.execute(sa.select(tables.sites).where(tables.sites.c.name == site)).one()
    if row.state != SiteState.ACTIVE:
        raise Conflict(f"The site {site} takes nothing new: it is {row.state}.", remedy=f"isthmus site resume {site}")
    if not row.description:
        raise Conflict(
            f"Nothing is known yet of the pools of {site}.", remedy=f"Wait until `isthmus site show {site}` shows them."
        )
    pools = {pool.name: pool for pool in load(SiteDescription, row.description).pools}
    for index, name in enumerate(wanted):
        if name not in pools:
            told = ", ".join(sorted(pools)) or "none"
            raise Invalid(f"pools.{index}", f"{site} has no pool {name[:80]!r}.", remedy=f"It has: {told}.")
    chosen = [pools[name] for name in dict.fromkeys(wanted)] if wanted else [pool for pool in pools.values() if pool.up]
    if not chosen:
        raise Conflict(f"No pool of {site} is up.", remedy=f"See `isthmus site show {site}`.")
    return chosen


def _shown(row: sa.Row[Any]) -> dict[str, Any]:
    told = {name: getattr(row, name) for name in ("task_id", "site", "pool", "user", "state", "node", "message")}
    return {**told, "created_at": when(row.created_at), "measured_at": when(row.measured_at)}


@router.route("GET", "/v1/sites/{site}/benchmarks", rule=OfSite(), answer=answers.Page[answers.Benchmark])
async def list_benchmarks(
    service: Serving, site: SitePath, limit: Limit = 100, cursor: Annotated[str | None, Query(pattern=ID)] = None
) -> Response:
    """The measurements of a site's nodes, newest first."""
    b = tables.benchmarks
    query = sa.select(b).where(b.c.site == site).order_by(b.c.task_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(b.c.task_id < cursor)
    rows = await service.database.read(lambda connection: connection.execute(query).all())
    following = rows[limit - 1].task_id if len(rows) > limit else None
    return answer({"items": [_shown(row) for row in rows[:limit]], "next_cursor": following})


@router.route("GET", "/v1/sites/{site}/capabilities", rule=Signed(None), answer=answers.Page[answers.CapabilityOfPool])
async def list_capabilities(service: Serving, site: SitePath) -> Response:
    """What a site's pools do, as measured, with date and error: one for each kind of node; all at once."""
    rows = await service.database.read(_capabilities, site)
    items = [
        {
            "site": row.site,
            "pool": row.pool,
            "stored_at": when(row.stored_at),
            "capability": orjson.Fragment(row.body),
        }
        for row in rows
    ]
    return answer({"items": items, "next_cursor": None})


def _capabilities(connection: sa.Connection, site: str) -> Sequence[sa.Row[Any]]:
    c, s = tables.capabilities, tables.sites
    if connection.execute(sa.select(s.c.name).where(s.c.name == site)).first() is None:
        raise NotFound(f"There is no site {site!r}.")
    return connection.execute(sa.select(c).where(c.c.site == site).order_by(c.c.pool, c.c.kind)).all()
