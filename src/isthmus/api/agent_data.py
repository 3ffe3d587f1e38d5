"""The calls of agents about data: announcing what a site keeps, and which blobs of the service have which content."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Path, Query, Request, Response
from pydantic import Field
from sqlalchemy.dialects import postgresql, sqlite

from isthmus.api.answers import _Answer
from isthmus.api.body import ID, answer, read_body
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.domain.dataset import HOME, is_blake3
from isthmus.domain.errors import Invalid, NotFound, Unavailable
from isthmus.domain.ids import is_sha256
from isthmus.store import tables
from isthmus.trust.access import Agents

router = Router("agents")
log = logging.getLogger(__name__)
MAX_CONTENTS = 10_000
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
TransferPath = Annotated[str, Path(pattern=ID)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a site keeps: where its data server can be dialled (empty: nowhere), a request (PEM) for its certificate, its quota
    (0: none) and free room in bytes, whether it has a cold store, where its relay for others can be dialled, and whether its kernel has
    MPTCP."""

    request: Annotated[str, Field(max_length=16_384)]
    address: Annotated[str, Field(max_length=255)] = ""
    quota_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    free_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    cold: bool = False
    relay: Annotated[str, Field(max_length=255)] = ""
    multipath: bool = False

    def __post_init__(self) -> None:
        for name in ("address", "relay"):
            if value := getattr(self, name):
                match = _ADDRESS.fullmatch(value)
                if match is None or not 0 < int(match[2]) < 65536:
                    raise Invalid(name, f"{value[:80]!r} is no address.", remedy="Write HOST:PORT.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentsSent:
    """BLAKE3 of contents that were uploaded -> the SHA-256 that they were uploaded under."""

    contents: Annotated[dict[str, str], Field(max_length=MAX_CONTENTS)]


class Admitted(_Answer):
    """The site's certificate, the authority that other sites' certificates come from, the key that tickets are signed with (all
    PEM), the site's region and the service's."""

    certificate: str
    authority: str
    ticket_key: str
    region: str
    service_region: str


class ContentsHeld(_Answer):
    """BLAKE3 -> SHA-256 of contents of a transfer that the service holds; `next` is null at the end."""

    contents: dict[str, str]
    next: int | None


class ContentsTaken(_Answer):
    """Those of the contents that are not what was said."""

    wrong: list[str]


@router.route("POST", "/v1/agent/data", rule=Agents(), body=Announcement, answer=Admitted, errors=(422,))
async def announce_data(request: Request, service: Serving, caller: Calling) -> Response:
    """Say that the caller's site keeps data; answers a fresh certificate for it. To be repeated now and then."""
    asked = await read_body(request, Announcement)
    if service.passes is None:
        raise Unavailable("This service has no authority for sites' data.", remedy="Start it as a service.")
    region = await service.database.read(_region, caller.agent_site)
    certificate, authority, ticket_key = service.passes.certificate(caller.agent_site, region, asked.request.encode())
    await service.database.write(_announced, caller.agent_site, asked, certificate.decode(), service.clock())
    service.engine.wake()
    return answer(
        {
            "certificate": certificate.decode(),
            "authority": authority.decode(),
            "ticket_key": ticket_key.decode(),
            "region": region,
            "service_region": service.settings.region,
        }
    )


def _region(connection: sa.Connection, site: str) -> str:
    row = connection.execute(sa.select(tables.sites.c.region).where(tables.sites.c.name == site)).first()
    return "" if row is None else str(row.region)


def _announced(connection: sa.Connection, site: str, asked: Announcement, certificate: str, now: float) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = {
        "address": asked.address,
        "quota_bytes": asked.quota_bytes,
        "free_bytes": asked.free_bytes,
        "cold": asked.cold,
        "relay": asked.relay,
        "multipath": asked.multipath,
        "certificate": certificate,
        "seen_at": now,
    }
    statement = insert(tables.data_servers).values(site=site, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["site"], set_=values))


@router.route("GET", "/v1/agent/transfers/{transfer_id}/contents", rule=Agents(), answer=ContentsHeld, errors=(404,))
async def contents_for_agent(
    service: Serving,
    caller: Calling,
    transfer_id: TransferPath,
    start: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Under which SHA-256 the service holds the contents of a transfer from or to the caller's site."""
    row = await service.database.read(_transfer, transfer_id, caller.agent_site)
    manifest = await service.home.manifest(row.manifest, row.manifest_sha256)
    hashes = sorted(manifest.contents)
    held = await service.home.sha256_of(hashes[start : start + MAX_CONTENTS])
    following = start + MAX_CONTENTS if start + MAX_CONTENTS < len(hashes) else None
    return answer({"contents": held, "next": following})


@router.route(
    "POST",
    "/v1/agent/transfers/{transfer_id}/contents",
    rule=Agents(),
    body=ContentsSent,
    answer=ContentsTaken,
    errors=(404, 422),
)
async def take_contents_of_agent(
    request: Request, service: Serving, caller: Calling, transfer_id: TransferPath
) -> Response:
    """Take uploaded blobs of a transfer from the caller's site as contents of the version; each is hashed here."""
    asked = await read_body(request, ContentsSent)
    row = await service.database.read(_transfer, transfer_id, caller.agent_site)
    if row.target != HOME:
        raise NotFound("There is no such transfer to the service.")
    manifest = await service.home.manifest(row.manifest, row.manifest_sha256)
    sizes = manifest.contents
    for blake3, sha256 in asked.contents.items():
        if not is_blake3(blake3) or not is_sha256(sha256) or blake3 not in sizes:
            raise Invalid("contents", "names what is not in the version.", remedy="Send what the manifest lists.")
    absent = await service.blobs.missing(set(asked.contents.values()))
    there = {blake3: sha256 for blake3, sha256 in asked.contents.items() if sha256 not in absent}
    wrong = await service.home.accept(there, sizes)
    return answer({"wrong": sorted(wrong | (asked.contents.keys() - there.keys()))})


def _transfer(connection: sa.Connection, transfer_id: str, site: str) -> Any:
    t, v = tables.transfers.c, tables.dataset_versions.c
    row = connection.execute(
        sa.select(t.id, t.target, t.source, v.manifest, v.manifest_sha256)
        .join(
            tables.dataset_versions,
            sa.and_(v.project == t.project, v.name == t.name, v.version == t.version),
        )
        .where(t.id == transfer_id, t.state == "moving", sa.or_(t.source == site, t.target == site))
    ).first()
    if row is None:
        raise NotFound("There is no such transfer of this site.", remedy="Wait for the next order.")
    return row
