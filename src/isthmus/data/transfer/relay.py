"""A relay at a site between two others, for networks without programmable routers: passes bytes on, and sees none of them in clear.

The puller shows its ticket in front of the TLS connection that goes through; the relay connects only to addresses that the ticket names,
passes on no faster than the ticket lets the sender send, and no more than `Limits` say.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from isthmus.data.transfer import sockets, tickets, wire
from isthmus.data.transfer.listening import Guest, Listener
from isthmus.data.transfer.port import MAX_STREAMS, Endpoint, Way
from isthmus.data.transfer.sessions import Sessions
from isthmus.data.transfer.tickets import Ticket
from isthmus.domain.errors import Busy, Forbidden, IsthmusError, Unavailable

_log = logging.getLogger(__name__)
_GREETING_SECONDS: Final = 10.0
_PIECE_BYTES: Final = 256 * 1024
_ACCOUNTS: Final = 1000
"""Orders of which what they had is remembered before those whose tickets are over are forgotten."""
_SKEW_SECONDS: Final = 60.0


def ask(connection: socket.socket, ticket: str, target: Endpoint) -> None:
    """Have the relay at the other end of a fresh connection pass it on. Forbidden, Unavailable, wire.Closed."""
    wire.send_json(connection, wire.Kind.HELLO, {"ticket": ticket, "host": target.host, "port": target.port})
    kind, length = wire.receive_head(connection)
    told = wire.read_json(wire.receive_body(connection, length, 4096))
    if kind is not wire.Kind.READY:
        error = Unavailable if told.get("retry") else Forbidden
        raise error(f"The relay says: {str(told.get('cause'))[:500]}", code=str(told.get("code", "relay"))[:64])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one relay. `connections` in all and of one order; `order_bytes`: what is passed on of one order, both directions, while this relay
    runs, None: no bound; `idle_seconds`: how long no byte may pass in either direction before a connection ends."""

    connections: int = 512
    order_connections: int = MAX_STREAMS
    order_bytes: int | None = None
    idle_seconds: float = 120.0


@dataclass(slots=True)
class _Account:
    """What one order has had. `expires`: its ticket, seconds since 1970."""

    connections: int = 0
    passed: int = 0
    expires: float = 0.0


class Relay:
    """Listens from `start` to `stop`, or as a context; `port` 0: a free one. Unavailable when the address cannot be had."""

    def __init__(
        self,
        *,
        ticket_keys: Sequence[Ed25519PublicKey],
        host: str = "",
        port: int = 0,
        limits: Limits | None = None,
        congestion_control: str = "bbr",
    ) -> None:
        self._keys = tuple(ticket_keys)
        self._limits = limits or Limits()
        self._congestion_control = congestion_control
        self._listener = Listener("relay", self._serve, host=host, port=port, most_connections=self._limits.connections)
        self._sessions = Sessions()
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._passed = 0

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.port

    @property
    def passed_bytes(self) -> int:
        """What it passed on so far, both directions."""
        return self._passed

    @property
    def connections(self) -> int:
        """How many connections it passes on now."""
        with self._lock:
            return sum(account.connections for account in self._accounts.values())

    def start(self) -> Self:
        """Listen."""
        self._listener.start()
        return self

    def stop(self) -> None:
        """End all connections."""
        self._listener.stop()

    def _serve(self, guest: Guest) -> None:
        near = guest.connection
        try:
            near.settimeout(_GREETING_SECONDS)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Before anything is sent: an algorithm that starts later starts slowly.
            sockets.control_congestion(near, self._congestion_control)
            ticket, target = self._asked(near)
            with self._counted(ticket) as account:
                try:
                    far = sockets.connect(target, Way())
                except OSError as error:
                    where = f"{target.host}:{target.port}"
                    raise Unavailable(f"{where} does not answer: {error.strerror or error}.") from None
                guest.brings(far)
                guest.greeted()
                for end in (near, far):
                    end.settimeout(self._limits.idle_seconds)
                self._sessions.pace(ticket, near, 0.0)
                try:
                    wire.send_json(near, wire.Kind.READY, {})
                    _Passing(self, account, near, far).run()
                finally:
                    self._sessions.leave(ticket, near)
        except OSError:
            return
        except IsthmusError as error:
            if not isinstance(error, wire.Closed):
                with contextlib.suppress(OSError):
                    told = {"cause": error.cause, "code": error.code, "retry": isinstance(error, Busy | Unavailable)}
                    wire.send_json(near, wire.Kind.NO, told)
        except Exception:
            _log.exception("a relayed connection ended by a defect")

    def _asked(self, near: socket.socket) -> tuple[Ticket, Endpoint]:
        kind, length = wire.receive_head(near)
        asked = wire.read_json(wire.receive_body(near, length, 16384))
        if kind is not wire.Kind.HELLO:
            raise wire.Closed("The other end does not greet.")
        ticket = tickets.verify(str(asked.get("ticket")), self._keys, now=time.time())
        host, port = str(asked.get("host")), asked.get("port")
        if not isinstance(port, int) or f"{host}:{port}" not in ticket.relayed:
            raise Forbidden(f"The ticket does not name {host}:{port} for relays.", code="ticket_of_another")
        return ticket, Endpoint(host=host, port=port)

    @contextlib.contextmanager
    def _counted(self, ticket: Ticket) -> Iterator[_Account]:
        with self._lock:
            if len(self._accounts) >= _ACCOUNTS:
                now = time.time()
                ended = [order for order, one in self._accounts.items() if not one.connections and one.expires < now]
                for order in ended:
                    del self._accounts[order]
            account = self._accounts.setdefault(ticket.order, _Account())
            account.expires = max(account.expires, ticket.expires + _SKEW_SECONDS)
            most = self._limits.order_connections
            if account.connections >= most:
                raise Busy(f"The relay passes on {most} connections of an order, and no more.")
            if self._is_spent(account):
                raise Forbidden("The relay has passed on all that one order may have.", code="relay_spent")
            account.connections += 1
        try:
            yield account
        finally:
            with self._lock:
                account.connections -= 1

    def count(self, account: _Account, passed: int) -> bool:
        """Note what was passed on of an order; whether it may have more."""
        with self._lock:
            self._passed += passed
            account.passed += passed
            return not self._is_spent(account)

    @property
    def idle_seconds(self) -> float:
        """How long a connection may be silent."""
        return self._limits.idle_seconds

    def _is_spent(self, account: _Account) -> bool:
        return self._limits.order_bytes is not None and account.passed >= self._limits.order_bytes

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Passing:
    """Two connections whose bytes are passed on to one another."""

    def __init__(self, relay: Relay, account: _Account, near: socket.socket, far: socket.socket) -> None:
        self._relay, self._account = relay, account
        self._near, self._far = near, far
        self._last = time.monotonic()

    def run(self) -> None:
        """Until one end closes, nothing passes for too long, or the order has had its bytes."""
        back = threading.Thread(target=self._pass_on, args=(self._far, self._near), name="relay goes back", daemon=True)
        back.start()
        self._pass_on(self._near, self._far)
        back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with contextlib.suppress(OSError):
            while got := self._receive(source, buffer):
                target.sendall(buffer[:got])
                self._last = time.monotonic()
                if not self._relay.count(self._account, got):
                    with contextlib.suppress(OSError):
                        source.shutdown(socket.SHUT_RDWR)
                    break
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _receive(self, source: socket.socket, buffer: memoryview) -> int:
        """Wait on while the other direction is not silent."""
        while True:
            try:
                return source.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() - self._last >= self._relay.idle_seconds:
                    raise
