"""The way out: the agent's HTTP calls to the control plane, verified by TLS, one connection pool, no retries of its own."""

from __future__ import annotations

import ipaddress
import random
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from isthmus import __version__
from isthmus.domain.errors import Forbidden, Invalid, Refused, Unauthenticated, Unavailable
from isthmus.sites import wire

_PATIENCE = httpx.Timeout(connect=10.0, read=30.0, write=60.0, pool=30.0)
_SLACK_SECONDS = 15.0  # beyond a long poll's own wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that was delivered. `deadline` is by this machine's monotonic clock: not to be begun after it. `other_agent`:
    another agent had it and may have begun it."""

    id: str
    method: str
    arguments: wire.Arguments
    deadline: float
    other_agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbled:
    """A call that was delivered and cannot be read."""

    id: str
    method: str
    error: wire.Unreadable


def make_client(url: str, *, token: str = "", ca_file: Path | None = None) -> httpx.AsyncClient:
    """A client of the control plane at `url`; Invalid for plain HTTP to anything but this machine."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Invalid("url", "is not a URL.", remedy="Write https://HOST[:PORT].") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and _is_loopback(parsed.host)):
        raise Invalid("url", "is not https.", remedy="Write https://HOST[:PORT]; http is for this machine only.")
    try:
        verify = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Invalid("ca-file", f"cannot be read ({error.__class__.__name__}).", remedy="Give a PEM file.") from None
    headers = {"User-Agent": "isthmus-agent"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=20.0)
    return httpx.AsyncClient(base_url=parsed, headers=headers, verify=verify, timeout=_PATIENCE, limits=limits)


class Link:
    """Takes calls and delivers answers. Every method raises Unavailable when the link is cut, Unauthenticated or
    Forbidden when the agent is not let in."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def enrol(self, token: str, agent_token: str) -> str:
        """Exchange a one-time token; the name of the site."""
        response = await self._post("/v1/agent/enrol", {"token": token, "agent_token": agent_token})
        try:
            return str(orjson.loads(response.content)["site"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _garbled() from None

    async def take(self, *, holding: Collection[str], limit: int, wait_seconds: float) -> list[Call | Garbled]:
        """The next calls, waiting for one up to `wait_seconds`."""
        sent = time.monotonic()
        body = {
            "holding": sorted(holding),
            "limit": limit,
            "wait_seconds": wait_seconds,
            "version": __version__,
            "clock": time.time(),
        }
        response = await self._post("/v1/agent/calls:take", body, read_timeout=wait_seconds + _SLACK_SECONDS)
        try:
            return [_call(item, sent) for item in orjson.loads(response.content)["calls"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise _garbled() from None

    async def answer(self, call_id: str, answer: str) -> None:
        """Deliver an answer; Refused when the control plane will never take it."""
        await self._post(f"/v1/agent/calls/{call_id}/answer", answer.encode(), read_timeout=60.0)

    async def announce(self, body: Mapping[str, Any]) -> dict[str, str]:
        """Say what the site keeps of data; its certificate and what goes with it."""
        response = await self._post("/v1/agent/data", body)
        try:
            return {str(name): str(value) for name, value in orjson.loads(response.content).items()}
        except (orjson.JSONDecodeError, AttributeError):
            raise _garbled() from None

    async def manifest(self, manifest: str) -> bytes:
        """The manifest of a version that lies at this site, by its BLAKE3."""
        try:
            response = await self._client.get(f"/v1/agent/manifests/{manifest}", timeout=_PATIENCE)
        except httpx.HTTPError as error:
            raise Unavailable(f"The control plane cannot be reached ({type(error).__name__}).") from None
        _check(response)
        return response.content

    async def tries(self, keys: Collection[str]) -> tuple[set[str], list[str]]:
        """Those of some tries that are over, and the manifests of the versions here of what they were to make."""
        response = await self._post("/v1/agent/data/tries", {"attempts": list(keys)})
        try:
            document = orjson.loads(response.content)
            return {str(key) for key in document["ended"]}, [str(one) for one in document["manifests"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _garbled() from None

    async def contents(self, transfer: str) -> dict[str, str]:
        """BLAKE3 -> SHA-256 of the contents of a transfer that the service holds."""
        found: dict[str, str] = {}
        start: int | None = 0
        while start is not None:
            try:
                path = f"/v1/agent/transfers/{transfer}/contents"
                response = await self._client.get(path, params={"start": start}, timeout=_PATIENCE)
            except httpx.HTTPError as error:
                raise Unavailable(f"The control plane cannot be reached ({type(error).__name__}).") from None
            _check(response)
            try:
                document = orjson.loads(response.content)
                found |= document["contents"]
                start = document["next"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise _garbled() from None
        return found

    async def report_contents(self, transfer: str, contents: Mapping[str, str]) -> list[str]:
        """Tell under which SHA-256 contents of a transfer were uploaded; those that are not what was said."""
        path = f"/v1/agent/transfers/{transfer}/contents"
        response = await self._post(path, {"contents": dict(contents)}, read_timeout=600.0)
        try:
            return [str(one) for one in orjson.loads(response.content)["wrong"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _garbled() from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(
        self, path: str, body: Mapping[str, Any] | bytes, *, read_timeout: float | None = None
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        timeout = _PATIENCE
        if read_timeout is not None:
            timeout = httpx.Timeout(
                connect=_PATIENCE.connect, read=read_timeout, write=_PATIENCE.write, pool=_PATIENCE.pool
            )
        try:
            response = await self._client.post(
                path, content=content, headers={"Content-Type": "application/json"}, timeout=timeout
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"The control plane cannot be reached ({type(error).__name__}).") from None
        _check(response)
        return response


class Backoff:
    """Pauses after failures in a row: growing, with jitter, so that many agents do not come back at once."""

    def __init__(self, *, first_seconds: float = 0.5, most_seconds: float = 30.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._failures = 0

    def next(self) -> float:
        """Seconds to pause after one more failure."""
        self._failures += 1
        pause = min(self._most, self._first * 2 ** min(self._failures - 1, 16))
        return float(pause * (0.5 + random.random() / 2))

    def succeeded(self) -> None:
        """Start again with the shortest pause."""
        self._failures = 0


def _call(item: Mapping[str, Any], sent: float) -> Call | Garbled:
    call_id, method = str(item["id"]), str(item["method"])
    try:
        arguments = wire.decode_arguments(method, orjson.dumps(item["arguments"]))
    except wire.Unreadable as error:
        return Garbled(id=call_id, method=method, error=error)
    return Call(
        id=call_id,
        method=method,
        arguments=arguments,
        deadline=sent + float(item["seconds_left"]),
        other_agent=bool(item.get("other_agent", False)),
    )


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status < 300:
        return
    try:
        problem = orjson.loads(response.content)
        detail, remedy = str(problem.get("detail", "")), str(problem.get("remedy", ""))
    except (orjson.JSONDecodeError, AttributeError):
        detail, remedy = "", ""
    match status:
        case 401:
            raise Unauthenticated(detail or "The control plane does not know the agent.", remedy=remedy)
        case 403:
            raise Forbidden(detail or "The control plane does not let the agent in.", remedy=remedy)
        case 404 | 409 | 413 | 422:
            raise Refused(detail or f"The control plane answered {status}.", remedy=remedy)
        case _:
            raise Unavailable(f"The control plane answered {status}.")


def _garbled() -> Unavailable:
    return Unavailable("The control plane answered with something that cannot be read.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
