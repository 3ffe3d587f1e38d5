"""Seals secrets with the key file of the service, so that the store alone gives nothing away.

AES-256-GCM with a fresh nonce for each sealing. The context (`secret:PROJECT/NAME`, `call:ID`) is authenticated with the
content: a sealed value that is copied to another row does not open there.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.domain.errors import Corrupt, Refused

_VERSION = b"\x01"
_NONCE_BYTES = 12


class Sealer:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise Corrupt("The key file does not hold a key of 32 bytes.", remedy="Restore it from your backup.")
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, path: Path) -> Sealer:
        """The sealer of a key file; makes the file (mode 0600) when there is none, refuses one that others may read."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(AESGCM.generate_key(256).hex().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        if path.stat().st_mode & 0o077:
            raise Refused(f"Others may read the key file {path.name}.", remedy="Run chmod 600 on it.")
        try:
            key = bytes.fromhex(path.read_text().strip())
        except ValueError:
            raise Corrupt("The key file does not hold a key.", remedy="Restore it from your backup.") from None
        return cls(key)

    def seal(self, content: bytes, context: str) -> bytes:
        """The content, unreadable without the key and of no use under another context."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, content, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """What was sealed; Corrupt when key or context differ or the bytes were changed."""
        if sealed[:1] == _VERSION:
            nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
            try:
                return self._cipher.decrypt(nonce, body, context.encode())
            except (InvalidTag, ValueError):
                pass
        raise Corrupt("A sealed value does not open.", remedy="Is the key file the one that this store was made with?")


def secret_context(project: str, name: str) -> str:
    """The context that a project's secret is sealed under."""
    return f"secret:{project}/{name}"
