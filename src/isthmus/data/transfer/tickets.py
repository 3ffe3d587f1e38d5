"""Tickets: short words, signed with Ed25519 by the control plane, of who may read what from whom until when.

A ticket commits to the contents by a BLAKE3 over their list, so that it stays small however many they are; the reader shows the list.
`TEXT = base64url(JSON) "." base64url(signature)`; the signature is over a fixed context and the JSON bytes (RFC 8032).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from isthmus.data.transfer.port import Content
from isthmus.domain.errors import Forbidden

_CONTEXT = b"isthmus transfer ticket 1\0"
_LONGEST = 8192
_SKEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """`reader` may read the contents whose list hashes to `contents`, from the sites in `sources`, until `expires` (seconds since 1970).

    Names are those in the sites' certificates. `bytes_per_second` bounds what the sender sends for it, None: nothing does.
    `relayed`: addresses `host:port` that a relay may connect to for it.
    """

    order: str
    reader: str
    sources: tuple[str, ...]
    contents: str
    expires: float
    bytes_per_second: float | None = None
    relayed: tuple[str, ...] = ()


def digest_of(contents: Iterable[Content]) -> str:
    """BLAKE3 over the list of contents: for each its hash (32 bytes) and its size (8 bytes, big-endian), in the order's sequence."""
    return blake3(encode_list(contents)).hexdigest()


def encode_list(contents: Iterable[Content]) -> bytes:
    """The list of contents as its digest and the wire have it: 40 bytes for each."""
    return b"".join(bytes.fromhex(content.blake3) + content.size_bytes.to_bytes(8, "big") for content in contents)


def sign(ticket: Ticket, key: Ed25519PrivateKey) -> str:
    """The ticket as text."""
    fields = {name: getattr(ticket, name) for name in Ticket.__slots__}
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    return f"{_encode(body)}.{_encode(key.sign(_CONTEXT + body))}"


def verify(text: str, keys: Sequence[Ed25519PublicKey], *, now: float) -> Ticket:
    """The ticket in a text; Forbidden when no key signed it, or its time is over."""
    try:
        head, _dot, tail = text.partition(".")
        if len(text) > _LONGEST:
            raise ValueError
        body, signature = _decode(head), _decode(tail)
        if not any(_is_signed(key, signature, body) for key in keys):
            raise Forbidden("The ticket is not signed by this control plane.", code="ticket_forged")
        fields = json.loads(body)
        ticket = Ticket(**{**fields, "sources": tuple(fields["sources"]), "relayed": tuple(fields["relayed"])})
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise Forbidden("The ticket cannot be read.", code="ticket_forged") from None
    check_time(ticket, now)
    return ticket


def check_time(ticket: Ticket, now: float) -> None:
    """Forbidden when a ticket's time is over."""
    if now > ticket.expires + _SKEW_SECONDS:
        raise Forbidden("The ticket's time is over.", remedy="Ask for a new one.", code="ticket_expired")


def _is_signed(key: Ed25519PublicKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(signature, _CONTEXT + body)
    except InvalidSignature:
        return False
    return True


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
