"""The network: what operators declare of it, what is known of it now, and the paths that it offers."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from fastapi import Path, Query, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.basemap import shown_basemap
from isthmus.api.body import NAME, UserPath, answer, nothing, read_body, when
from isthmus.api.routing import Router
from isthmus.api.schemas import NameText
from isthmus.api.service import Calling, Serving
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.network import DeclaredNetwork, Figure, LinkView, NetworkView, PairView
from isthmus.domain.roads import Reserved
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import steering
from isthmus.engine.declaring import declare
from isthmus.engine.networkview import read_network
from isthmus.engine.reserving import read_reserved
from isthmus.network.control.desired import Match
from isthmus.store import tables
from isthmus.trust.access import Administrators, NetworkOperators, Signed

router = Router("network")
NamePath = Annotated[str, Path(pattern=NAME)]
End = Annotated[str, Query(pattern=NAME)]
GREATEST_SIZE_BYTES = 10**18


@router.route("GET", "/v1/network", rule=Signed(None), answer=answers.Network)
async def show_network(service: Serving, caller: Calling) -> Response:
    """Nodes, links and measured pairs, each figure with its source, age and error. `control` of routers only for operators of the
    network."""
    view, reserved = await service.database.read(_known, service.clock())
    found = shown(view, reserved, with_control=caller.operates_network or caller.rules_all)
    return answer({**found, "basemap": await asyncio.to_thread(shown_basemap, service.state)})


def _known(connection: sa.Connection, now: float) -> tuple[NetworkView, Reserved]:
    return read_network(connection, now), read_reserved(connection, now)


@router.route("PUT", "/v1/network", rule=NetworkOperators(), body=DeclaredNetwork, answer=answers.NetDeclared)
async def declare_network(request: Request, service: Serving, caller: Calling, dry_run: bool = False) -> Response:
    """Make this the declared network, all of it; the same again changes nothing. `dry_run` only says what would change."""
    network = await read_body(request, DeclaredNetwork)
    now = service.clock()

    def store(connection: sa.Connection) -> dict[str, Any]:
        found = declare(connection, network, by=caller.user, now=now, dry_run=dry_run)
        if found and not dry_run:
            counts = {change: sum(one.change == change for one in found) for change in ("added", "removed", "changed")}
            note(connection, now, caller.user, "network.declare", "network", counts)
        return {"stored": not dry_run, "differences": [asdict(one) for one in found]}

    return answer(await service.database.write(store))


@router.route("GET", "/v1/network/paths", rule=Signed(None), answer=answers.NetPaths)
async def list_paths(
    service: Serving,
    source: End,
    target: End,
    size_bytes: Annotated[int, Query(ge=1, le=GREATEST_SIZE_BYTES)] = 10**9,
    limit: Annotated[int, Query(ge=1, le=16)] = 4,
) -> Response:
    """Paths between two nodes, that which moves `size_bytes` soonest over what nobody was promised first, with what speaks for and against each."""
    from isthmus.network.candidates import candidate_paths

    view, reserved = await service.database.read(_known, service.clock())
    found = await asyncio.to_thread(
        candidate_paths, view, source, target, count=limit, size_bytes=float(size_bytes), reserved=reserved
    )
    paths = [{**asdict(path), "price_per_gb": f"{path.price_per_gb:f}"} for path in found]
    return answer({"source": source, "target": target, "size_bytes": size_bytes, "paths": paths})


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """Go over `nodes`, from site to site; without marks the service chooses some, which the answer tells."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    nodes: tuple[NameText, ...]
    dscp: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 63})] = None
    flow_label: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 0xFFFFF})] = None
    application_id: Annotated[int | None, Field(json_schema_extra={"minimum": 0, "maximum": 0xFFFFFFFF})] = None
    from_prefix: str | None = None

    def match(self) -> Match | None:
        """The marks; None when there are none."""
        for name, most in (("dscp", 63), ("flow_label", 0xFFFFF), ("application_id", 0xFFFFFFFF)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise Invalid(name, f"{value} is not 0 to {most}.")
        source = self.from_prefix
        try:
            source = None if source is None else str(ipaddress.ip_network(source))
        except ValueError:
            raise Invalid("from_prefix", f"{source!r} is not a prefix.", remedy="Such as fd10:5::/64.") from None
        found = Match(dscp=self.dscp, flow_label=self.flow_label, application_id=self.application_id, source=source)
        return None if found.is_empty else found


@router.route("GET", "/v1/network/policies", rule=Signed(None), answer=answers.Page[answers.NetPolicy])
async def list_policies(service: Serving) -> Response:
    """The policies of transfers, tasks and operators, and whether the routers have them; all at once."""
    found = await service.database.read(steering.policies)
    return answer({"items": [_policy(one) for one in found], "next_cursor": None})


@router.route(
    "PUT",
    "/v1/network/policies/{policy}",
    rule=NetworkOperators(),
    body=Steer,
    answer=answers.NetPolicy,
    status=201,
    errors=[409],
)
async def put_policy(request: Request, service: Serving, caller: Calling, policy: NamePath) -> Response:
    """Ask that packets with these marks go this way; its routers follow soon, and it is moved when the way fails."""
    steer = await read_body(request, Steer)
    match = steer.match()
    now = service.clock()

    def store(connection: sa.Connection) -> steering.Wanted:
        view = read_network(connection, now)
        made = steering.want(connection, view, name=policy, nodes=steer.nodes, owner="operator", now=now, match=match)
        note(connection, now, caller.user, "network.steer", policy, {"nodes": list(steer.nodes)})
        return made

    made = await service.database.write(store)
    service.engine.wake_routers()
    return answer(_policy(made), status=201)


@router.route("DELETE", "/v1/network/policies/{policy}", rule=NetworkOperators(), status=204)
async def delete_policy(service: Serving, caller: Calling, policy: NamePath) -> Response:
    """Give a policy up: its routers forget it, then it is gone."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        p = tables.net_policies
        if connection.execute(sa.select(p.c.name).where(p.c.name == policy)).first() is None:
            raise NotFound(f"There is no policy {policy}.")
        steering.give_up(connection, policy)
        note(connection, now, caller.user, "network.give_up", policy)

    await service.database.write(change)
    service.engine.wake_routers()
    return nothing()


def _policy(one: steering.Wanted) -> dict[str, Any]:
    times = {name: when(getattr(one, name)) for name in ("programmed_at", "moved_at", "created_at")}
    return {**asdict(one), **times}


@router.route("PUT", "/v1/network/operators/{user}", rule=Administrators(), status=204)
async def add_network_operator(service: Serving, caller: Calling, user: UserPath) -> Response:
    """Make a user operator of the network."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        if connection.execute(sa.select(tables.users.c.name).where(tables.users.c.name == user)).first() is None:
            raise NotFound(f"There is no user {user!r}.")
        o = tables.net_operators
        connection.execute(o.delete().where(o.c.user == user))
        connection.execute(o.insert().values(user=user))
        note(connection, now, caller.user, "operator.add", "network", {"user": user})

    await service.database.write(change)
    service.gate.forget()
    return nothing()


@router.route("DELETE", "/v1/network/operators/{user}", rule=Administrators(), status=204)
async def remove_network_operator(service: Serving, caller: Calling, user: UserPath) -> Response:
    """Take the network from an operator."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        o = tables.net_operators
        if connection.execute(o.delete().where(o.c.user == user)).rowcount == 0:
            raise NotFound(f"{user} does not operate the network.")
        note(connection, now, caller.user, "operator.remove", "network", {"user": user})

    await service.database.write(change)
    service.gate.forget()
    return nothing()


def shown(view: NetworkView, reserved: Reserved, *, with_control: bool = False) -> dict[str, Any]:
    """The view as `answers.Network` has it; how routers are reached is for those who operate the network."""
    return {
        "now": when(view.now),
        "nodes": [asdict(node if with_control else replace(node, control=None)) for node in view.nodes],
        "links": [
            {
                **_measured(one, view.now),
                "two_way_delay_seconds": None,
                "link": one.link.name,
                "capacity_bits_per_second": one.capacity_bits_per_second,
                "price_per_gb": f"{one.price_per_gb:f}",
                "mtu_bytes": one.link.mtu_bytes,
                "programmable": one.programmable,
                "reserved_bits_per_second": reserved.bits_per_second(
                    one.link.name, one.target, view.now, view.now + 1.0
                ),
                "sliced_bits_per_second": reserved.sliced_bits_per_second(one.link.name),
            }
            for one in view.links
        ],
        "pairs": [
            {**_measured(one, view.now), "two_way_delay_seconds": _figure(one.two_way_delay_seconds, view.now)}
            for one in view.pairs
        ],
    }


def _measured(one: LinkView | PairView, now: float) -> dict[str, Any]:
    return {
        "source": one.source,
        "target": one.target,
        "up": one.up,
        "up_since": when(one.up_since),
        "delay_seconds": _figure(one.delay_seconds, now),
        "jitter_seconds": _figure(one.jitter_seconds, now),
        "loss": _figure(one.loss, now),
        "available_bits_per_second": _figure(one.available_bits_per_second, now),
    }


def _figure(figure: Figure | None, now: float) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "value": figure.value,
        "error": figure.error_at(now),
        "source": figure.source,
        "measured_at": when(figure.measured_at),
        "age_seconds": figure.age_seconds(now),
        "stale": figure.is_stale(now),
    }
