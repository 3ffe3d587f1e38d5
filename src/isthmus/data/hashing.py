"""BLAKE3 of files and of stored content, in threads, so that nobody waits for the processor."""

from __future__ import annotations

import asyncio
from pathlib import Path

from blake3 import blake3

from isthmus.data.directory import DirectoryBlobStore
from isthmus.data.port import BlobStore
from isthmus.domain.errors import NotFound


def hash_bytes(content: bytes) -> str:
    """BLAKE3 of a content in memory, 64 hexadecimal digits."""
    return blake3(content).hexdigest()


def hash_file(path: Path) -> str:
    """BLAKE3 of a file. Blocking."""
    return blake3().update_mmap(path).hexdigest()


async def hash_blob(blobs: BlobStore, sha256: str) -> str:
    """BLAKE3 of a stored content; NotFound when the store does not hold it."""
    if isinstance(blobs, DirectoryBlobStore):
        try:
            return await asyncio.to_thread(hash_file, blobs.path_of(sha256))
        except FileNotFoundError:
            raise NotFound(f"No stored content has the hash {sha256}.") from None
    digest = blake3()
    async for chunk in blobs.read(sha256):
        await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()
