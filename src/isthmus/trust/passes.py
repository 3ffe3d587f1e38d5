"""What lets sites move data between one another: their certificates, and a ticket for each transfer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from isthmus.data.contents import contents_of
from isthmus.data.transfer.tickets import Ticket, digest_of, sign
from isthmus.domain.dataset import DatasetManifest
from isthmus.domain.ids import is_name
from isthmus.trust.authority import Authority

LIFE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Passes:
    """Signs with the keys of one control plane."""

    authority: Authority
    clock: Callable[[], float] = time.time

    def ticket(
        self, order: str, *, reader: str, source: str, manifest: DatasetManifest, relayed: tuple[str, ...] = ()
    ) -> str:
        """A ticket by which `reader` may read a version from `source`, for a day; `relayed`: through relays, to these addresses."""
        return sign(
            Ticket(
                order=order,
                reader=reader,
                sources=(source,),
                contents=digest_of(contents_of(manifest)),
                expires=self.clock() + LIFE_SECONDS,
                relayed=relayed,
            ),
            self.authority.ticket_key,
        )

    def certificate(self, site: str, region: str, request: bytes) -> tuple[bytes, bytes, bytes]:
        """Certificate, authority and ticket key (PEM) for a site that made its own key. A region that is no name is left out, so
        that no data which may not leave its region ever goes there."""
        issued = self.authority.issue(site, region=region if is_name(region) else "", request=request)
        return issued.certificate, issued.authority, self.authority.ticket_public_key
