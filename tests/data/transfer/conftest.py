"""Two sites and more, each with a keep and a certificate, on loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content, Credentials, Endpoint, Order, Outcome, Source, Way
from isthmus.data.transfer.puller import pull
from isthmus.data.transfer.server import Server
from isthmus.data.transfer.talk import Served
from isthmus.data.transfer.tickets import Ticket, digest_of, sign
from isthmus.domain.ids import make_id
from isthmus.trust.authority import Authority, read_ticket_key

MIB = 1024**2


def write_credentials(authority: Authority, site: str, directory: Path, region: str = "") -> Credentials:
    """The files of a site."""
    issued = authority.issue(site, region=region)
    directory.mkdir(parents=True, exist_ok=True)
    made = Credentials(certificate=directory / "site.pem", key=directory / "site.key", authority=directory / "ca.pem")
    made.certificate.write_bytes(issued.certificate)
    made.key.write_bytes(issued.key or b"")
    made.authority.write_bytes(issued.authority)
    return made


class World:
    """Sites by name: north and south, and whoever else is named; servers run until the test ends."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.authority = Authority.open(directory / "authority")
        self.served: list[Served] = []
        self.servers: dict[str, Server] = {}
        self._stack = stack
        self._credentials: dict[str, Credentials] = {}

    def keep(self, site: str) -> Keep:
        """The contents of a site."""
        return Keep(self.directory / site / "keep")

    def credentials(self, site: str, region: str = "") -> Credentials:
        """The certificate of a site; its region is that of the first call."""
        if site not in self._credentials:
            self._credentials[site] = write_credentials(self.authority, site, self.directory / site / "tls", region)
        return self._credentials[site]

    def serve(self, site: str, **settings: Any) -> Server:
        """The data server of a site."""
        made = Server(
            self.keep(site),
            self.credentials(site),
            ticket_keys=[read_ticket_key(self.authority.ticket_public_key)],
            host="127.0.0.1",
            on_served=self.served.append,
            **settings,
        )
        self.servers[site] = self._stack.enter_context(made)
        return made

    def put(self, site: str, data: bytes, regions: Sequence[str] = ()) -> Content:
        """A content at a site."""
        file = self.directory / "fresh"
        file.write_bytes(data)
        return self.keep(site).put_file(file, regions=regions)

    def put_random(self, site: str, size: int) -> Content:
        """A content of that size at a site."""
        return self.put(site, os.urandom(size))

    def put_many(self, site: str, contents: Sequence[bytes]) -> list[Content]:
        """Small contents at a site, without the waits of the disk."""
        made = []
        for data in contents:
            name = blake3(data).hexdigest()
            file = self.directory / "fresh"
            file.write_bytes(data)
            self.keep(site).admit(str(file), name)
            made.append(Content(blake3=name, size_bytes=len(data)))
        return made

    def source(self, site: str, *ways: Way, is_receiving: bool = False) -> Source:
        """A site that serves, as a source."""
        endpoint = Endpoint(host="127.0.0.1", port=self.servers[site].port)
        return Source(site=site, endpoint=endpoint, ways=ways or (Way(),), is_receiving=is_receiving)

    def order(self, contents: Sequence[Content], *sources: Source, reader: str = "south", **fields: Any) -> Order:
        """An order with its ticket; `ticket` takes fields of the ticket."""
        stated: dict[str, Any] = {"reader": reader, "sources": tuple(source.site for source in sources), "order": "one"}
        stated |= {"contents": digest_of(contents), "expires": time.time() + 600} | fields.pop("ticket", {})
        ticket = sign(Ticket(**stated), self.authority.ticket_key)
        settings = {"patience_seconds": 10.0} | fields
        return Order(id=make_id(1, bytes(10)), contents=tuple(contents), sources=sources, ticket=ticket, **settings)

    def pull(self, order: Order, site: str = "south", **arguments: Any) -> Outcome:
        """Carry out an order at a site."""
        return pull(order, self.keep(site), self.credentials(site), **arguments)

    def whole(self, site: str, contents: Sequence[Content]) -> bool:
        """Whether a site has all contents, and each is what its name says."""
        keep = self.keep(site)
        return all(
            keep.has(content.blake3) and blake3(keep.path_of(content.blake3).read_bytes()).hexdigest() == content.blake3
            for content in contents
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """No site yet."""
    with ExitStack() as stack:
        yield World(tmp_path, stack)
