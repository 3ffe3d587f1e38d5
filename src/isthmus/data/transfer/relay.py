"""A relay at a site between two others, for networks without programmable routers: passes bytes on, and sees none of them in clear.

The puller shows its ticket in front of the TLS connection that goes through; the relay connects only to addresses that the ticket names.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from isthmus.data.transfer import sockets, tickets, wire
from isthmus.data.transfer.port import Endpoint, Way
from isthmus.domain.errors import Forbidden, IsthmusError, Unavailable

_log = logging.getLogger(__name__)
_GREETING_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 120.0
_PIECE_BYTES: Final = 256 * 1024


def ask(connection: socket.socket, ticket: str, target: Endpoint) -> None:
    """Have the relay at the other end of a fresh connection pass it on. Forbidden, Unavailable, wire.Closed."""
    wire.send_json(connection, wire.Kind.HELLO, {"ticket": ticket, "host": target.host, "port": target.port})
    kind, length = wire.receive_head(connection)
    told = wire.read_json(wire.receive_body(connection, length, 4096))
    if kind is not wire.Kind.READY:
        error = Unavailable if told.get("retry") else Forbidden
        raise error(f"The relay says: {str(told.get('cause'))[:500]}", code=str(told.get("code", "relay"))[:64])


class Relay:
    """Listens from `start` to `stop`, or as a context; `port` 0: a free one. Unavailable when the address cannot be had."""

    def __init__(
        self, *, ticket_keys: Sequence[Ed25519PublicKey], host: str = "", port: int = 0, most_connections: int = 512
    ) -> None:
        self._keys = tuple(ticket_keys)
        self._host, self._wanted_port = host, port
        self._most = most_connections
        self._listening: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._ending = False
        self.passed_bytes = 0

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listening is not None
        number: int = self._listening.getsockname()[1]
        return number

    def start(self) -> Self:
        """Listen."""
        try:
            self._listening = sockets.listen(self._host, self._wanted_port)
        except OSError as error:
            raise Unavailable(f"The relay cannot listen on {self._host or '*'}:{self._wanted_port}: {error}.") from None
        threading.Thread(target=self._accept, args=(self._listening,), name="relay-accept", daemon=True).start()
        return self

    def stop(self) -> None:
        """End all connections."""
        self._ending = True
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _address = listening.accept()
            except OSError:
                if self._ending:
                    return
                time.sleep(0.05)
                continue
            with self._lock:
                full = len(self._open) >= 2 * self._most
            if full:
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="relay-serve", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.ExitStack() as stack:
            try:
                near.settimeout(_GREETING_SECONDS)
                far = stack.enter_context(self._connect(near))
                for end in (near, far):
                    end.settimeout(_IDLE_SECONDS)
                    sockets.control_congestion(end, "bbr")
                with self._lock:
                    self._open |= {near, far}
                wire.send_json(near, wire.Kind.READY, {})
                back = threading.Thread(target=self._pass_on, args=(far, near), name="relay-back", daemon=True)
                back.start()
                self._pass_on(near, far)
                back.join()
            except OSError:
                return
            except IsthmusError as error:
                if not isinstance(error, wire.Closed):
                    with contextlib.suppress(OSError):
                        told = {"cause": error.cause, "code": error.code, "retry": isinstance(error, Unavailable)}
                        wire.send_json(near, wire.Kind.NO, told)
            except Exception:
                _log.exception("a relayed connection ended by a defect")
            finally:
                stack.close()
                with self._lock:
                    self._open -= {
                        connection for connection in self._open if connection is near or connection.fileno() < 0
                    }

    def _connect(self, near: socket.socket) -> socket.socket:
        kind, length = wire.receive_head(near)
        asked = wire.read_json(wire.receive_body(near, length, 16384))
        if kind is not wire.Kind.HELLO:
            raise wire.Closed("The other end does not greet.")
        ticket = tickets.verify(str(asked.get("ticket")), self._keys, now=time.time())
        host, port = str(asked.get("host")), asked.get("port")
        if not isinstance(port, int) or f"{host}:{port}" not in ticket.relayed:
            raise Forbidden(f"The ticket does not name {host}:{port} for relays.", code="ticket_of_another")
        try:
            return sockets.connect(Endpoint(host=host, port=port), Way())
        except OSError as error:
            raise Unavailable(f"{host}:{port} does not answer: {error.strerror or error}.") from None

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with contextlib.suppress(OSError):
            while got := source.recv_into(buffer):
                target.sendall(buffer[:got])
                self.passed_bytes += got
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
