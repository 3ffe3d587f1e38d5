"""A packet train: STAMP packets back to back, and the pace at which they reach the reflector, which is that of the narrowest link.

With other traffic on the path the figure lies between what is free and the capacity (Dovrolis et al., "Packet-dispersion techniques",
2004), so its error is large; it says more than nothing, for half a megabyte.
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

PACKETS = 384
PAYLOAD_BYTES = 1372
"""UDP payload: 1,420 bytes with IPv6 and UDP, which fit with the headers of segment routing into 1,500."""
WAIT_SECONDS = 1.0
_LEAST_ANSWERS = 32
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
        for sequence in range(PACKETS):
            packet = SenderPacket(sequence=sequence, sent_ns=time.time_ns(), error=error, session=session, tlvs=tlvs)
            stamped.send(packet.encode())
            if sequence % 16 == 15:
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
    """The rate of the later two thirds of a train, when buckets on the way are empty: `arrived` is the time in ns by sequence number."""
    times = sorted(time_ns for sequence, time_ns in arrived.items() if sequence >= PACKETS // 3)
    if len(times) < _LEAST_ANSWERS:
        return None
    spread = (times[-1] - times[0]) * 1e-9
    every = max(spread / (len(times) - 1), 1e-9)
    return Dispersion(bits_per_second=packet_bytes * 8 / every, at_least=every < 1.1 * sent_every_seconds)


def _take(stamped: StampedSocket, session: int, arrived: dict[int, int]) -> None:
    stamped.sending_times()
    while (received := stamped.receive()) is not None:
        try:
            packet = ReflectorPacket.decode(received.data, received.time_ns)
        except Corrupt:
            continue
        if packet.session == session:
            arrived.setdefault(packet.sender_sequence, packet.received_ns)
