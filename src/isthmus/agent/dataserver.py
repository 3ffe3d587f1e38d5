"""Announces what this site keeps, renews its certificate, and runs its data server where the operator lets it listen."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from isthmus.agent.keeping import Keeping, Standing
from isthmus.agent.link import Backoff, Link
from isthmus.agent.reading import PlacesAllowed
from isthmus.agent.state import StateDirectory
from isthmus.data.cold import ColdStore
from isthmus.data.http import HttpBlobStore
from isthmus.data.transfer.port import Credentials
from isthmus.data.transfer.sockets import has_multipath
from isthmus.domain.dataset import AT_SITE
from isthmus.domain.errors import Invalid, IsthmusError, Unavailable
from isthmus.domain.units import parse_size

if TYPE_CHECKING:
    from isthmus.data.transfer.relay import Relay
    from isthmus.data.transfer.server import Server

log = logging.getLogger(__name__)
ANNOUNCE_SECONDS = 60.0
_ANY = ("0.0.0.0", "::")
_MOST_LOST = 1000  # told at once
RENEW_SECONDS = 86_400.0  # a certificate lasts a month


@asynccontextmanager
async def keeping_data(
    arguments: argparse.Namespace,
    site: str,
    state: StateDirectory,
    link: Link,
    client: httpx.AsyncClient,
    accounts: frozenset[str] | None,
) -> AsyncIterator[Keeping | None]:
    """What the site keeps while the agent runs; None without --data-root. `accounts` are the local ones that it acts for."""
    if arguments.data_root is None:
        if arguments.data_listen or arguments.data_cold or arguments.data_in_place or arguments.relay:
            raise Invalid("data-root", "is missing.", remedy="Name the directory that datasets are kept in.")
        yield None
        return
    cold = ColdStore(arguments.data_cold) if arguments.data_cold else None
    places = PlacesAllowed(arguments.data_in_place, accounts)
    is_file = (arguments.data_cold or "file:").startswith("file:")
    cold_region = arguments.data_cold_region or (AT_SITE if is_file else "")
    keeping = Keeping(
        arguments.data_root, link, HttpBlobStore(client, spool=state.spool), cold, places, cold_region=cold_region
    )
    desk = _Desk(
        keeping,
        link,
        state.data,
        site=site,
        listen=arguments.data_listen or "",
        address=arguments.data_address or "",
        relay=arguments.relay or "",
        relay_address=arguments.relay_address or "",
        quota_bytes=parse_size(arguments.data_quota, "data-quota"),
        cold=cold is not None,
        service=client.base_url,
    )
    announcing = asyncio.create_task(desk.run(), name="announcing data")
    try:
        yield keeping
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
        await keeping.close()
        desk.stop()


class _Desk:
    """The key, the certificate and the server of one site."""

    def __init__(
        self,
        keeping: Keeping,
        link: Link,
        directory: Path,
        *,
        site: str,
        listen: str,
        address: str,
        relay: str,
        relay_address: str,
        quota_bytes: int,
        cold: bool,
        service: httpx.URL,
    ) -> None:
        self._keeping = keeping
        self._link = link
        self._directory = directory
        self._site = site
        self._host, self._port = _parse(listen, "data-listen") if listen else ("", 0)
        self._relay_at = _parse(relay, "relay") if relay else None
        self._relay_address = relay_address
        self._listens = bool(listen)
        self._address = address
        self._quota = quota_bytes
        self._cold = cold
        self._service = service
        self._server: Server | None = None
        self._relay: Relay | None = None
        self._multipath = has_multipath()
        self._renewed_at = float("-inf")

    async def run(self) -> None:
        """Announce now, and again and again."""
        backoff = Backoff()
        while True:
            try:
                await self._announce()
                if swept := await self._keeping.sweep():
                    log.info("%d contents that ended tries left here are removed", swept)
                backoff.succeeded()
                pause = ANNOUNCE_SECONDS
            except IsthmusError as error:
                pause = backoff.next()
                log.warning("data is not announced: %s Next try in %.1f s.", error, pause)
            except (OSError, ValueError) as error:
                pause = backoff.next()
                log.error("data is not announced: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._keeping.found_lost.wait()

    def stop(self) -> None:
        """Stop serving."""
        for one in (self._server, self._relay):
            if one is not None:
                one.stop()
        self._server = self._relay = None

    async def _announce(self) -> None:
        """Twice where the server listens for the first time: its certificate comes before its port is open."""
        now = asyncio.get_running_loop().time()
        self._keeping.found_lost.clear()
        lost = sorted(self._keeping.lost)[:_MOST_LOST]
        answer = await self._link.announce({**await self._body(), "lost": lost})
        self._keeping.lost.difference_update(lost)
        if now - self._renewed_at > RENEW_SECONDS:
            credentials = self._keep(answer)
            self._keeping.standing = Standing(
                region=answer.get("region", ""),
                service_region=answer.get("service_region", ""),
                credentials=credentials,
            )
            self._renewed_at = now
            if self._listens or self._relay_at is not None:
                self._serve(credentials, answer["ticket_key"].encode())
                await self._link.announce(await self._body())
        else:
            standing = self._keeping.standing
            standing.region, standing.service_region = answer.get("region", ""), answer.get("service_region", "")

    async def _body(self) -> dict[str, object]:
        address = relay = ""
        if self._server is not None:
            address = self._address or _address(await self._reached_at(self._host), self._server.port)
        if self._relay is not None and self._relay_at is not None:
            relay = self._relay_address or _address(await self._reached_at(self._relay_at[0]), self._relay.port)
        request = await asyncio.to_thread(self._request)
        free = await asyncio.to_thread(self._keeping.free_bytes)
        return {
            "request": request.decode(),
            "address": address,
            "quota_bytes": self._quota,
            "free_bytes": free,
            "cold": self._cold,
            "cold_region": self._keeping.cold_region,
            "relay": relay,
            "multipath": self._multipath,
        }

    async def _reached_at(self, host: str) -> str:
        """Where others reach what listens on a host's address: for all of its addresses, the one on the way to the service."""
        return await asyncio.to_thread(_own_address, self._service) if host in _ANY else host

    def _request(self) -> bytes:
        """The request for the certificate; its key never leaves this directory."""
        from isthmus.trust.authority import make_request

        key, request = self._directory / "key.pem", self._directory / "request.pem"
        if not request.exists() or not key.exists():
            made_key, made_request = make_request(self._site)
            _write(key, made_key)
            _write(request, made_request)
        return request.read_bytes()

    def _keep(self, answer: dict[str, str]) -> Credentials:
        certificate, authority = self._directory / "certificate.pem", self._directory / "authority.pem"
        _write(certificate, answer["certificate"].encode())
        _write(authority, answer["authority"].encode())
        return Credentials(certificate=certificate, key=self._directory / "key.pem", authority=authority)

    def _serve(self, credentials: Credentials, ticket_key: bytes) -> None:
        from isthmus.data.transfer.relay import Relay
        from isthmus.data.transfer.server import Server
        from isthmus.trust.authority import read_ticket_key

        keys = (read_ticket_key(ticket_key),)
        port = self._port if self._server is None else self._server.port
        relay_port = self._relay.port if self._relay is not None else 0
        self.stop()
        if self._listens:
            self._server = Server(
                self._keeping.keep,
                credentials,
                ticket_keys=keys,
                host=self._host,
                port=port,
                multipath=self._multipath,
            )
            self._server.start()
            log.info("data can be read at %s:%d by sites with a ticket", self._host, self._server.port)
        if self._relay_at is not None:
            host, wanted = self._relay_at
            self._relay = Relay(ticket_keys=keys, host=host, port=relay_port or wanted)
            self._relay.start()
            log.info("transfers of others are passed on at %s:%d", host, self._relay.port)


def _own_address(service: httpx.URL) -> str:
    """The address of this machine on the way to the service: where others reach it, unless addresses are translated between."""
    for family, kind, _, _, where in socket.getaddrinfo(service.host, service.port or 443, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
            probe.connect(where)  # sends nothing
            return str(probe.getsockname()[0])
    raise Unavailable(f"This machine finds no way to {service.host}.")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse(listen: str, option: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Invalid(option, f"{listen!r} is no address.", remedy="Write HOST:PORT; nothing listens without it.")
    return host, int(port)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
