"""A router behind its privileged daemon, as the port wants it: JSON lines over the daemon's local socket."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isthmus.domain import errors
from isthmus.network.control import desired
from isthmus.network.control.desired import DesiredState, WeightedPath
from isthmus.network.control.port import Changes, from_json

_KINDS: dict[str, type[errors.IsthmusError]] = {
    kind.code: kind for kind in (errors.Refused, errors.Forbidden, errors.NotFound, errors.Corrupt, errors.Unavailable)
}


class RouterClient:
    """A connection for each request, so that a daemon that starts anew is found again."""

    def __init__(self, path: Path, *, timeout_seconds: float = 10.0) -> None:
        """Talk to the daemon at this socket; nothing is sent yet."""
        self._path = path
        self._timeout_seconds = timeout_seconds

    def apply(self, state: DesiredState) -> Changes:
        """Make the router do this, and nothing else of ours."""
        return from_json(self.ask({"do": "apply", "state": desired.as_json(state)}))

    def set_paths(self, policy: str, paths: tuple[WeightedPath, ...]) -> Changes:
        """Give one policy other paths, at once and without loss."""
        raw = [asdict(path) for path in paths]
        return from_json(self.ask({"do": "set_paths", "policy": policy, "paths": raw}))

    def reconcile(self) -> Changes:
        """Compare what is with what was asked for last, and correct it."""
        return from_json(self.ask({"do": "reconcile"}))

    def state(self) -> DesiredState:
        """What was asked for last."""
        return desired.read(self.ask({"do": "state"})["state"])

    def links(self) -> Mapping[str, bool]:
        """The interfaces, and whether each is up and has a carrier."""
        found: Mapping[str, bool] = self.ask({"do": "links"})["links"]
        return found

    def watch(self) -> LinkWatch:
        """Follow the interfaces; raises Unavailable when the daemon does not answer."""
        connection = self._connect()
        try:
            connection.sendall(b'{"do": "watch"}\n')
        except OSError as error:
            connection.close()
            raise self._silent(error) from None
        connection.settimeout(None)
        return LinkWatch(connection)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request as the daemon takes it, and its answer; raises what the daemon refuses with."""
        try:
            with self._connect() as connection, connection.makefile("rb") as lines:
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = lines.readline()
        except OSError as error:
            raise self._silent(error) from None
        if not line:
            raise errors.Unavailable(f"The router at {self._path} ended the connection.")
        return _checked(line)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_seconds)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise self._silent(error) from None
        return connection

    def _silent(self, error: OSError) -> errors.Unavailable:
        return errors.Unavailable(
            f"The router at {self._path} does not answer: {error}.", remedy="Start its isthmus.network.control.daemon."
        )


class LinkWatch:
    """The interfaces of a router as its daemon tells them."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connection on which a watch was asked for."""
        self._connection = connection

    def __iter__(self) -> Iterator[Mapping[str, bool]]:
        """Interface -> whether it is up; ends when the daemon ends or the watch is closed."""
        with self._connection.makefile("rb") as lines:
            try:
                for line in lines:
                    yield _checked(line)["links"]
            except OSError:
                return

    def close(self) -> None:
        """End the iteration, from any thread."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _checked(line: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(line)
    error = answer.get("error")
    if error is None:
        return answer
    if "field" in error:
        raise errors.Invalid(error["field"], error["cause"], remedy=error["remedy"])
    kind = _KINDS.get(error["code"], errors.IsthmusError)
    raise kind(error["cause"], remedy=error["remedy"], code=error["code"])
