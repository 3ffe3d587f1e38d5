"""The contract of a store of blobs: content named by its SHA-256, immutable, resumable.

A site adapter is handed one of these: the control plane's own directory, or, at an agent, the same store over HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1024 * 1024


class BlobStore(Protocol):
    """Content by SHA-256. Every method may raise Unavailable (try again) and never leaves half a blob visible."""

    async def missing(self, hashes: Collection[str]) -> set[str]:
        """Those of the given hashes that the store does not hold."""
        ...

    async def size(self, sha256: str) -> int:
        """Size in bytes; NotFound when the store does not hold it."""
        ...

    def read(self, sha256: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content from `offset` on, in chunks; NotFound when the store does not hold it."""
        ...

    async def put_file(self, path: Path, sha256: str) -> None:
        """Store a local file under its hash, resuming an earlier try; Corrupt when its content does not hash to it."""
        ...

    async def put_bytes(self, content: bytes) -> str:
        """Store a small content; returns its SHA-256."""
        ...

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> None:
        """Store streamed content under its hash; Corrupt when it does not hash to it (nothing is kept then)."""
        ...
