"""Puts contents where a task wants its outputs besides the blob store: s3://, http(s):// by PUT, and file:// below
directories that the operator allows.

Delivering again is safe: each way writes the whole content or nothing, and the same content twice is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from isthmus.data.port import BlobStore
from isthmus.data.s3 import S3
from isthmus.domain.errors import Corrupt, Invalid, Refused, Unavailable

_PASSING = frozenset({408, 425, 429})
_FILE_MODE = 0o644
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address within


def path_of(url: str) -> Path:
    """The path of a file:// address (or of a bare absolute path); Invalid when it is not one of this host."""
    if url.startswith("/"):
        path = Path(url)
    else:
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise Invalid("url", f"{url[:200]!r} is no file:// address.", remedy="Write file:///absolute/path.")
        path = Path(unquote(parts.path))
    if not path.is_absolute() or "\0" in str(path):
        raise Invalid("url", f"{url[:200]!r} has no absolute path.", remedy="Write file:///absolute/path.")
    return path


def allowed_path(url: str, directories: Sequence[Path]) -> Path:
    """Where a file:// address leads, links resolved; Refused unless that lies below one of the directories."""
    path = path_of(url)
    try:
        real = Path(os.path.realpath(path.parent)) / path.name if path.name else path
    except OSError as error:
        raise Refused(f"{url} cannot be looked up: {error.strerror}.") from None
    if path.name == ".." or not any(real.is_relative_to(os.path.realpath(directory)) for directory in directories):
        allowed = ", ".join(str(directory) for directory in directories) or "none"
        raise Refused(
            f"{url} does not lie below a directory that this service may use (allowed: {allowed}).",
            remedy="Use s3:// or https://, or ask the operator to allow the directory.",
            code="file_not_allowed",
        )
    return real


class Delivery:
    """Delivers by the kind of the address. `s3` None: no account; `directories`: where file:// may lead; `origins`: the
    `https://HOST:PORT` that http(s):// may lead to although they are not on the public internet."""

    def __init__(
        self,
        *,
        s3: S3 | None = None,
        directories: Sequence[Path] = (),
        origins: Sequence[str] = (),
        timeout_seconds: float = 120.0,
    ) -> None:
        self._s3 = s3
        self._directories = tuple(directories)
        self._origins = frozenset(origin_of(origin) for origin in origins)
        self._timeout = timeout_seconds

    async def deliver(self, blobs: BlobStore, sha256: str, url: str) -> None:
        """Put a blob at an address (engine.delivering.Deliver). Refused when that can never work, Unavailable when it
        may later, Corrupt when the stored content is damaged."""
        scheme = url.partition(":")[0]
        if scheme == "s3":
            if self._s3 is None:
                raise Refused(
                    f"This control plane has no S3 account, so nothing can be put at {url}.",
                    remedy="Ask its operator to set one.",
                )
            await self._s3.put(blobs, sha256, url)
        elif scheme in ("http", "https"):
            await self._put_http(blobs, sha256, url)
        elif scheme == "file":
            await self._put_file(blobs, sha256, url)
        else:
            raise Refused(f"Nothing can be put at {url[:200]!r}.", remedy="Use s3://, https:// or file://.")

    async def _put_http(self, blobs: BlobStore, sha256: str, url: str) -> None:
        shown = show(url)
        size = await blobs.size(sha256)
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        extensions: dict[str, str] = {}
        try:
            target = httpx.URL(url)
            if origin_of(url) not in self._origins:
                # The name is resolved once and the connection goes to what was looked at: a name server that answers
                # otherwise the second time leads nowhere else.
                headers["Host"] = target.netloc.decode()
                extensions["sni_hostname"] = target.host
                target = target.copy_with(host=await public_address(target))
            async with httpx.AsyncClient(timeout=self._timeout, follow_redirects=False) as client:
                answer = await client.put(
                    target, content=_checked(blobs, sha256), headers=headers, extensions=extensions
                )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise Refused(f"{shown} is not an address that can be reached.") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{shown} does not take the content: {type(error).__name__}.") from None
        if answer.status_code in _PASSING or answer.status_code >= 500:
            raise Unavailable(f"{shown} answered {answer.status_code}.")
        if not answer.is_success:
            raise Refused(f"{shown} answered {answer.status_code}.", remedy="Check that it takes PUT.")

    async def _put_file(self, blobs: BlobStore, sha256: str, url: str) -> None:
        target = allowed_path(url, self._directories)
        try:
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            allowed_path(url, self._directories)  # what was made meanwhile may lead elsewhere
            if target.is_dir():
                raise Refused(f"{url} is a directory.", remedy="Name the file.")
            handle, name = tempfile.mkstemp(prefix=".isthmus-", dir=target.parent)
            part = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    async for chunk in _checked(blobs, sha256):
                        await asyncio.to_thread(file.write, chunk)
                    file.flush()
                    os.fchmod(handle, _FILE_MODE)
                    await asyncio.to_thread(os.fsync, handle)
                part.rename(target)
            finally:
                part.unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
            raise Refused(f"{url} cannot be written: {error.strerror}.", remedy="Check the directory.") from None
        except OSError as error:
            raise Unavailable(f"{url} cannot be written now: {error.strerror}.") from None


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as `https://host:443`; Invalid when it is no http(s) address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise Invalid("url", f"{url[:200]!r} is no http(s) address.", remedy="Write https://HOST:PORT.") from None
    if not parts.hostname:
        raise Invalid("url", f"{url[:200]!r} names no host.", remedy="Write https://HOST:PORT.")
    return f"{parts.scheme}://{parts.hostname}:{port}"


def is_public(address: str) -> bool:
    """Whether an IP address lies on the public internet: not this host, not a private, shared or link-local network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


async def public_address(url: httpx.URL) -> str:
    """The IP address that the host of an address has; Refused when any that it has is not public: a user of the service
    must not reach, through it, what only this host can reach. Unavailable when the name is not found now."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unavailable(f"The host {url.host} is not found.") from None
    addresses = [str(item[4][0]) for item in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise Refused(
            f"{url.host} is not on the public internet, and this service puts nothing inside its own network.",
            remedy="Use s3://, or ask the operator to allow the address (isthmus up --http-outputs).",
            code="address_not_allowed",
        )
    return addresses[0]


def show(url: str) -> str:
    """An address without what may be secret in it: no user, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


async def _checked(blobs: BlobStore, sha256: str) -> AsyncIterator[bytes]:
    """The content; its last chunk only when the whole hashes right, so that a damaged one never arrives whole."""
    digest = hashlib.sha256()
    held = b""
    async for chunk in blobs.read(sha256):
        if held:
            yield held
        digest.update(chunk)
        held = chunk
    if digest.hexdigest() != sha256:
        raise Corrupt(f"Stored content {sha256} is damaged.")
    if held:
        yield held
