"""Datasets: versions made from uploaded directories, copies and where they are, transfers between places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol

import orjson
import sqlalchemy as sa
from fastapi import Path, Query, Request, Response
from pydantic import Field

from isthmus.api import dataset_answers as answers
from isthmus.api import dataset_rows
from isthmus.api.answers import Page
from isthmus.api.body import ID, NAME, InProjectQuery, Limit, ProjectPath, answer, nothing, read_body
from isthmus.api.manifests import owned_blobs
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.domain.dataset import HOME, DatasetRef, Labels
from isthmus.domain.errors import Forbidden, Invalid, NotFound
from isthmus.domain.ids import is_name, is_sha256
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import admitting
from isthmus.engine import datasets as intents
from isthmus.engine.jobs import read_manifest
from isthmus.engine.transitions import grant
from isthmus.store import tables
from isthmus.trust.access import DEFAULT_PROJECT, Caller, InProject, Scope

router = Router("data")
_READ, _WRITE = InProject(Scope.TASKS_READ), InProject(Scope.TASKS_WRITE)
DatasetPath = Annotated[str, Path(pattern=NAME)]
TransferPath = Annotated[str, Path(pattern=ID)]
VersionQuery = Annotated[int, Query(ge=0, le=10**9, description="0: the newest.")]
PlaceQuery = Annotated[str, Query(pattern="^(@service|[a-z0-9][a-z0-9._-]{0,62})?$", description="A site; empty: all.")]
NameText = Annotated[str, Field(pattern=NAME)]
PlaceText = Annotated[str, Field(pattern="^(@service|[a-z0-9][a-z0-9._-]{0,62})$")]
VersionNumber = Annotated[int, Field(ge=0, le=10**9)]
HashText = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Regions = Annotated[tuple[NameText, ...], Field(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """`directory` is the SHA-256 of an uploaded directory manifest. Labels that are left out stay as they are."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: NameText
    directory: HashText
    sensitivity: Annotated[str, Field(max_length=63)] | None = None
    regions: Regions | None = None
    pinned: bool = False

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise Invalid("name", f"{self.name[:80]!r} is not a name.", remedy="Use a-z, 0-9, . _ -.")
        if not is_sha256(self.directory):
            raise Invalid("directory", "is not a SHA-256.", remedy="Upload the directory's manifest first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRequest:
    """Where a version (0: the newest) is to be as well; the transfer takes at most `bytes_per_second` (0: no bound)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    site: PlaceText
    version: VersionNumber = 0
    pinned: bool = False
    bytes_per_second: Annotated[float, Field(ge=0, le=1e15)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCopy(CopyRequest):
    """`others` are further places: it comes to all, or to none. `by` (with time zone) is when it has to be whole there: promised, or
    refused with the soonest that can be."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    others: Annotated[tuple[PlaceText, ...], Field(max_length=64)] = ()
    by: datetime | None = None

    def __post_init__(self) -> None:
        if self.by is not None and self.by.tzinfo is None:
            raise Invalid("by", "has no time zone.", remedy="Write it like 2026-11-26T18:00:00+08:00.")
        if len({self.site, *self.others}) <= len(self.others):
            raise Invalid("others", "names a place twice.", remedy="Name each place once.")

    @property
    def places(self) -> tuple[str, ...]:
        """All of them."""
        return self.site, *self.others


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """Labels to set; what is left out stays."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    sensitivity: Annotated[str, Field(max_length=63)] | None = None
    regions: Regions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRequest:
    """Which copies are meant: of a version (0: the newest), at a site (empty: everywhere)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    site: Annotated[str, Field(pattern="^(@service|[a-z0-9][a-z0-9._-]{0,62})?$")] = field(default="")
    version: VersionNumber = 0


@router.route("POST", "/v1/datasets", rule=_WRITE, body=NewVersion, answer=answers.Dataset, status=201, errors=[409])
async def put_dataset(
    request: Request, service: Serving, caller: Calling, project: InProjectQuery = DEFAULT_PROJECT
) -> Response:
    """Make a dataset, or its next version, of an uploaded directory; content equal to the newest version's makes none."""
    asked = await read_body(request, NewVersion)
    if not await service.database.read(owned_blobs, project, [asked.directory]):
        raise NotFound("The directory is not there.", remedy=f"Upload its manifest to project {project} first.")
    directory = await read_manifest(service.blobs, asked.directory)
    hashes = sorted(directory.hashes)
    owned = await service.database.read(owned_blobs, project, hashes)
    for file in directory.files:
        if file.sha256 not in owned:
            raise NotFound(f"The directory's content {file.sha256} is not there.", remedy="Upload it first.")
        if file.size_bytes != owned[file.sha256]:
            size = owned[file.sha256]
            raise Invalid("directory", f"says {file.size_bytes} bytes of {file.path[:200]!r}, which has {size}.")
    manifest, manifest_hash, manifest_sha256 = await service.home.manifest_of_directory(directory)
    now, region = service.clock(), service.settings.region

    def change(connection: sa.Connection) -> dict[str, Any]:
        labels = wanted_labels(connection, caller, project, asked)
        number = intents.add_version(
            connection,
            now=now,
            user=caller.user,
            project=project,
            name=asked.name,
            manifest=manifest,
            manifest_hash=manifest_hash,
            manifest_sha256=manifest_sha256,
            place=HOME,
            home_region=region,
            labels=labels,
            pinned=asked.pinned,
        )
        return dataset_rows.one(connection, DatasetRef(project=project, name=asked.name, version=number))

    shown = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return answer(shown, status=201)


class _Labelled(Protocol):
    """What a request for a new version says of the dataset's labels; None: as they are."""

    @property
    def name(self) -> str: ...
    @property
    def sensitivity(self) -> str | None: ...
    @property
    def regions(self) -> tuple[str, ...] | None: ...


def wanted_labels(connection: sa.Connection, caller: Caller, project: str, asked: _Labelled) -> Labels:
    """The labels that a dataset is to have with a new version. Refused to others than its owner and the project's managers when
    they are not those it has."""
    d = tables.datasets.c
    row = connection.execute(tables.datasets.select().where(d.project == project, d.name == asked.name)).first()
    known = Labels() if row is None else intents.labels_of(row)
    labels = labels_with(known, asked.sensitivity, asked.regions)
    if row is not None and labels != known and row.owner != caller.user and not caller.manages(project):
        raise Forbidden("The dataset is another user's.", remedy="Leave its labels out, or ask its owner.")
    return labels


def labels_with(known: Labels, sensitivity: str | None, regions: tuple[str, ...] | None) -> Labels:
    return Labels(
        sensitivity=known.sensitivity if sensitivity is None else sensitivity,
        regions=known.regions if regions is None else tuple(sorted(set(regions))),
    )


@router.route("GET", "/v1/datasets", rule=_READ, answer=Page[answers.DatasetRow])
async def list_datasets(
    service: Serving,
    project: InProjectQuery = DEFAULT_PROJECT,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=NAME)] = None,
) -> Response:
    """The datasets of a project, by name."""
    rows = await service.database.read(dataset_rows.page, project, cursor or "", limit + 1)
    following = rows[limit - 1]["name"] if len(rows) > limit else None
    return answer({"items": rows[:limit], "next_cursor": following})


@router.route("GET", "/v1/datasets/{project}/{name}", rule=_READ, answer=answers.Dataset)
async def get_dataset(service: Serving, project: ProjectPath, name: DatasetPath, version: VersionQuery = 0) -> Response:
    """A version of a dataset, its copies, and which task made it out of what."""
    ref = DatasetRef(project=project, name=name, version=version)
    return answer(await service.database.read(dataset_rows.one, ref))


@router.route("GET", "/v1/datasets/{project}/{name}/files", rule=_READ, answer=Page[answers.DatasetFile])
async def list_dataset_files(
    service: Serving,
    project: ProjectPath,
    name: DatasetPath,
    version: VersionQuery = 0,
    limit: Limit = 1000,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,9}$")] = None,
) -> Response:
    """The files of a version, by path. `sha256` is set where the service itself holds the content; after `:fetch`
    GET /v1/blobs/SHA256 has it."""
    ref = DatasetRef(project=project, name=name, version=version)
    row = await service.database.read(intents.need_version, ref)
    manifest = await service.home.manifest(row.manifest, row.manifest_sha256)
    start = int(cursor or 0)
    files = sorted(manifest.files, key=lambda file: file.path)[start : start + limit]
    held = await service.home.sha256_of({file.blake3 for file in files})
    items = [
        {
            "path": file.path,
            "size_bytes": file.size_bytes,
            "blake3": file.blake3,
            "sha256": held.get(file.blake3, ""),
            "executable": file.executable,
        }
        for file in files
    ]
    more = start + limit < len(manifest.files)
    return answer({"items": items, "next_cursor": str(start + limit) if more else None})


@router.route(
    "POST", "/v1/datasets/{project}/{name}:fetch", rule=_WRITE, body=CopyRequest, answer=answers.Fetched, errors=[409]
)
async def fetch_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Have a version's content come to the service, and let the project read it there: `transfer` is null once it is there."""
    asked = await read_body(request, CopyRequest)
    ref = DatasetRef(project=project, name=name, version=asked.version)
    [transfer] = await _plan(service, caller, ref, [HOME], pinned=False)
    if transfer is None:
        row = await service.database.read(intents.need_version, ref)
        manifest = await service.home.manifest(row.manifest, row.manifest_sha256)
        held = await service.home.sha256_of(manifest.contents)
        sizes = {held[blake3]: size for blake3, size in manifest.contents.items() if blake3 in held}
        granted = {(project, sha256): size for sha256, size in sizes.items()}
        await service.database.write(grant, service.clock(), granted)
    return answer({"transfer": transfer})


@router.route(
    "POST",
    "/v1/datasets/{project}/{name}:copy",
    rule=_WRITE,
    body=WantedCopy,
    answer=answers.Copied,
    errors=[409],
)
async def copy_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Have a copy of a version at a site as well, or at several; `transfer` is null when it is there already. With `by` it is promised to be
    there by then: its windows and rates are held of links from now on; where that cannot be, it is refused with the soonest end that can,
    and nothing is stored."""
    asked = await read_body(request, WantedCopy)
    ref = DatasetRef(project=project, name=name, version=asked.version)
    for place in asked.places:
        if place != HOME:
            await service.database.read(_need_account, place, caller)
    if asked.by is None:
        most = asked.bytes_per_second
        first, *others = await _plan(service, caller, ref, asked.places, pinned=asked.pinned, most=most)
    else:
        first, *others = await _promise(service, caller, ref, asked, asked.by.timestamp())
    return answer({"transfer": first, "others": others})


async def _promise(
    service: Service, caller: Caller, ref: DatasetRef, asked: WantedCopy, by: float
) -> list[dict[str, Any] | None]:
    now, region = service.clock(), service.settings.region
    if by <= now:
        raise Invalid("by", "is over.", remedy="Name a time to come.")
    wish = admitting.Wish(
        ref=ref,
        targets=asked.places,
        by=by,
        most_bytes_per_second=asked.bytes_per_second,
        pinned=asked.pinned,
    )
    roads = await service.database.read(admitting.read_ways, now, wish, region)

    def change(connection: sa.Connection) -> list[dict[str, Any] | None]:
        promised = admitting.admit(connection, now=now, user=caller.user, wish=wish, roads=roads, home_region=region)
        return [dataset_rows.one_transfer(connection, ref.project, one) if one else None for one in promised]

    shown = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return shown


async def _plan(
    service: Service, caller: Caller, ref: DatasetRef, targets: Sequence[str], *, pinned: bool, most: float = 0.0
) -> list[dict[str, Any] | None]:
    now, region = service.clock(), service.settings.region

    def change(connection: sa.Connection) -> list[dict[str, Any] | None]:
        planned = [
            intents.plan_transfer(
                connection,
                now=now,
                user=caller.user,
                ref=ref,
                target=target,
                home_region=region,
                pinned=pinned,
                cached=target == HOME,
                most_bytes_per_second=most,
            )
            for target in targets
        ]
        return [dataset_rows.one_transfer(connection, ref.project, one) if one else None for one in planned]

    shown = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return shown


def _need_account(connection: sa.Connection, site: str, caller: Caller) -> None:
    s = tables.sites.c
    row = connection.execute(sa.select(s.accounts, s.state).where(s.name == site)).first()
    if row is None or row.state == "left":
        raise NotFound(f"There is no site {site}.", remedy="`isthmus site ls` shows the sites.")
    accounts = orjson.loads(row.accounts)
    if caller.user not in accounts and "*" not in accounts and not caller.operates(site):
        raise Forbidden(f"You have no account at {site}.", remedy="Ask its operator for one.")


@router.route("POST", "/v1/datasets/{project}/{name}:pin", rule=_WRITE, body=PinRequest, answer=answers.Dataset)
async def pin_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Keep copies from being evicted."""
    return await _pin(request, service, caller, project, name, pinned=True)


@router.route("POST", "/v1/datasets/{project}/{name}:unpin", rule=_WRITE, body=PinRequest, answer=answers.Dataset)
async def unpin_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Let copies be evicted again when their site needs the room: those that one pinned, and, for the dataset's owner or a manager of
    the project, all."""
    return await _pin(request, service, caller, project, name, pinned=False)


async def _pin(
    request: Request, service: Service, caller: Caller, project: str, name: str, *, pinned: bool
) -> Response:
    asked = await read_body(request, PinRequest)
    ref = DatasetRef(project=project, name=name, version=asked.version)

    def change(connection: sa.Connection) -> dict[str, Any]:
        may_all = caller.manages(project)
        intents.pin(connection, ref=ref, site=asked.site, pinned=pinned, user=caller.user, may_all=may_all)
        return dataset_rows.one(connection, ref)

    return answer(await service.database.write(change))


@router.route(
    "PATCH", "/v1/datasets/{project}/{name}", rule=_WRITE, body=Labelling, answer=answers.Dataset, errors=[409]
)
async def label_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Set the labels; its owner or a manager of the project may. Refused while a copy lies where the new ones do not let it."""
    asked = await read_body(request, Labelling)
    now, region = service.clock(), service.settings.region
    ref = DatasetRef(project=project, name=name)

    def change(connection: sa.Connection) -> dict[str, Any]:
        row = intents.need_version(connection, ref)
        if row.owner != caller.user and not caller.manages(project):
            raise Forbidden("The dataset is another user's.", remedy="Ask its owner or a manager of the project.")
        labels = labels_with(intents.labels_of(row), asked.sensitivity, asked.regions)
        intents.set_labels(connection, now=now, project=project, name=name, labels=labels, home_region=region)
        return dataset_rows.one(connection, ref)

    return answer(await service.database.write(change))


@router.route("DELETE", "/v1/datasets/{project}/{name}", rule=_WRITE, status=204, errors=[409])
async def remove_dataset(
    service: Serving,
    caller: Calling,
    project: ProjectPath,
    name: DatasetPath,
    version: VersionQuery = 0,
    site: PlaceQuery = "",
) -> Response:
    """With `site`, let that copy go (whoever had it made, the dataset's owner, a manager of the project, an operator of the site);
    without, forget the version (0: all of the dataset) and every copy."""
    now = service.clock()
    ref = DatasetRef(project=project, name=name, version=version)

    def change(connection: sa.Connection) -> None:
        row = intents.need_version(connection, ref)
        if site:
            mine = row.owner == caller.user or caller.manages(project) or (site != HOME and caller.operates(site))
            if not mine and not intents.asked_for(connection, ref, row.version, site, caller.user):
                raise Forbidden(
                    "The copy was made for somebody else.",
                    remedy="Ask the dataset's owner or a manager of the project.",
                )
            intents.drop_replica(connection, now=now, ref=ref, site=site)
            return
        if row.owner != caller.user and not caller.manages(project):
            raise Forbidden("The dataset is another user's.", remedy="Ask its owner or a manager of the project.")
        intents.remove(connection, now=now, ref=ref, by=caller.user)

    await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    return nothing()


@router.route("GET", "/v1/transfers", rule=_READ, answer=Page[answers.Transfer])
async def list_transfers(
    service: Serving,
    project: InProjectQuery = DEFAULT_PROJECT,
    dataset: Annotated[str | None, Query(pattern=NAME)] = None,
    task_id: Annotated[str | None, Query(pattern=ID, description="Only those that move for this task.")] = None,
    open_only: Annotated[bool, Query(alias="open", description="Only those that are not over.")] = False,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(pattern=ID)] = None,
) -> Response:
    """Transfers of a project's datasets, newest first."""

    def read(connection: sa.Connection) -> list[dict[str, Any]]:
        return dataset_rows.transfers(
            connection,
            project,
            dataset=dataset or "",
            task=task_id or "",
            open_only=open_only,
            before=cursor or "",
            limit=limit + 1,
        )

    rows = await service.database.read(read)
    following = rows[limit - 1]["id"] if len(rows) > limit else None
    return answer({"items": rows[:limit], "next_cursor": following})


@router.route("GET", "/v1/transfers/{transfer_id}", rule=_READ, answer=answers.Transfer, errors=[404])
async def get_transfer(
    service: Serving, transfer_id: TransferPath, project: InProjectQuery = DEFAULT_PROJECT
) -> Response:
    """One transfer as it is now."""
    return answer(await service.database.read(_transfer, project, transfer_id))


def _transfer(connection: sa.Connection, project: str, transfer_id: str) -> dict[str, Any]:
    shown = dataset_rows.one_transfer(connection, project, transfer_id)
    if shown is None:
        raise NotFound("There is no such transfer in the project.", remedy="`isthmus data transfers` shows them.")
    return shown


@router.route("POST", "/v1/transfers/{transfer_id}:cancel", rule=_WRITE, answer=answers.Transfer, errors=[404])
async def cancel_transfer(
    service: Serving, caller: Calling, transfer_id: TransferPath, project: InProjectQuery = DEFAULT_PROJECT
) -> Response:
    """End a transfer; what it had brought is dropped."""
    now = service.clock()

    def change(connection: sa.Connection) -> dict[str, Any]:
        _transfer(connection, project, transfer_id)
        intents.cancel_transfer(connection, now=now, transfer_id=transfer_id, by=caller.user)
        return _transfer(connection, project, transfer_id)

    shown = await service.database.write(change)
    service.engine.wake()
    return answer(shown)
