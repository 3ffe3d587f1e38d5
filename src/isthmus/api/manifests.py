"""Reads the manifests of directories that a submission names, so that the content they list can be checked with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import sqlalchemy as sa

from isthmus.api.service import Service
from isthmus.domain.errors import Corrupt, Invalid, NotFound
from isthmus.domain.manifest import Manifest
from isthmus.domain.task import TaskSpec
from isthmus.store import tables

MAX_MANIFEST_BYTES = 64 * 1024**2
_REMEMBERED: OrderedDict[str, frozenset[str]] = OrderedDict()  # content never changes under its hash
_MEMORY = 256


async def manifests_of(service: Service, project: str, specs: Sequence[TaskSpec]) -> dict[str, frozenset[str]]:
    """For each manifest that the specs name, the hashes in it. What the project does not own is left out: the
    submission refuses it by name."""
    wanted: dict[str, str] = {}
    for index, spec in enumerate(specs):
        if spec.workdir_manifest:
            wanted.setdefault(spec.workdir_manifest, f"tasks.{index}.workdir_manifest")
        for place, item in enumerate(spec.inputs):
            if item.directory and item.blob:
                wanted.setdefault(item.blob, f"tasks.{index}.inputs.{place}.blob")
    if not wanted:
        return {}
    owned = await service.database.read(owned_blobs, project, list(wanted))
    found = {}
    for sha256 in wanted.keys() & owned:
        try:
            found[sha256] = await _hashes(service, sha256)
        except NotFound:
            continue
        except (Corrupt, Invalid) as error:
            raise Invalid(wanted[sha256], error.cause, remedy="Upload the directory again.") from None
    return found


async def _hashes(service: Service, sha256: str) -> frozenset[str]:
    known = _REMEMBERED.get(sha256)
    if known is None:
        if await service.blobs.size(sha256) > MAX_MANIFEST_BYTES:
            raise Corrupt("The content is too long for a manifest.")
        content = b"".join([chunk async for chunk in service.blobs.read(sha256)])
        known = _REMEMBERED[sha256] = Manifest.load(content).hashes
        while len(_REMEMBERED) > _MEMORY:
            _REMEMBERED.popitem(last=False)
    return known


def owned_blobs(connection: sa.Connection, project: str, hashes: Sequence[str]) -> dict[str, int]:
    """Those of the hashes that the project may read, with their sizes in bytes."""
    b = tables.blobs.c
    owned: dict[str, int] = {}
    for start in range(0, len(hashes), 500):
        query = sa.select(b.sha256, b.size_bytes)
        query = query.where(b.project == project, b.sha256.in_(hashes[start : start + 500]))
        owned.update((row.sha256, row.size_bytes) for row in connection.execute(query))
    return owned
