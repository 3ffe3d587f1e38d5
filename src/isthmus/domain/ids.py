"""Identifiers: 26 characters, sortable by time (the ULID layout), safe in file names and in batch job names.

Source: the ULID specification, Crockford base 32.
"""

from __future__ import annotations

import re
from typing import NewType

TaskId = NewType("TaskId", str)
AttemptKey = NewType("AttemptKey", str)
SiteName = NewType("SiteName", str)
Sha256 = NewType("Sha256", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def make_id(milliseconds: int, entropy: bytes) -> str:
    """Build an identifier from a time in milliseconds since 1970 and 10 bytes of entropy."""
    if len(entropy) != 10:
        raise ValueError(f"entropy has {len(entropy)} bytes, 10 are needed")
    number = ((milliseconds & ((1 << 48) - 1)) << 80) | int.from_bytes(entropy, "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether the text has the form of an identifier."""
    return _ID.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 in lower-case hexadecimal."""
    return _SHA256.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether the text may name a site, a pool, a project or a user."""
    return _NAME.fullmatch(text) is not None
