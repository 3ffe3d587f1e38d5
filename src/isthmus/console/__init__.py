"""The web page: the built files of `frontend/`, as they lie in the wheel. It imports no room; `api.console` serves it.

`python frontend/build.py` makes the files; `static/` is never edited by hand.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of the page; `brotli` was made with it, `gzip` is made once when first wanted."""

    content: bytes
    media: str
    brotli: bytes | None

    @cached_property
    def etag(self) -> str:
        """The name of this content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @cached_property
    def gzip(self) -> bytes:
        """The content, compressed."""
        return gzip.compress(self.content, 9, mtime=0)


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """The files by name: `index.html`, and those of `assets/` by their own name; empty when the page was not built."""
    found = {}
    for path in [*STATIC.glob("*"), *STATIC.glob("assets/*")]:
        if path.is_file() and path.suffix in _MEDIA:
            packed = path.with_name(f"{path.name}.br")
            found[path.name] = Asset(
                content=path.read_bytes(),
                media=_MEDIA[path.suffix],
                brotli=packed.read_bytes() if packed.exists() else None,
            )
    return found
