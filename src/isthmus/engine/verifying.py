"""Copies that turn out spoiled: checked on request, taken out of use when content is missing or damaged, brought again from a good one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from isthmus.data.hashing import hash_blob
from isthmus.data.port import BlobStore, DataKeeper
from isthmus.domain.dataset import HOME, DatasetManifest, DatasetRef, Going, Reading, ReplicaState, Tier
from isthmus.domain.errors import IsthmusError, NotFound, Unavailable
from isthmus.engine import datasets as intents
from isthmus.engine.fleet import Fleet
from isthmus.engine.home import Home
from isthmus.store import datasets, events, tables
from isthmus.store.database import Database

_NAMED = 100  # wrong paths that are told
_r = tables.replicas.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How far the check of one copy is; `transfer` brings it again when it was spoiled and another place holds the version."""

    site: str
    reading: Reading
    transfer: str = ""


class Verifier:
    """Checks copies, each by the place that has it. A check is begun once and goes on by itself; its end is told once."""

    def __init__(self, database: Database, fleet: Fleet, home: Home, blobs: BlobStore, home_region: str) -> None:
        self._database = database
        self._fleet = fleet
        self._home = home
        self._blobs = blobs
        self._region = home_region
        self._here: dict[str, tuple[asyncio.Task[Reading], list[int]]] = {}  # by manifest: the task, and bytes read

    async def check(self, ref: DatasetRef, *, site: str, now: float, user: str) -> list[Checked]:
        """Begin, or go on, to check every whole copy of a version (or the one at `site`). NotFound when there is none."""
        row = await self._database.read(intents.need_version, ref)
        copies = await self._database.read(datasets.replicas, row.project, row.name, row.version)
        wanted = [copy for copy in copies if copy.state == ReplicaState.WHOLE and site in ("", copy.site)]
        if not wanted:
            raise NotFound(
                f"There is no whole copy of {ref} at {site or 'any place'}.", remedy=f"`isthmus data show {ref}`."
            )
        manifest = await self._home.manifest(row.manifest, row.manifest_sha256)
        return list(await asyncio.gather(*(self._one(row, manifest, copy, now, user) for copy in wanted)))

    async def _one(self, row: Any, manifest: DatasetManifest, copy: Any, now: float, user: str) -> Checked:
        try:
            if copy.site == HOME:
                told = self._at_home(row.manifest, manifest)
            else:
                keeper = self._fleet.site(copy.site)
                if not isinstance(keeper, DataKeeper):
                    raise Unavailable(f"{copy.site} keeps no data now.")
                told = (await keeper.data_verify([row.manifest]))[row.manifest]
        except (KeyError, IsthmusError) as error:
            said = str(error) if isinstance(error, IsthmusError) else "The site did not answer for it."
            return Checked(site=copy.site, reading=Reading(going=Going.FAILED, message=said, code="unavailable"))
        transfer = ""
        if told.going is Going.DONE and told.wrong_files:
            key = (row.project, row.name, row.version, copy.site)
            transfer = await self._database.write(lost, now, key, told.wrong, self._region, user)
        return Checked(site=copy.site, reading=told, transfer=transfer)

    def _at_home(self, name: str, manifest: DatasetManifest) -> Reading:
        known = self._here.get(name)
        size = sum(manifest.contents.values())
        if known is None:
            done = [0]
            known = asyncio.create_task(self._read(manifest, done), name=f"check of {name}"), done
            self._here[name] = known
        task, done = known
        if not task.done():
            return Reading(going=Going.MOVING, done_bytes=done[0], size_bytes=size)
        del self._here[name]
        return task.result()

    async def _read(self, manifest: DatasetManifest, done: list[int]) -> Reading:
        began = time.monotonic()
        held = await self._home.sha256_of(manifest.contents)
        bad: set[str] = set(manifest.contents) - held.keys()
        try:
            for blake3, size in manifest.contents.items():
                if blake3 in held and await self._found(held[blake3]) != blake3:
                    bad.add(blake3)
                    await self._home.forget(blake3, held[blake3])
                done[0] += size
        except IsthmusError as error:
            return Reading(going=Going.FAILED, done_bytes=done[0], message=str(error), code=error.code)
        wrong = [file.path for file in manifest.files if file.blake3 in bad]
        return Reading(
            going=Going.DONE,
            done_bytes=done[0],
            size_bytes=done[0],
            bytes_per_second=done[0] / max(time.monotonic() - began, 1e-3),
            wrong=tuple(wrong[:_NAMED]),
            wrong_files=len(wrong),
        )

    async def _found(self, sha256: str) -> str:
        try:
            return await hash_blob(self._blobs, sha256)
        except NotFound:
            return ""

    async def close(self) -> None:
        """End what runs."""
        for task, _ in self._here.values():
            task.cancel()
        await asyncio.gather(*(task for task, _ in self._here.values()), return_exceptions=True)


def lost(
    connection: sa.Connection,
    now: float,
    key: tuple[str, str, int, str],
    paths: Sequence[str],
    home_region: str,
    user: str,
) -> str:
    """A whole copy is spoiled: out of use from now on. Answers the transfer that brings it again; empty where no other place holds the
    version, or it may not come."""
    project, name, number, site = key
    where = sa.and_(_r.project == project, _r.name == name, _r.version == number, _r.site == site)
    row = connection.execute(tables.replicas.select().where(where).with_for_update()).first()
    if row is None or row.state != ReplicaState.WHOLE:
        return ""
    values = {"state": ReplicaState.LOST.value, "tier": Tier.WARM.value, "in_place": False}
    connection.execute(tables.replicas.update().where(where).values(**values))
    body = {"dataset": f"{project}/{name}@{number}", "paths": list(paths)[:20]}
    told = events.event(now, "replica.lost", project=project, site="" if site == HOME else site, body=body)
    events.add(connection, [told])
    try:
        return intents.plan_transfer(
            connection,
            now=now,
            user=user,
            ref=DatasetRef(project=project, name=name, version=number),
            target=site,
            home_region=home_region,
            cached=bool(row.cached),
            pinned=bool(row.pinned),
        )
    except IsthmusError:
        return ""


def lost_at(connection: sa.Connection, now: float, site: str, manifests: Sequence[str], home_region: str) -> int:
    """A site says that content of these versions is missing there; answers how many copies are out of use."""
    count = 0
    query = tables.replicas.select().where(
        _r.site == site, _r.manifest.in_(manifests), _r.state == ReplicaState.WHOLE.value
    )
    for row in connection.execute(query.order_by(_r.project, _r.name, _r.version)).all():
        owner = connection.execute(
            sa.select(tables.datasets.c.owner).where(
                tables.datasets.c.project == row.project, tables.datasets.c.name == row.name
            )
        ).scalar()
        lost(connection, now, (row.project, row.name, row.version, site), (), home_region, owner or "")
        count += 1
    return count


def shown(checked: Checked) -> dict[str, Any]:
    """A check as people see it."""
    reading = replace(checked.reading, manifest="", manifest_sha256="")
    state = {Going.MOVING: "reading", Going.DONE: "spoiled" if reading.wrong_files else "good"}
    return {
        "site": checked.site,
        "state": state.get(reading.going, "failed"),
        "done_bytes": reading.done_bytes,
        "size_bytes": reading.size_bytes,
        "bytes_per_second": reading.bytes_per_second,
        "seconds_left": reading.seconds_left,
        "wrong": list(reading.wrong),
        "wrong_files": reading.wrong_files,
        "message": reading.message,
        "transfer": checked.transfer,
    }
