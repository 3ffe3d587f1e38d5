"""The store of blobs that an agent hands to its adapter: the service's, and, for outputs that stay, what the site keeps itself."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

import httpx

from isthmus.agent.tries import Note, Tries
from isthmus.data.http import HttpBlobStore
from isthmus.data.port import BlobStore
from isthmus.data.transfer.keep import Keep
from isthmus.domain.errors import Corrupt, NotFound, Refused

_REMEMBERED = 100_000


class SiteBlobs(HttpBlobStore):
    """Implements `data.port.BlobStore` over the service, and `data.port.OutputKeeper` once `keep` and `tries` are set."""

    def __init__(self, client: httpx.AsyncClient, *, spool: Path | None = None) -> None:
        super().__init__(client, spool=spool)
        self.keep: Keep | None = None
        self.tries: Tries | None = None
        self._shelved: OrderedDict[str, str] = OrderedDict()  # SHA-256 -> BLAKE3 of what was kept

    def staying(self, regions: Mapping[str, tuple[str, ...]], keys: Collection[str]) -> BlobStore:
        """A store that keeps contents here."""
        if self.keep is None or self.tries is None:
            raise Refused(
                "This site keeps no data.", remedy="Its agent must run with --data-root.", code="site_keeps_no_data"
            )
        return _Shelf(self.keep, regions, self._shelved, self.tries.note(keys))

    def kept(self, sha256: str) -> str:
        """The BLAKE3 of a content that was put so."""
        return self._shelved.get(sha256, "")


class _Shelf:
    """Implements `data.port.BlobStore` over the keep, for what is put."""

    def __init__(
        self, keep: Keep, regions: Mapping[str, tuple[str, ...]], shelved: OrderedDict[str, str], note: Note
    ) -> None:
        self._keep = keep
        self._note = note
        self._regions = regions
        self._shelved = shelved

    async def missing(self, hashes: Collection[str]) -> set[str]:
        """Those that this process has not kept. What is here is noted before it is looked for: it is not swept any more then."""
        await asyncio.to_thread(self._note, {self._shelved[sha256] for sha256 in hashes if sha256 in self._shelved})
        return {sha256 for sha256 in hashes if not self._keep.has(self._shelved.get(sha256, "0" * 64))}

    async def size(self, sha256: str) -> int:
        """Size in bytes."""
        return self._keep.size(self._blake3(sha256))

    async def read(self, sha256: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content."""
        with self._keep.path_of(self._blake3(sha256)).open("rb") as file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, 1024**2):
                yield chunk

    async def put_file(self, path: Path, sha256: str) -> None:
        """Keep a file."""
        await asyncio.to_thread(self._put, path, sha256)

    async def put_bytes(self, content: bytes) -> str:
        """Keep a small content."""
        sha256 = hashlib.sha256(content).hexdigest()
        with tempfile.NamedTemporaryFile(dir=self._keep.incoming) as file:
            file.write(content)
            file.flush()
            await asyncio.to_thread(self._put, Path(file.name), sha256)
        return sha256

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> None:
        """Keep streamed content."""
        with tempfile.NamedTemporaryFile(dir=self._keep.incoming) as file:
            async for chunk in chunks:
                file.write(chunk)
            file.flush()
            await asyncio.to_thread(self._put, Path(file.name), sha256)

    def _put(self, path: Path, sha256: str) -> None:
        found = self._keep.put_file(
            path, regions=self._regions.get(sha256, ()), before=lambda blake3: self._note([blake3])
        )
        with self._keep.path_of(found.blake3).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise Corrupt(f"{path.name} changed while it was kept.")
        self._shelved[sha256] = found.blake3
        while len(self._shelved) > _REMEMBERED:
            self._shelved.popitem(last=False)

    def _blake3(self, sha256: str) -> str:
        if sha256 not in self._shelved:
            raise NotFound(f"No content with the hash {sha256} is kept here.")
        return self._shelved[sha256]
