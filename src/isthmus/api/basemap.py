"""The picture that an operator puts behind the map: `STATE/basemap.json` names a file beside it and the degrees at its edges.

Isthmus draws no borders and brings no map. What is supplied is served to people who are signed in, as an image that runs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from fastapi import Response

from isthmus.api.routing import Router
from isthmus.api.service import Serving
from isthmus.domain.errors import Invalid, NotFound
from isthmus.trust.access import Signed

log = logging.getLogger(__name__)
router = Router("network")
FILE = "basemap.json"
MOST_BYTES = 8 * 1024**2
_MEDIA = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_EDGES = {"west": 180.0, "south": 90.0, "east": 180.0, "north": 90.0}
_told: dict[Path, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Basemap:
    """A picture in an equirectangular projection, by the degrees at its edges."""

    picture: Path
    media: str
    edges: dict[str, float]
    credit: str

    def shown(self) -> dict[str, Any]:
        """As `answers.NetBasemap` has it."""
        return {**self.edges, "credit": self.credit}


def read_basemap(state: Path) -> Basemap | None:
    """The operator's basemap; None where there is none, Invalid for one that cannot be used."""
    try:
        document = orjson.loads((state / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise Invalid(FILE, f"cannot be read ({error}).", remedy="Write it as docs/console.md shows.") from None
    if not isinstance(document, dict) or not isinstance(document.get("picture"), str):
        raise Invalid(FILE, "names no picture.", remedy='Write {"picture": "basemap.png", "west": 73, ...}.')
    name = document["picture"]
    media = _MEDIA.get(Path(name).suffix.lower())
    if Path(name).name != name or media is None:
        raise Invalid(
            f"{FILE}: picture", f"{name[:80]!r} is no picture beside it.", remedy="Use .svg, .png, .jpg, .webp."
        )
    picture = state / name
    if not picture.is_file() or picture.stat().st_size > MOST_BYTES:
        raise Invalid(f"{FILE}: picture", f"{name} is not there, or larger than {MOST_BYTES} bytes.")
    edges = {}
    for edge, most in _EDGES.items():
        value = document.get(edge)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.fabs(value) <= most:
            raise Invalid(f"{FILE}: {edge}", f"is not -{most:.0f} to {most:.0f} degrees.")
        edges[edge] = float(value)
    if edges["west"] >= edges["east"] or edges["south"] >= edges["north"]:
        raise Invalid(FILE, "has no extent.", remedy="West is less than east, south less than north.")
    return Basemap(picture=picture, media=media, edges=edges, credit=str(document.get("credit", ""))[:200])


def shown_basemap(state: Path) -> dict[str, Any] | None:
    """The basemap as the network's answer has it; one that cannot be used is told to the log, once."""
    try:
        found = read_basemap(state)
    except Invalid as error:
        if _told.get(state) != str(error):
            _told[state] = str(error)
            log.warning("the basemap is left out: %s", error)
        return None
    return None if found is None else found.shown()


@router.route("GET", "/v1/network/basemap", rule=Signed(None), media="application/octet-stream", errors=[404])
async def get_basemap(service: Serving) -> Response:
    """The operator's picture behind the map."""
    found = await asyncio.to_thread(read_basemap, service.state)
    if found is None:
        raise NotFound("There is no basemap.", remedy="An operator supplies one as docs/console.md shows.")
    headers = {
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(await asyncio.to_thread(found.picture.read_bytes), media_type=found.media, headers=headers)
