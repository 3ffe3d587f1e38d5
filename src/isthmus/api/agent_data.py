"""The calls of agents about data: announcing what a site keeps, and which blobs of the service have which content."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence
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
from isthmus.domain.dataset import AT_SITE, HOME, DatasetRef, is_blake3
from isthmus.domain.errors import Invalid, NotFound, Unavailable
from isthmus.domain.ids import is_name, is_sha256
from isthmus.domain.lifecycle import ATTEMPT_ENDED, AttemptState
from isthmus.domain.task import TaskSpec
from isthmus.engine.admission import chunks
from isthmus.engine.taskdata import kept_by
from isthmus.engine.verifying import lost_at
from isthmus.store import tables
from isthmus.store.documents import load
from isthmus.trust.access import Agents

router = Router("agents")
log = logging.getLogger(__name__)
MAX_CONTENTS = 10_000
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
TransferPath = Annotated[str, Path(pattern=ID)]
ManifestPath = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a site keeps: where its data server can be dialled (empty: nowhere), a request (PEM) for its certificate, its quota
    (0: none) and free room in bytes, whether it has a cold store and in which region (@site: where the site is; empty: nobody knows), where its relay for others can be dialled, whether its kernel has
    MPTCP, and the manifests (BLAKE3) of versions of which content turned out to be missing there."""

    request: Annotated[str, Field(max_length=16_384)]
    address: Annotated[str, Field(max_length=255)] = ""
    quota_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    free_bytes: Annotated[int, Field(ge=0, lt=2**63)] = 0
    cold: bool = False
    cold_region: Annotated[str, Field(max_length=63)] = AT_SITE
    lost: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    relay: Annotated[str, Field(max_length=255)] = ""
    multipath: bool = False

    def __post_init__(self) -> None:
        for name in ("address", "relay"):
            if value := getattr(self, name):
                match = _ADDRESS.fullmatch(value)
                if match is None or not 0 < int(match[2]) < 65536:
                    raise Invalid(name, f"{value[:80]!r} is no address.", remedy="Write HOST:PORT.")
        if self.cold_region not in ("", AT_SITE) and not is_name(self.cold_region):
            raise Invalid("cold_region", f"{self.cold_region[:80]!r} is no region.", remedy="Use a-z, 0-9, . _ -.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentsSent:
    """BLAKE3 of contents that were uploaded -> the SHA-256 that they were uploaded under."""

    contents: Annotated[dict[str, str], Field(max_length=MAX_CONTENTS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """Keys of tries that left outputs at the caller's site which are to stay there."""

    attempts: Annotated[tuple[Annotated[str, Field(pattern=ID)], ...], Field(max_length=MAX_CONTENTS)]


class TriesEnded(_Answer):
    """Those tries that are over, and the manifests (BLAKE3) of the versions at the site of what the successful ones were to make."""

    ended: list[str]
    manifests: list[str]


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
    for name in ("address", "relay"):
        _check_address(name, getattr(asked, name), is_local=service.settings.is_local)
    if service.passes is None:
        raise Unavailable("This service has no authority for sites' data.", remedy="Start it as a service.")
    region = await service.database.read(_region, caller.agent_site)
    certificate, authority, ticket_key = service.passes.certificate(caller.agent_site, region, asked.request.encode())
    await service.database.write(_announced, caller.agent_site, asked, certificate.decode(), service.clock())
    if asked.lost:
        lost = [one for one in asked.lost if is_blake3(one)]
        where, now = (caller.agent_site, lost), service.clock()
        count = await service.database.write(lambda c: lost_at(c, now, *where, service.settings.region))
        log.warning("site %s: content of %d copies is missing there", caller.agent_site, count)
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


def _check_address(name: str, address: str, *, is_local: bool) -> None:
    """Invalid for an address that means another machine, or none, to each site that dials it."""
    try:
        found = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return  # a name, or nothing
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_unspecified or found.is_link_local or found.is_multicast or (found.is_loopback and not is_local):
        raise Invalid(
            name,
            f"{address} is not where other sites reach this one.",
            remedy="Start the agent with --data-address HOST:PORT, or --relay-address.",
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
        "cold_region": asked.cold_region,
        "relay": asked.relay,
        "multipath": asked.multipath,
        "certificate": certificate,
        "seen_at": now,
    }
    statement = insert(tables.data_servers).values(site=site, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["site"], set_=values))


@router.route("GET", "/v1/agent/manifests/{manifest}", rule=Agents(), errors=(404,))
async def manifest_for_agent(service: Serving, caller: Calling, manifest: ManifestPath) -> Response:
    """The manifest of a version of which a copy is, or was, at the caller's site."""
    row = await service.database.read(_manifest_at, manifest, caller.agent_site)
    if row is None:
        raise NotFound("There is no such version at this site.")
    found = await service.home.manifest(manifest, row.manifest_sha256)
    return Response(found.dump(), media_type="application/json")


@router.route("POST", "/v1/agent/data/tries", rule=Agents(), body=Tries, answer=TriesEnded, errors=(422,))
async def tries_of_agent(request: Request, service: Serving, caller: Calling) -> Response:
    """Which tries at the caller's site are over, and which versions there came of them: what else they left there nobody wants."""
    asked = await read_body(request, Tries)
    return answer(await service.database.read(_tries, caller.agent_site, asked.attempts))


def _tries(connection: sa.Connection, site: str, keys: Sequence[str]) -> dict[str, list[str]]:
    a, t, r = tables.attempts.c, tables.tasks.c, tables.replicas.c
    ended: list[str] = []
    made: set[str] = set()
    for part in chunks(keys):
        query = sa.select(a.key, a.state, t.spec).join(tables.tasks, t.id == a.task_id)
        query = query.where(a.key.in_(part), a.site == site, a.state.in_([state.value for state in ATTEMPT_ENDED]))
        for row in connection.execute(query):
            ended.append(row.key)
            if row.state == AttemptState.SUCCEEDED:
                made.update(kept_by(load(TaskSpec, row.spec)))
    manifests: set[str] = set()
    for name in sorted(made):
        ref = DatasetRef.parse(name)
        query = sa.select(r.manifest).where(r.project == ref.project, r.name == ref.name, r.site == site)
        manifests.update(connection.scalars(query.where(r.manifest_sha256 != "")))
    return {"ended": ended, "manifests": sorted(manifests)}


def _manifest_at(connection: sa.Connection, manifest: str, site: str) -> Any:
    r = tables.replicas.c
    query = sa.select(r.manifest_sha256).where(r.manifest == manifest, r.site == site, r.manifest_sha256 != "")
    return connection.execute(query).first()


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
