"""The calls of agents: enrolment, the mailbox, and the content that the calls of their site need.

`serve_agents` hands the routes their parts; without it they answer Unavailable.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse

from isthmus.api.answers import Missing
from isthmus.api.body import SHA256, HashPath, TaskIdPath, answer, nothing, read_body
from isthmus.api.problems import RangeNotSatisfiable, of_error
from isthmus.api.routing import Router
from isthmus.api.service import Calling, Service, Serving
from isthmus.api.uploads import WrongOffset
from isthmus.domain.errors import Invalid, Unavailable
from isthmus.engine.agentblobs import AgentBlobs
from isthmus.engine.mailbox import AgentTold, Delivery, Mailbox
from isthmus.trust.access import Agents, Anonymous
from isthmus.trust.enrolment import enrol

MAX_WAIT_SECONDS = 25.0
MAX_TAKE = 64
_HASH = re.compile(SHA256)
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
router = Router("agents")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolRequest:
    """`token` is the one-time token, `agent_token` what the agent made for itself."""

    token: str
    agent_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeRequest:
    """`holding`: calls that the agent has and whose answers were not acknowledged; `limit` 0 is a sign of life only. `version`
    is the agent's, `clock` its time when it asked, in seconds since 1970."""

    holding: list[str] = field(default_factory=list)
    limit: int = 16
    wait_seconds: float = MAX_WAIT_SECONDS
    version: str = ""
    clock: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HashesRequest:
    """Which content is asked about."""

    hashes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The site that the agent serves, and the id of its token."""

    site: str
    token_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenCall:
    """One method call of the port; the arguments are those of `isthmus.sites.wire`."""

    id: str
    method: str
    arguments: dict[str, Any]
    seconds_left: float
    other_agent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Calls on their way to an agent."""

    calls: list[TakenCall]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Whether somebody still waited for the answer."""

    awaited: bool


def serve_agents(app: FastAPI, mailbox: Mailbox, blobs: AgentBlobs) -> None:
    """Hand the routes of agents their parts."""
    app.state.mailbox = mailbox
    app.state.agent_blobs = blobs


def _mailbox(request: Request) -> Mailbox:
    found: Mailbox | None = getattr(request.app.state, "mailbox", None)
    if found is None:
        raise Unavailable("This service serves no agents.", remedy="Start it with its engine.")
    return found


def _scope(request: Request) -> AgentBlobs:
    _mailbox(request)
    found: AgentBlobs = request.app.state.agent_blobs
    return found


@router.route(
    "POST", "/v1/agent/enrol", rule=Anonymous(), body=EnrolRequest, answer=Enrolled, errors=(401, 409, 422, 429)
)
async def enrol_agent(request: Request, service: Serving) -> Response:
    """Exchange a one-time token for the site that it was made for; the agent's own token is good from then on."""
    service.strangers.spend(request.client.host if request.client else "")
    asked = await read_body(request, EnrolRequest)

    now = service.clock()
    enrolled = await service.database.write(enrol, now=now, token=asked.token, agent_token=asked.agent_token)
    service.gate.forget()
    return answer({"site": enrolled.site, "token_id": enrolled.token_id})


@router.route("POST", "/v1/agent/calls:take", rule=Agents(), body=TakeRequest, answer=Taken, errors=(422,))
async def take_calls(request: Request, caller: Calling) -> Response:
    """The next calls for the caller's site; waits up to `wait_seconds`, at most 25, for one. `seconds_left` counts from the
    arrival of this request, so that an agent that counts from its sending never runs a call that has expired."""
    arrived, arrived_at = time.monotonic(), time.time()
    asked = await read_body(request, TakeRequest)
    if len(asked.holding) > 10 * MAX_TAKE:
        raise Invalid("holding", "names too many calls.", remedy=f"Hold at most {10 * MAX_TAKE}.")
    wait = min(max(0.0, asked.wait_seconds), MAX_WAIT_SECONDS)
    found = await _mailbox(request).take(
        caller.agent_site,
        caller.token_id,
        holding=asked.holding,
        limit=min(asked.limit, MAX_TAKE),
        wait=wait,
        gone=request.is_disconnected,
        told=AgentTold(
            version=asked.version, clock_offset_seconds=None if asked.clock is None else asked.clock - arrived_at
        ),
    )
    # The store's clock may have been set meanwhile: what is left is counted by the clock that never jumps.
    waited = time.monotonic() - arrived
    now = max(time.time(), arrived_at + waited)
    return answer({"calls": [_call(delivery, delivery.expires_at - now + waited) for delivery in found]})


def _call(delivery: Delivery, seconds_left: float) -> dict[str, object]:
    return {
        "id": delivery.id,
        "method": delivery.method,
        "arguments": orjson.Fragment(delivery.arguments),
        "seconds_left": seconds_left,
        "other_agent": delivery.other_agent,
    }


@router.route(
    "POST", "/v1/agent/calls/{call_id}/answer", rule=Agents(), body=dict[str, Any], answer=Answered, errors=(404, 422)
)
async def answer_call(request: Request, call_id: TaskIdPath, caller: Calling) -> Response:
    """Answer a call; again is the same as once, and an answer that nobody waits for any more is taken and ignored."""
    body = await request.body()
    try:
        readable = isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        readable = False
    if not readable:
        raise Invalid("", "is not a JSON object.", remedy="Send the answer as isthmus.sites.wire writes it.")
    awaited = await _mailbox(request).answer(caller.agent_site, call_id, body.decode())
    return answer({"awaited": awaited})


@router.route("POST", "/v1/agent/blobs:missing", rule=Agents(), body=HashesRequest, answer=Missing, errors=(422,))
async def missing_for_agent(request: Request, service: Serving, caller: Calling) -> Response:
    """Those of the hashes that the caller's site must send: what the store lacks, or the site never sent itself."""
    hashes = (await read_body(request, HashesRequest)).hashes
    if len(hashes) > 100_000 or not all(_HASH.fullmatch(sha256) for sha256 in hashes):
        raise Invalid("hashes", "holds something else than SHA-256, or too many.", remedy="At most 100000 are allowed.")
    missing = await _scope(request).unproven(caller.agent_site, hashes)
    rest = [sha256 for sha256 in hashes if sha256 not in missing]
    missing |= await service.blobs.missing(rest)
    return answer({"missing": sorted(missing)})


@router.route("HEAD", "/v1/agent/blobs/{sha256}", rule=Agents(), errors=(404,), headers=("Content-Length",))
async def size_for_agent(request: Request, sha256: HashPath, service: Serving, caller: Calling) -> Response:
    """The size of content that an open call of the caller's site needs."""
    await _scope(request).need_read(caller.agent_site, sha256)
    size = await service.blobs.size(sha256)
    return Response(headers={"Content-Length": str(size), "Accept-Ranges": "bytes"})


@router.route(
    "GET",
    "/v1/agent/blobs/{sha256}",
    rule=Agents(),
    media="application/octet-stream",
    errors=(404, 416),
    headers=("Content-Range",),
    also={206: "A part of the content."},
)
async def read_for_agent(
    request: Request,
    sha256: HashPath,
    service: Serving,
    caller: Calling,
    part: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """Content that an open call of the caller's site needs, or a part of it."""
    await _scope(request).need_read(caller.agent_site, sha256)
    size = await service.blobs.size(sha256)
    first, last = 0, size - 1
    match = _RANGE.fullmatch(part or "")
    if match is not None:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if first > last:
            raise RangeNotSatisfiable(f"The content has {size} bytes.", remedy="Ask for bytes that it has.")
    length = last - first + 1
    headers = {"Content-Length": str(length), "Accept-Ranges": "bytes"}
    if match is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(
        _slice(service, sha256, first, length),
        status_code=200 if match is None else 206,
        media_type="application/octet-stream",
        headers=headers,
    )


async def _slice(service: Service, sha256: str, first: int, length: int) -> AsyncIterator[bytes]:
    left = length
    async for chunk in service.blobs.read(sha256, first):
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


@router.route("HEAD", "/v1/agent/uploads/{sha256}", rule=Agents(), errors=(403,), headers=("Upload-Offset",))
async def upload_offset_for_agent(request: Request, sha256: HashPath, service: Serving, caller: Calling) -> Response:
    """How far the site's upload of this content is; `Upload-Complete: true` when the service has it from this site."""
    scope = _scope(request)
    await scope.need_send(caller.agent_site)
    complete = not await scope.unproven(caller.agent_site, [sha256]) and not await service.blobs.missing([sha256])
    offset = service.uploads.offset(_owner(caller.agent_site), sha256)
    return Response(headers={"Upload-Offset": str(offset), "Upload-Complete": "true" if complete else "false"})


@router.route(
    "PATCH",
    "/v1/agent/uploads/{sha256}",
    rule=Agents(),
    status=204,
    errors=(403, 409, 413, 422),
    headers=("Upload-Offset",),
    also={201: "The content is whole and checked."},
)
async def upload_for_agent(
    request: Request,
    sha256: HashPath,
    service: Serving,
    caller: Calling,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0)],
    length: Annotated[int, Header(alias="Upload-Length", ge=0)],
) -> Response:
    """Append the body to the site's upload of this content, while a call of the site collects."""
    scope = _scope(request)
    await scope.need_send(caller.agent_site)
    try:
        here, whole = await service.uploads.append(
            _owner(caller.agent_site), sha256, offset=offset, length=length, chunks=_chunks(request)
        )
    except WrongOffset as error:
        return of_error(error, {"Upload-Offset": str(error.offset)})
    if not whole:
        done = nothing()
        done.headers["Upload-Offset"] = str(here)
        return done
    await scope.sent(caller.agent_site, sha256)
    return Response(status_code=201, headers={"Upload-Offset": str(here)})


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _owner(site: str) -> str:
    """The name that a site's unfinished uploads are kept under; no project is called so."""
    return f"@{site}"
