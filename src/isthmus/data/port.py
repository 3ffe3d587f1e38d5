"""The contracts of a store of blobs (content named by its SHA-256, immutable, resumable) and of a site that keeps datasets.

A site adapter is handed one of these: the control plane's own directory, or, at an agent, the same store over HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from isthmus.domain.dataset import InPlace, Reading, TransferOrder, TransferProgress

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


@runtime_checkable
class OutputKeeper(Protocol):
    """A store of blobs that can also keep contents at the site itself: what an agent that keeps datasets hands to its adapter."""

    def staying(self, regions: Mapping[str, tuple[str, ...]], keys: Collection[str]) -> BlobStore:
        """A store, for one call, that keeps these contents (SHA-256 -> the only regions that it may lie in) here, which the tries with these
        keys left. Refused when this site keeps nothing."""
        ...

    def kept(self, sha256: str) -> str:
        """The BLAKE3 under which a content that was put so is kept; empty when it was not."""
        ...


@runtime_checkable
class DataKeeper(Protocol):
    """A site that keeps datasets. All methods may raise Unavailable: then nothing is known. Every one may be called again: what
    is there already is not moved again, and an order whose fence is lower than one seen is not obeyed."""

    async def data_pull(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Begin, or go on, to fetch versions from the orders' sources; answers at once how far each is."""
        ...

    async def data_send(self, orders: Sequence[TransferOrder]) -> Mapping[str, TransferProgress]:
        """Begin, or go on, to send versions that are here to the service; answers at once how far each is."""
        ...

    async def data_status(self, ids: Sequence[str]) -> Mapping[str, TransferProgress]:
        """How far transfers are; ABSENT for one that the site does not know (it started anew)."""
        ...

    async def data_drop(self, manifests: Sequence[str]) -> None:
        """Let versions go, by the BLAKE3 of their manifests: what no other version here names is removed."""
        ...

    async def data_chill(self, manifests: Sequence[str]) -> None:
        """Move versions to the site's cold store."""
        ...

    async def data_warm(self, manifests: Sequence[str]) -> None:
        """Bring versions back from the site's cold store."""
        ...

    async def data_limit(self, limits: Mapping[str, tuple[str, ...]]) -> None:
        """From now on versions (by manifest) may lie in these regions only (empty: anywhere), in place of what was told before."""
        ...

    async def data_verify(self, manifests: Sequence[str]) -> Mapping[str, Reading]:
        """Begin, or go on, to read versions and compare; answers at once how far each is, and once what came of it. Content that is not
        what its name says is out of use from then on."""
        ...

    async def data_register(self, asked: Sequence[InPlace]) -> Mapping[str, Reading]:
        """Begin, or go on, to take in files where they lie; answers at once how far each is, and once the manifest."""
        ...
