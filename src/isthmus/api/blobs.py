"""Content by hash: what is missing, resumable uploads, downloads with ranges. A project reads what it owns, no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from fastapi import Header, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.dialects import postgresql, sqlite

from isthmus.api import answers
from isthmus.api.body import HashPath, InProjectQuery, answer, read_body
from isthmus.api.manifests import owned_blobs
from isthmus.api.problems import RangeNotSatisfiable, of_error
from isthmus.api.routing import Router
from isthmus.api.schemas import HashText
from isthmus.api.service import Service, Serving
from isthmus.api.uploads import WrongOffset
from isthmus.domain.errors import Invalid, NotFound, Refused
from isthmus.domain.ids import is_sha256
from isthmus.domain.task import FORBID_UNKNOWN
from isthmus.store import tables
from isthmus.trust.access import DEFAULT_PROJECT, InProject, Scope

MAX_HASHES = 100_000
MAX_PACKED = 10_000
BINARY = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_WRITE = InProject(Scope.TASKS_WRITE)
_READ = InProject(Scope.TASKS_READ)
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, le=2**53)]
Length = Annotated[int, Header(alias="Upload-Length", ge=0, le=2**53)]
router = Router("blobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """Content that a caller is about to name."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    hashes: tuple[HashText, ...]

    def __post_init__(self) -> None:
        if len(self.hashes) > MAX_HASHES:
            raise Invalid("hashes", f"has {len(self.hashes)} entries.", remedy=f"Ask for {MAX_HASHES} at once.")
        for index, sha256 in enumerate(self.hashes):
            if not is_sha256(sha256):
                raise Invalid(f"hashes.{index}", "is not a SHA-256.", remedy="Give 64 hexadecimal digits.")


@router.route("POST", "/v1/blobs:missing", rule=_READ, body=Hashes, answer=answers.Missing)
async def missing_blobs(request: Request, service: Serving, project: InProjectQuery = DEFAULT_PROJECT) -> Response:
    """Those of the hashes that must be uploaded before the project can use them."""
    asked = (await read_body(request, Hashes)).hashes
    owned = await service.database.read(owned_blobs, project, list(asked))
    gone = await service.blobs.missing(owned) if owned else set()
    return answer({"missing": [sha256 for sha256 in dict.fromkeys(asked) if sha256 not in owned or sha256 in gone]})


async def _state(service: Service, project: str, sha256: str) -> tuple[int, bool]:
    """Bytes that are there, and whether the project has the whole."""
    size = await service.database.read(_owned_size, project, sha256)
    if size is not None and not await service.blobs.missing([sha256]):
        return size, True
    return service.uploads.offset(project, sha256), False


def _owned_size(connection: sa.Connection, project: str, sha256: str) -> int | None:
    b = tables.blobs
    return connection.scalar(sa.select(b.c.size_bytes).where(b.c.project == project, b.c.sha256 == sha256))


def _own(connection: sa.Connection, project: str, sha256: str, size: int, now: float) -> None:
    _own_all(connection, project, {sha256: size}, now)


def _own_all(connection: sa.Connection, project: str, sizes: Mapping[str, int], now: float) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    rows = [
        {"project": project, "sha256": sha256, "size_bytes": size, "created_at": now}
        for sha256, size in sorted(sizes.items())  # in one order, so that two packs never wait for each other
    ]
    if rows:
        connection.execute(insert(tables.blobs).on_conflict_do_nothing(), rows)


@router.route("HEAD", "/v1/uploads/{sha256}", rule=_WRITE, media=BINARY, headers=["Upload-Offset"])
async def head_upload(service: Serving, sha256: HashPath, project: InProjectQuery = DEFAULT_PROJECT) -> Response:
    """How far an upload is."""
    offset, complete = await _state(service, project, sha256)
    headers = {"Upload-Offset": str(offset), "Cache-Control": "no-store"}
    if complete:
        headers["Upload-Length"] = str(offset)
    return Response(status_code=200, headers=headers)


@router.route("GET", "/v1/uploads/{sha256}", rule=_WRITE, answer=answers.Upload)
async def get_upload(service: Serving, sha256: HashPath, project: InProjectQuery = DEFAULT_PROJECT) -> Response:
    """How far an upload is."""
    offset, complete = await _state(service, project, sha256)
    return answer({"offset": offset, "complete": complete}, headers={"Upload-Offset": str(offset)})


@router.route(
    "PATCH",
    "/v1/uploads/{sha256}",
    rule=_WRITE,
    media=BINARY,
    status=201,
    also={204: "Kept; more must come."},
    headers=["Upload-Offset"],
    errors=[400, 409, 413],
)
async def append_upload(
    request: Request,
    service: Serving,
    sha256: HashPath,
    offset: Offset,
    length: Length,
    project: InProjectQuery = DEFAULT_PROJECT,
) -> Response:
    """Append the body from `Upload-Offset` on; the last part makes the blob, once its hash is right."""
    there, complete = await _state(service, project, sha256)
    if complete:
        return Response(status_code=201, headers={"Upload-Offset": str(there)})
    try:
        now_at, done = await service.uploads.append(
            project, sha256, offset=offset, length=length, chunks=request.stream()
        )
    except WrongOffset as error:
        return of_error(error, {"Upload-Offset": str(error.offset)})
    if done:
        await service.database.write(_own, project, sha256, length, service.clock())
    return Response(status_code=201 if done else 204, headers={"Upload-Offset": str(now_at)})


@router.route(
    "POST", "/v1/blobs:pack", rule=_WRITE, media=BINARY, answer=answers.Packed, status=201, errors=[400, 413, 422]
)
async def store_pack(request: Request, service: Serving, project: InProjectQuery = DEFAULT_PROJECT) -> Response:
    """Store many small contents with one call: each is its length (4 bytes, big-endian) and its bytes; answers their hashes.

    A directory of thousands of files would else cost thousands of calls.
    """
    contents = unpack(await request.body())
    hashes = [await service.blobs.put_bytes(content) for content in contents]
    sizes = dict(zip(hashes, map(len, contents), strict=True))
    await service.database.write(_own_all, project, sizes, service.clock())
    return answer({"sha256": hashes}, status=201)


def unpack(pack: bytes) -> list[bytes]:
    """The contents of a pack; Refused when its lengths do not add up, or there are too many."""
    contents: list[bytes] = []
    at = 0
    while at < len(pack):
        end = at + 4 + int.from_bytes(pack[at : at + 4], "big")
        if at + 4 > len(pack) or end > len(pack):
            raise Refused("The pack ends within a content.", remedy="Give each length as 4 bytes, big-endian.")
        if len(contents) == MAX_PACKED:
            raise Refused(f"The pack holds more than {MAX_PACKED} contents.", remedy="Send several packs.")
        contents.append(pack[at + 4 : end])
        at = end
    return contents


@router.route(
    "GET",
    "/v1/blobs/{sha256}",
    rule=_READ,
    media=BINARY,
    also={206: "A part."},
    headers=["Accept-Ranges", "Content-Range"],
    errors=[416],
)
async def get_blob(
    service: Serving,
    sha256: HashPath,
    project: InProjectQuery = DEFAULT_PROJECT,
    wanted: Annotated[str | None, Header(alias="Range", pattern=r"^[!-~]+( *, *[!-~]+)*$")] = None,
) -> Response:
    """The content; one `Range` of bytes is honoured, several are answered with the whole."""
    size = await service.database.read(_owned_size, project, sha256)
    if size is None:
        raise NotFound("The project has no such content.", remedy="Upload it, or name the project that has it.")
    size = await service.blobs.size(sha256)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{sha256}"',
        "Content-Disposition": f'attachment; filename="{sha256}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    part = _part(wanted, size) if wanted is not None else None
    start, stop = part or (0, size)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    chunks = await _opened(service, sha256, start, stop)
    return StreamingResponse(chunks, status_code=206 if part else 200, media_type=BINARY, headers=headers)


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """Start and stop of the asked range; None when it is not one range of bytes, which may be ignored (RFC 9110)."""
    match = _RANGE.fullmatch(wanted.replace(" ", ""))
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), size if not match[2] else min(size, int(match[2]) + 1)
        if match[2] and int(match[2]) < int(match[1]):
            return None
    if start >= stop:
        raise RangeNotSatisfiable(f"The content has {size} bytes.", remedy="Ask for a range inside it.")
    return start, stop


async def _opened(service: Service, sha256: str, start: int, stop: int) -> AsyncIterator[bytes]:
    """The content from start to stop; its first chunk is read now, so that an error is still an answer."""
    reader = service.blobs.read(sha256, start)
    first = await anext(reader, b"") if stop > start else b""

    async def chunks() -> AsyncIterator[bytes]:
        left = stop - start
        chunk = first
        while chunk and left > 0:
            yield chunk[:left]
            left -= len(chunk)
            chunk = await anext(reader, b"") if left > 0 else b""
        if left > 0:
            raise OSError("the content ended early")

    return chunks()
