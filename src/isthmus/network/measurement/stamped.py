"""A datagram socket whose packets carry the kernel's time of sending and of receiving (Linux, SO_TIMESTAMPING)."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

# <linux/net_tstamp.h>, <asm/socket.h>, <linux/in6.h>
_SO_TIMESTAMPING = 37
_FLAGS = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 7) | (1 << 11)  # TX and RX by software, reported, with ids, time alone
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ORIGIN_TIMESTAMPING = 4
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ANCILLARY_BYTES, _LONGEST_PACKET = 512, 9216


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A datagram: from whom, when it came, with which hop limit; `exact` when the time is the kernel's."""

    data: bytes
    address: tuple[str, int]
    time_ns: int
    exact: bool
    hop_limit: int


class StampedSocket:
    """Not blocking; IPv6 sockets that are not connected take IPv4 as well."""

    def __init__(self, family: socket.AddressFamily) -> None:
        """Open the socket in this thread's network namespace."""
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _FLAGS)
        if family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        self.socket.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        self._sent = 0

    def send(self, data: bytes, address: tuple[str, int] | None = None) -> int | None:
        """Send; return the id under which `sending_times` will tell when it left, or None when it could not be sent."""
        try:
            if address is None:
                self.socket.send(data)
            else:
                self.socket.sendto(data, address)
        except OSError:
            return None  # no buffer, no route: a lost packet
        self._sent += 1
        return self._sent - 1

    def receive(self) -> Received | None:
        """The next datagram, or None when there is none now."""
        while True:
            try:
                data, ancillary, _flags, address = self.socket.recvmsg(_LONGEST_PACKET, _ANCILLARY_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                continue  # an ICMP error about an earlier packet
            stamp, hop_limit = None, 0
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                    stamp = _time(value)
                elif (level, kind) in _HOP_LIMITS:
                    (hop_limit,) = struct.unpack_from("i", value)
            return Received(
                data=data,
                address=(address[0], address[1]),
                time_ns=stamp or time.time_ns(),
                exact=stamp is not None,
                hop_limit=hop_limit & 0xFF,
            )

    def sending_times(self) -> dict[int, int]:
        """When datagrams left, by their ids, as far as the kernel has told since the last call; nanoseconds."""
        found: dict[int, int] = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                _data, ancillary, _flags, _address = self.socket.recvmsg(
                    _LONGEST_PACKET, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE
                )
                stamp, number = None, None
                for level, kind, value in ancillary:
                    if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                        stamp = _time(value)
                    elif (level, kind) in _ERRORS and len(value) >= _EXTENDED_ERROR.size:
                        _errno, origin, _type, _code, _pad, _info, data = _EXTENDED_ERROR.unpack_from(value)
                        number = data if origin == _ORIGIN_TIMESTAMPING else None
                if stamp and number is not None:
                    found[number] = stamp
        return found

    def close(self) -> None:
        """Close it."""
        self.socket.close()


_IP_RECVTTL, _IP_TTL, _IPV6_HOPLIMIT = 12, 2, 52
_HOP_LIMITS = {(socket.IPPROTO_IP, _IP_TTL), (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT)}
_ERRORS = {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}


def _time(value: bytes) -> int | None:
    seconds, nanoseconds = struct.unpack_from("qq", value)
    return int(seconds * 1_000_000_000 + nanoseconds) or None
