"""Finds the kinds of site that are installed, by the entry point group `isthmus.sites`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.sites.port import Site, SiteFactory

GROUP = "isthmus.sites"


def kinds() -> list[str]:
    """Names of the installed kinds of site."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def build(kind: str, name: str, config: Mapping[str, Any], blobs: BlobStore) -> Site:
    """Make the adapter of a site; Invalid for an unknown kind or a wrong setting."""
    for point in entry_points(group=GROUP):
        if point.name == kind:
            factory = cast(SiteFactory, point.load())
            return factory(name, config, blobs)
    raise Invalid("kind", f"no kind of site is called {kind!r}.", remedy=f"Installed: {', '.join(kinds())}.")
