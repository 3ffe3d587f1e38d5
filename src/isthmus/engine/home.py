"""The service's own copies of datasets: blobs that also have a BLAKE3, and the manifests of all versions."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.hashing import hash_blob, hash_bytes
from isthmus.data.port import BlobStore
from isthmus.domain.dataset import DatasetFile, DatasetManifest
from isthmus.domain.errors import Corrupt
from isthmus.domain.manifest import Manifest
from isthmus.store import tables
from isthmus.store.database import Database

_CHUNK = 500
_AT_ONCE = 256  # contents hashed between two writes: a broken call goes on from there
_REMEMBERED = 64


class Home:
    """Content of datasets in the service's blob store. Remembers the manifests it read last."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._manifests: OrderedDict[str, DatasetManifest] = OrderedDict()

    async def blake3_of(self, sizes: Mapping[str, int]) -> dict[str, str]:
        """BLAKE3 of each blob (by SHA-256), computed here and remembered: nobody's word is taken for it."""
        known = await self._database.read(_by_sha256, list(sizes))
        todo = [sha256 for sha256 in sizes if sha256 not in known]
        for start in range(0, len(todo), _AT_ONCE):
            part = todo[start : start + _AT_ONCE]
            found = await asyncio.gather(*(hash_blob(self._blobs, sha256) for sha256 in part))
            rows = [
                {"blake3": blake3, "sha256": sha256, "size_bytes": sizes[sha256]}
                for sha256, blake3 in zip(part, found, strict=True)
            ]
            await self._database.write(_remember, rows)
            known |= dict(zip(part, found, strict=True))
        return known

    async def sha256_of(self, hashes: Collection[str]) -> dict[str, str]:
        """The blob that holds each content, for those that the service holds."""
        known = await self._database.read(_by_blake3, list(hashes))
        missing = await self._blobs.missing(set(known.values()))
        return {blake3: sha256 for blake3, sha256 in known.items() if sha256 not in missing}

    async def accept(self, claimed: Mapping[str, str], sizes: Mapping[str, int]) -> set[str]:
        """Blobs that a site sent, BLAKE3 -> SHA-256: remembers those that are what was claimed, answers the others."""
        found = await self.blake3_of({sha256: sizes[blake3] for blake3, sha256 in claimed.items()})
        return {blake3 for blake3, sha256 in claimed.items() if found.get(sha256) != blake3}

    async def forget(self, blake3: str, sha256: str) -> None:
        """A content here is not what its name says: it is out of use, and may come again."""
        await self._database.write(_forget, blake3)
        if isinstance(self._blobs, DirectoryBlobStore):
            await asyncio.to_thread(self._blobs.set_aside, sha256)

    async def manifest_of_directory(self, directory: Manifest) -> tuple[DatasetManifest, str, str]:
        """A directory of blobs as the manifest of a dataset, its BLAKE3, and the blob that holds it now."""
        hashes = await self.blake3_of({file.sha256: file.size_bytes for file in directory.files})
        manifest = DatasetManifest(
            files=tuple(
                DatasetFile(
                    path=file.path,
                    size_bytes=file.size_bytes,
                    blake3=hashes[file.sha256],
                    executable=file.executable,
                )
                for file in directory.files
            )
        )
        return manifest, *await self.keep_manifest(manifest)

    async def keep_manifest(self, manifest: DatasetManifest) -> tuple[str, str]:
        """Store a manifest; its BLAKE3, and the blob that holds it."""
        content = manifest.dump()
        return hash_bytes(content), await self._blobs.put_bytes(content)

    async def manifest(self, blake3: str, sha256: str) -> DatasetManifest:
        """A version's manifest; Corrupt when the stored one is not what its name says."""
        found = self._manifests.get(blake3)
        if found is None:
            content = b"".join([chunk async for chunk in self._blobs.read(sha256)])
            if hash_bytes(content) != blake3:
                raise Corrupt("A manifest does not hash to its name.", remedy="Run `isthmus check`.")
            found = self._manifests[blake3] = DatasetManifest.load(content)
            while len(self._manifests) > _REMEMBERED:
                self._manifests.popitem(last=False)
        return found


def _by_sha256(connection: sa.Connection, hashes: list[str]) -> dict[str, str]:
    c = tables.contents.c
    found: dict[str, str] = {}
    for start in range(0, len(hashes), _CHUNK):
        query = sa.select(c.sha256, c.blake3).where(c.sha256.in_(hashes[start : start + _CHUNK]))
        found.update((row.sha256, row.blake3) for row in connection.execute(query))
    return found


def _by_blake3(connection: sa.Connection, hashes: list[str]) -> dict[str, str]:
    c = tables.contents.c
    found: dict[str, str] = {}
    for start in range(0, len(hashes), _CHUNK):
        query = sa.select(c.sha256, c.blake3).where(c.blake3.in_(hashes[start : start + _CHUNK]))
        found.update((row.blake3, row.sha256) for row in connection.execute(query))
    return found


def _forget(connection: sa.Connection, blake3: str) -> None:
    connection.execute(tables.contents.delete().where(tables.contents.c.blake3 == blake3))


def _remember(connection: sa.Connection, rows: list[dict[str, object]]) -> None:
    if rows:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(tables.contents).values(rows).on_conflict_do_nothing())
