"""A STAMP sender (RFC 8762, section 4.2): sends at an even pace, takes the answers, and tells what they say of the path."""

from __future__ import annotations

import ipaddress
import math
import secrets
import select
import socket
import time
from dataclasses import dataclass, field

from isthmus.domain.errors import Corrupt, Invalid
from isthmus.network.measurement.clock import error_estimate
from isthmus.network.measurement.figures import PathFigures, Sample, figures
from isthmus.network.measurement.packet import (
    BASE_BYTES,
    PORT,
    ErrorEstimate,
    ReflectorPacket,
    SenderPacket,
    Tlv,
    ask_follow_up,
    padding,
)
from isthmus.network.measurement.stamped import StampedSocket

MOST_PACKETS = 1_000_000
LEAST_INTERVAL_SECONDS = 0.0001
LONGEST_PACKET = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is sent, and to whom: `size_bytes` is the UDP payload, `dscp` the class that the path is measured for."""

    target: str
    port: int = PORT
    count: int = 100
    interval_seconds: float = 0.01
    wait_seconds: float = 1.0
    """How long after the last packet answers are waited for."""
    dscp: int = 0
    size_bytes: int = 64

    def __post_init__(self) -> None:
        """Raise Invalid for what would be no measurement, or a flood."""
        try:
            ipaddress.ip_address(self.target)
        except ValueError:
            raise Invalid("target", f"{self.target!r} is not an address.") from None
        if not 1 <= self.count <= MOST_PACKETS:
            raise Invalid("count", f"{self.count} packets are not 1 to {MOST_PACKETS}.")
        if self.interval_seconds < LEAST_INTERVAL_SECONDS:
            raise Invalid("interval_seconds", f"{self.interval_seconds} s is less than {LEAST_INTERVAL_SECONDS} s.")
        if not BASE_BYTES <= self.size_bytes <= LONGEST_PACKET:
            raise Invalid("size_bytes", f"{self.size_bytes} bytes are not {BASE_BYTES} to {LONGEST_PACKET}.")
        if not 0 <= self.dscp <= 63:
            raise Invalid("dscp", f"{self.dscp} is not 0 to 63.")


@dataclass(slots=True)
class _Answer:
    packet: ReflectorPacket
    received_ns: int
    exact: bool


@dataclass(slots=True)
class _Progress:
    sent_ns: dict[int, int] = field(default_factory=dict)
    left_ns: dict[int, int] = field(default_factory=dict)
    sequence_of: dict[int, int] = field(default_factory=dict)
    answers: dict[int, _Answer] = field(default_factory=dict)
    reflected_ns: dict[int, int] = field(default_factory=dict)


def measure(session: Session) -> PathFigures:
    """Carry a session out, in this thread and its network namespace; takes count * interval, and the wait at the end."""
    family = socket.AF_INET6 if ":" in session.target else socket.AF_INET
    stamped = StampedSocket(family)
    try:
        if family == socket.AF_INET6:
            stamped.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, session.dscp << 2)
        else:
            stamped.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, session.dscp << 2)
        stamped.socket.connect((session.target, session.port))
        return _carry_out(session, stamped)
    finally:
        stamped.close()


def _carry_out(session: Session, stamped: StampedSocket) -> PathFigures:
    progress, error, identifier = _Progress(), error_estimate(), secrets.randbelow(0xFFFF) + 1
    tlvs = _extensions(session.size_bytes)
    poll = select.poll()
    poll.register(stamped.socket, select.POLLIN | select.POLLERR)
    begun, sequence = time.monotonic(), 0
    end = begun + (session.count - 1) * session.interval_seconds + session.wait_seconds
    while (now := time.monotonic()) < end:
        if sequence < session.count and now >= begun + sequence * session.interval_seconds:
            packet = SenderPacket(sequence=sequence, sent_ns=time.time_ns(), error=error, session=identifier, tlvs=tlvs)
            progress.sent_ns[sequence] = packet.sent_ns
            number = stamped.send(packet.encode())
            if number is not None:
                progress.sequence_of[number] = sequence
            sequence += 1
            continue
        if sequence == session.count and len(progress.answers) == session.count:
            break
        due = begun + sequence * session.interval_seconds if sequence < session.count else end
        poll.poll(max(0.0, due - now) * 1000)
        _take(stamped, identifier, progress)
    _take(stamped, identifier, progress)
    return _told(session, progress, error)


def _extensions(size_bytes: int) -> tuple[Tlv, ...]:
    asked = (ask_follow_up(),) if size_bytes >= BASE_BYTES + 20 else ()
    return (*asked, *padding(size_bytes, asked))


def _take(stamped: StampedSocket, identifier: int, progress: _Progress) -> None:
    for number, left_ns in stamped.sending_times().items():
        sequence = progress.sequence_of.pop(number, None)
        if sequence is not None:
            progress.left_ns[sequence] = left_ns
    while (received := stamped.receive()) is not None:
        try:
            packet = ReflectorPacket.decode(received.data, received.time_ns)
        except Corrupt:
            continue
        if packet.session != identifier or packet.sender_sequence not in progress.sent_ns:
            continue
        # A second copy of an answer says nothing new.
        progress.answers.setdefault(packet.sender_sequence, _Answer(packet, received.time_ns, received.exact))
        follow_up = packet.follow_up
        if follow_up is not None:
            progress.reflected_ns[follow_up.sequence] = follow_up.sent_ns


def _told(session: Session, progress: _Progress, error: ErrorEstimate) -> PathFigures:
    samples, clock_error = [], 0.0
    for sequence, answer in progress.answers.items():
        packet = answer.packet
        reflected_ns = progress.reflected_ns.get(packet.sequence)
        left_ns = progress.left_ns.get(sequence)
        samples.append(
            Sample(
                sequence=sequence,
                reflector_sequence=packet.sequence,
                sent_ns=left_ns or progress.sent_ns[sequence],
                reflected_in_ns=packet.received_ns,
                reflected_out_ns=reflected_ns or packet.sent_ns,
                received_ns=answer.received_ns,
                exact=answer.exact and left_ns is not None and reflected_ns is not None,
            )
        )
        both = error.synchronised and packet.error.synchronised
        clock_error = max(clock_error, error.error_seconds + packet.error.error_seconds if both else math.inf)
    return figures(session.count, samples, clock_error)
