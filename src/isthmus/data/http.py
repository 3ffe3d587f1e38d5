"""A store of blobs over HTTP: what an agent hands to its adapter, served by the control plane's blob routes for agents.

Reads and uploads go on where a broken connection left them. A read from the start is checked against its hash, an upload
is checked by the other side. A try that gets nowhere is repeated `tries` times with growing pauses, then Unavailable.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from pathlib import Path
from typing import cast

import httpx

from isthmus.data.port import CHUNK_BYTES
from isthmus.domain.errors import Corrupt, Forbidden, NotFound, Unauthenticated, Unavailable

PIECE_BYTES = 8 * 1024**2  # of an upload in one request
_BATCH = 10_000  # hashes in one question
_EMPTY = hashlib.sha256(b"").hexdigest()
ReadAt = Callable[[int, int], bytes]


class HttpBlobStore:
    """Implements `data.port.BlobStore` over `client`, whose base URL and Authorization are set; `spool` is a directory for
    streams on their way (the system's own when None)."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        prefix: str = "/v1/agent",
        spool: Path | None = None,
        tries: int = 8,
        pause_seconds: float = 0.5,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._spool = spool
        self._tries = tries
        self._pause = pause_seconds

    async def missing(self, hashes: Collection[str]) -> set[str]:
        """Those of the given hashes that must be sent."""
        wanted = sorted(set(hashes))
        missing: set[str] = set()
        for start in range(0, len(wanted), _BATCH):
            body = {"hashes": wanted[start : start + _BATCH]}
            response = await self._ask("POST", "/blobs:missing", json=body)
            try:
                missing |= set(response.json()["missing"])
            except (ValueError, KeyError, TypeError):
                raise _garbled() from None
        return missing

    async def size(self, sha256: str) -> int:
        """Size in bytes; NotFound when the store does not hold it for this site."""
        response = await self._ask("HEAD", f"/blobs/{sha256}")
        return _number(response, "Content-Length")

    async def read(self, sha256: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content from `offset` on; Corrupt at its end when it was read from the start and does not hash to its name."""
        digest = hashlib.sha256()
        at = offset
        size = await self.size(sha256)
        failures = 0
        while at < size:
            before = at
            try:
                headers = {"Range": f"bytes={at}-", "Accept-Encoding": "identity"}
                async with self._client.stream("GET", f"{self._prefix}/blobs/{sha256}", headers=headers) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        _check(response)
                    if response.status_code != 206:
                        raise _garbled()
                    body = cast("AsyncGenerator[bytes, None]", response.aiter_bytes(CHUNK_BYTES))
                    async with aclosing(body) as chunks:
                        async for chunk in chunks:
                            piece = chunk[: size - at]
                            at += len(piece)
                            digest.update(piece)
                            yield piece
            except (httpx.TransportError, Unavailable):
                pass  # goes on at `at`
            if at >= size:
                break
            failures = 0 if at > before else failures + 1
            await self._rest(failures)
        if offset == 0 and digest.hexdigest() != sha256:
            raise Corrupt("Content that was read does not hash to its name.", remedy="Try again; check the store.")

    async def put_file(self, path: Path, sha256: str) -> None:
        """Send a local file, resuming an earlier try; Corrupt when its content does not hash to its name."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"A file to send cannot be read ({error.strerror}).") from None
        try:
            size = os.fstat(descriptor).st_size
            await self._send(sha256, size, lambda at, length: os.pread(descriptor, length, at))
        finally:
            os.close(descriptor)

    async def put_bytes(self, content: bytes) -> str:
        """Send a small content; returns its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        await self._send(sha256, len(content), lambda at, length: content[at : at + length])
        return sha256

    async def put_stream(self, chunks: AsyncIterator[bytes], sha256: str) -> None:
        """Spool a stream, then send it; Corrupt, and nothing is sent, when it does not hash to its name."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self._spool) as file:
            async for chunk in chunks:
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            if digest.hexdigest() != sha256:
                raise Corrupt("A stream does not hash to its name; nothing was sent.")
            file.flush()
            await self.put_file(Path(file.name), sha256)

    async def _send(self, sha256: str, size: int, read_at: ReadAt) -> None:
        if size == 0 and sha256 != _EMPTY:
            raise Corrupt("A file does not hash to its name; nothing was sent.")
        offset = -1  # not known
        failures = 0
        thrown_away = False
        while True:
            try:
                if offset < 0:
                    response = await self._once("HEAD", f"/uploads/{sha256}")
                    if response.headers.get("Upload-Complete") == "true":
                        return
                    offset = _number(response, "Upload-Offset")
                piece = await asyncio.to_thread(read_at, offset, min(PIECE_BYTES, max(0, size - offset)))
                if not piece and offset < size:
                    raise Corrupt("A file became shorter while it was sent.")
                headers = {
                    "Upload-Offset": str(offset),
                    "Upload-Length": str(max(size, offset)),
                    "Content-Type": "application/octet-stream",
                }
                response = await self._once("PATCH", f"/uploads/{sha256}", content=piece, headers=headers)
                if response.status_code == 201:
                    return
                offset = _number(response, "Upload-Offset")
                failures = 0
            except _Moved:
                offset = -1
                failures += 1
                await self._rest(failures)
            except Corrupt:
                # Leftovers of an earlier file under this name may be to blame: the whole is sent once more.
                if thrown_away or offset <= 0:
                    raise
                thrown_away, offset = True, -1
            except (httpx.TransportError, Unavailable):
                offset = -1
                failures += 1
                await self._rest(failures)

    async def _ask(self, method: str, path: str, *, json: object = None) -> httpx.Response:
        """A request that may be repeated, repeated."""
        failures = 0
        while True:
            try:
                return await self._once(method, path, json=json)
            except (httpx.TransportError, Unavailable):
                failures += 1
                await self._rest(failures)

    async def _once(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        response = await self._client.request(
            method, f"{self._prefix}{path}", json=json, content=content, headers=headers
        )
        _check(response)
        return response

    async def _rest(self, failures: int) -> None:
        """Pause after a failure, the longer the more there were in a row; Unavailable after the last."""
        if failures >= self._tries:
            raise Unavailable("The control plane's store does not answer.", remedy="Is the link up?")
        if failures:
            await asyncio.sleep(min(15.0, self._pause * 2 ** (failures - 1)) * (0.5 + random.random()))


class _Moved(Exception):
    """The upload is at another offset than we thought."""


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status < 400:
        return
    if status in (404, 410):
        raise NotFound("The control plane does not hold this content for this site.")
    if status == 409:
        raise _Moved
    if status == 422:
        raise Corrupt("The control plane refused content: it does not hash to its name.")
    if status == 401:
        raise Unauthenticated("The control plane does not know the agent's token.", remedy="Enrol the agent again.")
    if status == 403:
        raise Forbidden("No call needs this content any more.", remedy="Wait for the next call.")
    raise Unavailable(f"The control plane's store answered {status}.")


def _number(response: httpx.Response, header: str) -> int:
    value = response.headers.get(header, "")
    if not value.isdigit():
        raise _garbled()
    return int(value)


def _garbled() -> Unavailable:
    return Unavailable("The control plane's store answered with something that cannot be read.")
