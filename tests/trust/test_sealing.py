"""Sealed values open with the right key under the right context only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.errors import Corrupt, Refused
from isthmus.trust.sealing import Sealer, secret_context


@given(content=st.binary(max_size=200), context=st.text(max_size=20))
def test_what_is_sealed_opens(content: bytes, context: str) -> None:
    """Any content comes back, and does not show in what is stored."""
    sealer = Sealer(bytes(range(32)))
    sealed = sealer.seal(content, context)
    assert sealer.unseal(sealed, context) == content
    if len(content) > 4:
        assert content not in sealed


@given(place=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_is_noticed(place: int, bit: int) -> None:
    """Every single bit of a sealed value matters."""
    sealer = Sealer(bytes(32))
    sealed = bytearray(sealer.seal(b"a secret of some length", "c"))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(Corrupt):
        sealer.unseal(bytes(sealed), "c")


def test_another_key_or_place_does_not_open(tmp_path: Path) -> None:
    """A value that is copied to another secret's row, or read with another key file, stays shut."""
    sealer = Sealer.open(tmp_path / "key")
    sealed = sealer.seal(b"x", secret_context("p", "a"))
    for other, context in (
        (sealer, secret_context("p", "b")),
        (Sealer.open(tmp_path / "key2"), secret_context("p", "a")),
    ):
        with pytest.raises(Corrupt):
            other.unseal(sealed, context)
    assert Sealer.open(tmp_path / "key").unseal(sealed, secret_context("p", "a")) == b"x"


def test_the_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """It is made with mode 0600; one that others may read, or that holds no key, is refused."""
    path = tmp_path / "key"
    Sealer.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(Refused):
        Sealer.open(path)
    path.chmod(0o600)
    path.write_text("zz")
    with pytest.raises(Corrupt):
        Sealer.open(path)
