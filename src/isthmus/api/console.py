"""The web page at the address of the service: its files, with the rules that keep foreign scripts out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Response

from isthmus.api.routing import Router
from isthmus.console import assets
from isthmus.domain.errors import NotFound
from isthmus.trust.access import Anonymous

router = Router("console")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types svelte-trusted-html",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_SAME = {304: "The caller has it already."}
Accepted = Annotated[str, Header(alias="Accept-Encoding", max_length=1000)]
Known = Annotated[str, Header(alias="If-None-Match", max_length=1000)]


@router.route("GET", "/", rule=Anonymous(), media="text/html", also=_SAME, errors=[404])
async def get_console(accept_encoding: Accepted = "", if_none_match: Known = "") -> Response:
    """The web page."""
    return _serve("index.html", accept_encoding, if_none_match, "no-cache")


@router.route("GET", "/assets/{name}", rule=Anonymous(), media="application/octet-stream", also=_SAME)
async def get_console_asset(
    name: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")],
    accept_encoding: Accepted = "",
    if_none_match: Known = "",
) -> Response:
    """A file of the web page; its name changes with its content, so it may be kept for ever."""
    return _serve(name, accept_encoding, if_none_match, "public, max-age=31536000, immutable")


def _serve(name: str, accepted: str, known: str, cache: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise NotFound("The web page has no such file.", remedy="Load the page anew.")
    headers = {**_HEADERS, "Cache-Control": cache, "ETag": asset.etag}
    if asset.etag in (part.strip().removeprefix("W/") for part in known.split(",")):
        return Response(status_code=304, headers=headers)
    content = asset.content
    takes = {
        part.partition(";")[0].strip() for part in accepted.lower().split(",") if "q=0" not in part.replace(" ", "")
    }
    if "br" in takes and asset.brotli is not None:
        content, headers["Content-Encoding"] = asset.brotli, "br"
    elif "gzip" in takes:
        content, headers["Content-Encoding"] = asset.gzip, "gzip"
    return Response(content, media_type=asset.media, headers=headers)
