"""A STAMP reflector (RFC 8762, section 4.3): stateful, bounded, for the networks that it is told.

It never sends more bytes than it got, answers nobody outside of its networks, and no packet from a reflector's port, so that two reflectors
cannot be made to talk to each other for ever.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from isthmus.domain.errors import Conflict, Corrupt, Invalid
from isthmus.network.measurement.clock import error_estimate
from isthmus.network.measurement.packet import (
    PORT,
    ErrorEstimate,
    FollowUp,
    ReflectorPacket,
    SenderPacket,
    reflected,
)
from isthmus.network.measurement.stamped import Received, StampedSocket

MOST_SESSIONS = 4096
_AT_ONCE = 64
_BUFFER_BYTES = 4 << 20
"""For a packet train, as far as the system lets us."""
_CLOCK_SECONDS = 10.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class _Session:
    sequence: int = 0
    follow_up: FollowUp | None = None


class Reflector:
    """Listens at a port; answers while `serve` runs."""

    def __init__(self, allowed: Iterable[str], *, address: str = "::", port: int = PORT) -> None:
        """Take the port; `allowed` are the prefixes that are answered.

        Raises Conflict when the port cannot be had, Invalid for what is no prefix.
        """
        self._allowed = [_prefix(text) for text in allowed]
        self._port = port
        self._stamped = StampedSocket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._stamped.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        try:
            self._stamped.socket.bind((address, port))
        except OSError as error:
            self._stamped.close()
            raise Conflict(f"Port {port} cannot be had: {error}.", remedy="Choose another port.") from None
        self._sessions: OrderedDict[tuple[str, int, int], _Session] = OrderedDict()
        self._leaving: dict[int, tuple[_Session, int]] = {}
        self._error: ErrorEstimate = error_estimate()
        self._error_at = time.monotonic()
        self.refused = 0
        """Packets that were not answered: from elsewhere, too short, or from a reflector."""

    def serve(self, ended: threading.Event, wait_seconds: float = 0.2) -> None:
        """Answer until the event is set; it is looked at this often."""
        poll = select.poll()
        poll.register(self._stamped.socket, select.POLLIN | select.POLLERR)
        while not ended.is_set():
            poll.poll(wait_seconds * 1000)
            self._take_sending_times()
            for _ in range(_AT_ONCE):
                received = self._stamped.receive()
                if received is None:
                    break
                self._answer(received)

    def close(self) -> None:
        """Give the port back."""
        self._stamped.close()

    def _answer(self, received: Received) -> None:
        if not self._is_allowed(received.address):
            self.refused += 1
            return
        try:
            packet = SenderPacket.decode(received.data, received.time_ns)
        except Corrupt:
            self.refused += 1
            return
        # The packet before has left long ago, as a rule: its time goes with this answer.
        self._take_sending_times()
        session = self._session((*received.address, packet.session))
        answer = ReflectorPacket(
            sequence=session.sequence,
            sent_ns=time.time_ns(),
            error=self._clock(),
            session=packet.session,
            received_ns=received.time_ns,
            sender_sequence=packet.sequence,
            sender_sent_ns=packet.sent_ns,
            sender_error=packet.error,
            sender_ttl=received.hop_limit,
            tlvs=reflected(packet.tlvs, session.follow_up),
        ).encode()
        number = self._stamped.send(answer[: len(received.data)], received.address)
        if number is not None:
            self._leaving[number] = (session, session.sequence)
            session.sequence = (session.sequence + 1) & 0xFFFF_FFFF
        if len(self._leaving) > 2 * MOST_SESSIONS:  # the kernel does not tell: no times by it
            self._leaving.clear()

    def _is_allowed(self, address: tuple[str, int]) -> bool:
        host = ipaddress.ip_address(address[0].partition("%")[0])
        plain = host.ipv4_mapped or host if isinstance(host, ipaddress.IPv6Address) else host
        return address[1] not in (self._port, PORT) and any(plain in network for network in self._allowed)

    def _session(self, key: tuple[str, int, int]) -> _Session:
        session = self._sessions.setdefault(key, _Session())
        self._sessions.move_to_end(key)
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _take_sending_times(self) -> None:
        for number, sent_ns in self._stamped.sending_times().items():
            found = self._leaving.pop(number, None)
            if found is not None:
                session, sequence = found
                session.follow_up = FollowUp(sequence=sequence, sent_ns=sent_ns)

    def _clock(self) -> ErrorEstimate:
        if time.monotonic() - self._error_at > _CLOCK_SECONDS:
            self._error, self._error_at = error_estimate(), time.monotonic()
        return self._error


@contextmanager
def reflecting(
    allowed: Iterable[str], *, address: str = "::", port: int = PORT, wait_seconds: float = 0.2
) -> Iterator[Reflector]:
    """A reflector that answers, in a thread of its own, for the length of the context."""
    reflector, ended = Reflector(allowed, address=address, port=port), threading.Event()
    thread = threading.Thread(target=reflector.serve, args=(ended, wait_seconds), name="reflector", daemon=True)
    thread.start()
    try:
        yield reflector
    finally:
        ended.set()
        thread.join()
        reflector.close()


def _prefix(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise Invalid("allowed", f"{text!r} is not a prefix.", remedy="Such as fd10::/16, without host bits.") from None
