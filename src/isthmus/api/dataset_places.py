"""Datasets at sites: files that become a dataset where they lie, and copies that are checked. Both are long: each call answers how far
it is, and the caller asks again until it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import orjson
import sqlalchemy as sa
from blake3 import blake3
from fastapi import Path, Request, Response
from pydantic import Field

from isthmus.api import dataset_answers as answers
from isthmus.api import dataset_rows
from isthmus.api.body import NAME, InProjectQuery, ProjectPath, answer, read_body
from isthmus.api.datasets import PinRequest, wanted_labels
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Serving
from isthmus.data.outside import is_outside
from isthmus.data.port import DataKeeper
from isthmus.domain.dataset import DatasetRef, Going, InPlace, Tier
from isthmus.domain.errors import Forbidden, NotFound, Refused, Unavailable
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.engine import datasets as intents
from isthmus.engine.verifying import shown
from isthmus.store import tables
from isthmus.trust.access import DEFAULT_PROJECT, Caller, InProject, Scope

router = Router("data")
_WRITE = InProject(Scope.TASKS_WRITE)
DatasetPath = Annotated[str, Path(pattern=NAME)]
NameText = Annotated[str, Field(pattern=NAME)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesAtSite:
    """Files or a directory at `path` of a site. Labels that are left out stay as they are."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: NameText
    site: NameText
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    sensitivity: Annotated[str, Field(max_length=63)] | None = None
    regions: Annotated[tuple[NameText, ...], Field(max_length=64)] | None = None
    pinned: bool = False


@router.route(
    "POST", "/v1/datasets:register", rule=_WRITE, body=FilesAtSite, answer=answers.Registered, errors=[404, 409]
)
async def register_dataset(
    request: Request, service: Serving, caller: Calling, project: InProjectQuery = DEFAULT_PROJECT
) -> Response:
    """Make files at a site a dataset, or its next version, without a copy: the site's agent hashes them where they lie. `dataset` is
    null until that is done; the same call again tells how far it is."""
    asked = await read_body(request, FilesAtSite)
    region = service.settings.region

    def look(connection: sa.Connection) -> InPlace:
        account = _account(connection, asked.site, caller)
        labels = wanted_labels(connection, caller, project, asked)
        where = intents.region_of(connection, asked.site, region)
        if not labels.allow(where):
            raise intents.may_not_leave(f"{project}/{asked.name}", labels.regions, asked.site, where)
        if not intents.keeps_data(connection, asked.site):
            raise Refused(
                f"{asked.site} keeps no data.",
                remedy="Its agent must run with --data-root and --data-in-place.",
                code="site_keeps_no_data",
            )
        words = "\0".join((caller.user, project, asked.name, asked.site, asked.path, *labels.regions))
        key = blake3(words.encode("utf-8", "surrogatepass")).hexdigest()[:26]
        return InPlace(id=key, path=asked.path, account=account, regions=labels.regions)

    order = await service.database.read(look)
    keeper = service.engine.site(asked.site)
    if not isinstance(keeper, DataKeeper):
        raise Unavailable(f"{asked.site} keeps no data now.")
    told = (await keeper.data_register([order])).get(order.id)
    if told is None:
        raise Unavailable(f"{asked.site} did not answer for it.")
    if told.going is Going.REFUSED:
        raise Refused(told.message, code=told.code or None)
    if told.going is Going.FAILED:
        raise Refused(f"{asked.site} could not read {asked.path}: {told.message}", remedy="Put it again.")
    if told.going is not Going.DONE:
        fields = ("done_bytes", "size_bytes", "bytes_per_second", "seconds_left")
        return answer({"dataset": None, **{name: getattr(told, name) for name in fields}})
    manifest = await service.home.manifest(told.manifest, told.manifest_sha256)
    now = service.clock()

    def change(connection: sa.Connection) -> dict[str, Any]:
        labels = wanted_labels(connection, caller, project, asked)
        number = intents.add_version(
            connection,
            now=now,
            user=caller.user,
            project=project,
            name=asked.name,
            manifest=manifest,
            manifest_hash=told.manifest,
            manifest_sha256=told.manifest_sha256,
            place=asked.site,
            home_region=region,
            labels=labels,
            pinned=asked.pinned,
            in_place=not is_outside(asked.path),
            tier=Tier.COLD if is_outside(asked.path) else Tier.WARM,
        )
        return dataset_rows.one(connection, DatasetRef(project=project, name=asked.name, version=number))

    made = await service.database.write(change)
    service.engine.wake()
    service.feed.prod()
    size = manifest.size_bytes
    progress = {"done_bytes": size, "size_bytes": size, "bytes_per_second": 0.0, "seconds_left": 0.0}
    return answer({"dataset": made, **progress})


def _account(connection: sa.Connection, site: str, caller: Caller) -> str:
    """The local account that the caller is at a site; empty: the agent's own."""
    s = tables.sites.c
    row = connection.execute(sa.select(s.accounts, s.state).where(s.name == site)).first()
    if row is None or row.state == "left":
        raise NotFound(f"There is no site {site}.", remedy="`isthmus site ls` shows the sites.")
    accounts = orjson.loads(row.accounts)
    for name in (caller.user, "*"):
        if name in accounts:
            return str(accounts[name])
    raise Forbidden(f"You have no account at {site}.", remedy="Ask its operator for one.")


@router.route("POST", "/v1/datasets/{project}/{name}:verify", rule=_WRITE, body=PinRequest, answer=answers.Checks)
async def verify_dataset(
    request: Request, service: Serving, caller: Calling, project: ProjectPath, name: DatasetPath
) -> Response:
    """Have every whole copy of a version (or the one at a site) read and compared with its hashes, each where it lies. The same call
    again tells how far that is, and the end once. A spoiled copy is out of use, and comes again from a good one."""
    asked = await read_body(request, PinRequest)
    ref = DatasetRef(project=project, name=name, version=asked.version)
    found = await service.engine.verifier.check(ref, site=asked.site, now=service.clock(), user=caller.user)
    if any(one.transfer or one.reading.wrong_files for one in found):
        service.engine.wake()
        service.feed.prod()
    return answer({"items": [shown(one) for one in found]})
