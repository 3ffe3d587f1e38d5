"""A packet train: STAMP packets back to back, and the pace at which they reach the reflector, which is that of the narrowest link.

With other traffic on the path the figure lies between what is free and the capacity (Dovrolis et al., "Packet-dispersion techniques",
2004), so its error is large; it says more than nothing, for a quarter of a megabyte.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.domain.errors import Corrupt
from isthmus.network.measurement.clock import error_estimate
from isthmus.network.measurement.packet import PORT, ReflectorPacket, SenderPacket, padding
from isthmus.network.measurement.stamped import StampedSocket

PACKETS = 192
PAYLOAD_BYTES = 1372
"""UDP payload: 1,420 bytes with IPv6 and UDP, which fit with the headers of segment routing into 1,500."""
WAIT_SECONDS = 1.0
_RUN, _LEAST_RUNS = 8, 12
_UDP_SEGMENT, _AT_ONCE = 103, 32
_HEADS = {socket.AF_INET: 28, socket.AF_INET6: 48}
_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispersion:
    """The rate of IP packets at the far end; `at_least` when they came as fast as they were sent."""

    bits_per_second: float
    at_least: bool


def send_train(target: str, port: int = PORT) -> Dispersion | None:
    """Send one train to a reflector; None when too few answers came."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    stamped, session, error = StampedSocket(family), secrets.randbelow(0xFFFF) + 1, error_estimate()
    try:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            stamped.socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        stamped.socket.connect((target, port))
        tlvs = padding(PAYLOAD_BYTES, ())
        arrived: dict[int, int] = {}
        begun = time.monotonic_ns()
        at_once = _together(stamped)
        for first in range(0, PACKETS, at_once):
            stamped.send(
                b"".join(
                    SenderPacket(
                        sequence=sequence, sent_ns=time.time_ns(), error=error, session=session, tlvs=tlvs
                    ).encode()
                    for sequence in range(first, first + at_once)
                )
            )
            _take(stamped, session, arrived)
        spent = time.monotonic_ns() - begun
        end = time.monotonic() + WAIT_SECONDS
        while len(arrived) < PACKETS and time.monotonic() < end:
            time.sleep(0.002)
            _take(stamped, session, arrived)
        return dispersion(arrived, PAYLOAD_BYTES + _HEADS[family], spent * 1e-9 / PACKETS)
    finally:
        stamped.close()


def dispersion(arrived: Mapping[int, int], packet_bytes: int, sent_every_seconds: float) -> Dispersion | None:
    """The rate of the later two thirds of a train, when buckets on the way are empty: `arrived` is the time in ns by sequence number.

    The median over runs of eight packets that came without a gap in their numbers: a loss is no pause, and a machine that stops for a moment
    spoils few of them.
    """
    runs = sorted(
        time_ns - arrived[sequence - _RUN]
        for sequence, time_ns in arrived.items()
        if sequence - _RUN > PACKETS // 3 and all(sequence - back in arrived for back in range(1, _RUN + 1))
    )
    if len(runs) < _LEAST_RUNS:
        return None
    every = max(runs[len(runs) // 2] / _RUN * 1e-9, 1e-9)
    return Dispersion(bits_per_second=packet_bytes * 8 / every, at_least=every < 1.1 * sent_every_seconds)


def _together(stamped: StampedSocket) -> int:
    """How many packets the kernel takes in one call and cuts apart (UDP_SEGMENT), so that a busy machine sends them in one go."""
    try:
        stamped.socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, PAYLOAD_BYTES)
    except OSError:
        return 1
    return _AT_ONCE


def _take(stamped: StampedSocket, session: int, arrived: dict[int, int]) -> None:
    stamped.sending_times()
    while (received := stamped.receive()) is not None:
        try:
            packet = ReflectorPacket.decode(received.data, received.time_ns)
        except Corrupt:
            continue
        if packet.session == session:
            arrived.setdefault(packet.sender_sequence, packet.received_ns)
