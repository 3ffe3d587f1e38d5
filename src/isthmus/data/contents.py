"""The contents of a version, in the one sequence that tickets, orders and sites agree on: by hash."""

from __future__ import annotations

from isthmus.data.transfer.port import Content
from isthmus.domain.dataset import DatasetManifest


def contents_of(manifest: DatasetManifest, regions: tuple[str, ...] = ()) -> tuple[Content, ...]:
    """Each content once, by hash, with the regions that it may lie in."""
    return tuple(
        Content(blake3=blake3, size_bytes=size, regions=regions) for blake3, size in sorted(manifest.contents.items())
    )
