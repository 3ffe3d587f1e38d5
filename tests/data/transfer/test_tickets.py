"""Tickets say who may read what, and cannot be made by anybody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isthmus.data.transfer.port import Content
from isthmus.data.transfer.tickets import Ticket, digest_of, sign, verify
from isthmus.domain.errors import Forbidden

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CONTENTS = [Content(blake3=blake3(bytes([n])).hexdigest(), size_bytes=n) for n in range(3)]
TICKET = Ticket(
    order="01" + "a" * 24,
    reader="south",
    sources=("north",),
    contents=digest_of(CONTENTS),
    expires=1000.0,
    relayed=("r:1",),
)


def test_a_ticket_comes_back_as_it_was_signed() -> None:
    """Also when the key that signed it is an older one that is still known."""
    fresh = Ed25519PrivateKey.generate().public_key()
    assert verify(sign(TICKET, KEY), [fresh, KEY.public_key()], now=999.0) == TICKET


def test_a_ticket_of_another_key_is_refused() -> None:
    """A site cannot write tickets for itself."""
    with pytest.raises(Forbidden, match="not signed"):
        verify(sign(TICKET, Ed25519PrivateKey.generate()), [KEY.public_key()], now=0.0)


def test_a_changed_ticket_is_refused() -> None:
    """The signature covers all of it."""
    other = sign(replace(TICKET, reader="east"), Ed25519PrivateKey.generate())
    mixed = f"{other.partition('.')[0]}.{sign(TICKET, KEY).partition('.')[2]}"
    with pytest.raises(Forbidden, match="not signed"):
        verify(mixed, [KEY.public_key()], now=0.0)


@pytest.mark.parametrize("text", ["", ".", "a.b", "é.é", "x" * 9000])
def test_garbage_is_refused(text: str) -> None:
    """Whatever a stranger sends ends as a refusal."""
    with pytest.raises(Forbidden):
        verify(text, [KEY.public_key()], now=0.0)


def test_a_ticket_ends() -> None:
    """Clocks of sites may differ by half a minute."""
    text = sign(TICKET, KEY)
    verify(text, [KEY.public_key()], now=1029.0)
    with pytest.raises(Forbidden) as refused:
        verify(text, [KEY.public_key()], now=1031.0)
    assert refused.value.code == "ticket_expired"


def test_the_digest_tells_contents_their_sizes_and_their_sequence_apart() -> None:
    """A list that differs in anything is another one."""
    other = [*CONTENTS[:2], replace(CONTENTS[2], size_bytes=9)]
    assert len({digest_of(CONTENTS), digest_of(CONTENTS[::-1]), digest_of(CONTENTS[:2]), digest_of(other)}) == 4
