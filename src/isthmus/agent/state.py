"""The agent's state directory: one process at a time, the agent's token (0600), the name of its site, its journal."""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import orjson

from isthmus.domain.errors import Conflict, Corrupt, Refused
from isthmus.domain.ids import is_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which site the agent serves, where it enrolled, and the SHA-256 of the one-time token that it enrolled with."""

    site: str
    url: str
    enrolment: str


class StateDirectory:
    """A directory of mode 0700 that one agent holds locked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_mode & 0o077:
            raise Refused(f"Others may look into the state directory {path}.", remedy=f"Run chmod 700 {path}.")
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(
                f"Another agent uses the state directory {path}.", remedy="Stop it, or give another directory."
            ) from None

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self._path / "journal.sqlite"

    @property
    def spool(self) -> Path:
        """A directory for content on its way."""
        spool = self._path / "spool"
        spool.mkdir(exist_ok=True, mode=0o700)
        return spool

    @property
    def data(self) -> Path:
        """A directory for the key and the certificate of the site's data."""
        data = self._path / "data"
        data.mkdir(exist_ok=True, mode=0o700)
        return data

    def identity(self) -> Identity | None:
        """Who the agent is; None before it enrolled."""
        try:
            document = orjson.loads((self._path / "identity.json").read_bytes())
            identity = Identity(site=document["site"], url=document["url"], enrolment=document["enrolment"])
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise Corrupt(
                "The agent's identity cannot be read.", remedy="Enrol anew in an empty state directory."
            ) from None
        if not isinstance(identity.site, str) or not is_name(identity.site):
            raise Corrupt("The agent's identity names no site.", remedy="Enrol anew in an empty state directory.")
        return identity

    def token(self) -> str:
        """The agent's own token, after it enrolled."""
        try:
            return (self._path / "token").read_text().strip()
        except FileNotFoundError:
            raise Corrupt("The agent's token is lost.", remedy="Enrol anew with a fresh one-time token.") from None

    def proposed_token(self, enrolment: str) -> str:
        """A token to enrol with, the same for the same enrolment until `keep`, so that a lost answer costs nothing."""
        path = self._path / f"token.{enrolment[:16]}"
        try:
            token = path.read_text().strip()
        except FileNotFoundError:
            token = ""
        if not token:
            token = "ist_" + secrets.token_urlsafe(32)
            self._write(path.name, token.encode() + b"\n")
        return token

    def keep(self, identity: Identity) -> None:
        """Be this from now on, with the token that was proposed."""
        proposed = self._path / f"token.{identity.enrolment[:16]}"
        self._write("token", proposed.read_bytes())
        document = {"site": identity.site, "url": identity.url, "enrolment": identity.enrolment}
        self._write("identity.json", orjson.dumps(document))
        proposed.unlink()

    def close(self) -> None:
        """Let another agent have it."""
        os.close(self._lock)

    def _write(self, name: str, content: bytes) -> None:
        new = self._path / f"{name}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path / name)
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
