"""Slices of the network: rates of links that a project, or packets with a mark, have for sure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from fastapi import Path, Request, Response
from pydantic import Field

from isthmus.api import answers
from isthmus.api.audit import note
from isthmus.api.body import NAME, answer, nothing, read_body, when
from isthmus.api.routing import Router
from isthmus.api.schemas import NameText
from isthmus.api.service import Calling, Serving
from isthmus.domain.errors import Invalid
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import slicing
from isthmus.engine.networkview import read_network
from isthmus.engine.reserving import read_reserved
from isthmus.trust.access import NetworkOperators, Signed

router = Router("network")
NamePath = Annotated[str, Path(pattern=NAME)]
_FAR_AHEAD_SECONDS = 400 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSlice:
    """A rate of links, both ways, for the transfers of `project`, or for packets that carry `dscp`; without `dscp` one is chosen."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    bits_per_second: Annotated[float, Field(json_schema_extra={"minimum": 8e3, "maximum": 30e9})]
    links: Annotated[tuple[NameText, ...], Field(min_length=1, max_length=1000)]
    project: NameText | None = None
    dscp: Annotated[int | None, Field(json_schema_extra={"minimum": 1, "maximum": 63})] = None

    def __post_init__(self) -> None:
        if not 8e3 <= self.bits_per_second <= 30e9:
            raise Invalid("bits_per_second", f"is {self.bits_per_second:g}.", remedy="It must be 8e3 to 30e9.")
        if self.dscp is not None and not 1 <= self.dscp <= 63:
            raise Invalid("dscp", f"{self.dscp} is not 1 to 63.")
        if self.project is None and self.dscp is None:
            raise Invalid("project", "Nobody is in this slice.", remedy="Name a project, a DSCP, or both.")
        if len(set(self.links)) < len(self.links):
            raise Invalid("links", "One is named twice.")


@router.route("GET", "/v1/network/slices", rule=Signed(None), answer=answers.Page[answers.NetSlice])
async def list_slices(service: Serving) -> Response:
    """The slices, and whether the routers have them; all at once."""
    found = await service.database.read(slicing.slices)
    return answer({"items": [_shown(one) for one in found], "next_cursor": None})


@router.route(
    "PUT",
    "/v1/network/slices/{slice_name}",
    rule=NetworkOperators(),
    body=WantedSlice,
    answer=answers.NetSlice,
    status=201,
    errors=[409],
)
async def put_slice(request: Request, service: Serving, caller: Calling, slice_name: NamePath) -> Response:
    """Give a slice of some links; refused where a link has too little left of what nobody was promised."""
    asked = await read_body(request, WantedSlice)
    now = service.clock()
    sliced = slicing.Sliced(
        name=slice_name,
        project=asked.project or "",
        dscp=asked.dscp or 0,
        bits_per_second=asked.bits_per_second,
        links=asked.links,
        created_by=caller.user,
        created_at=now,
    )

    def store(connection: sa.Connection) -> slicing.Sliced:
        view, reserved = read_network(connection, now), read_reserved(connection, now)
        made = slicing.want(connection, view, sliced, reserved, until=now + _FAR_AHEAD_SECONDS)
        note(connection, now, caller.user, "network.slice", slice_name, {"links": list(asked.links)})
        return made

    made = await service.database.write(store)
    service.engine.wake_routers()
    return answer(_shown(made), status=201)


@router.route("DELETE", "/v1/network/slices/{slice_name}", rule=NetworkOperators(), status=204)
async def delete_slice(service: Serving, caller: Calling, slice_name: NamePath) -> Response:
    """Give a slice up: its routers forget it, then it is gone."""
    now = service.clock()

    def change(connection: sa.Connection) -> None:
        slicing.give_up(connection, slice_name)
        note(connection, now, caller.user, "network.unslice", slice_name)

    await service.database.write(change)
    service.engine.wake_routers()
    return nothing()


def _shown(one: slicing.Sliced) -> dict[str, Any]:
    return {**asdict(one), **{name: when(getattr(one, name)) for name in ("programmed_at", "created_at")}}
