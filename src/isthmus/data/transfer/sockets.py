"""TCP and TLS for moving contents: contexts, names in certificates, marks on packets, pacing, congestion control, the kernel's figures.

Constants that Python lacks are of <linux/in6.h>, <linux/tcp.h> and <asm-generic/socket.h>.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isthmus.data.transfer.port import Credentials, Endpoint, Way
from isthmus.domain.errors import Forbidden, Refused

_SO_MAX_PACING_RATE: Final = 47
_TCP_CONGESTION: Final = 13
_IPPROTO_MPTCP: Final = 262
_SOL_MPTCP, _MPTCP_INFO, _MPTCP_FELL_BACK = 284, 1, 1
_MPTCP_HEAD: Final = struct.Struct("8xI")  # struct mptcp_info up to its flags
_IPV6_FLOWLABEL_MGR, _IPV6_FLOWINFO_SEND, _FLOW_LABEL_REFLECT = 32, 33, 4
_IPV6_TCLASS, _IPV6_DSTOPTS = 67, 59
_APN_OPTION: Final = 0x1E  # an experimental type that routers which do not know it skip (RFC 4727)
_UNBOUNDED: Final = 2**64 - 1
_CONNECT_SECONDS: Final = 8.0
_INFO: Final = struct.Struct("8B24I")  # the head of struct tcp_info
_RTT, _TOTAL_RETRANSMITTED = 8 + 15, 8 + 23


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the other end is, by its certificate."""

    site: str
    region: str


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.3 only; the other end must show a certificate of a trusted authority. Refused when the files do not load."""
    return _context(ssl.PROTOCOL_TLS_SERVER, credentials)


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """The same for the end that connects; the site is compared by `peer_of`, host names mean nothing."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def peer_of(connection: ssl.SSLSocket) -> Peer:
    """The site and region in the other end's certificate; Forbidden when it names no site."""
    certificate: Any = connection.getpeercert() or {}
    names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    site = next((name.removeprefix("isthmus:site:") for name in names if name.startswith("isthmus:site:")), "")
    region = next((name.removeprefix("isthmus:region:") for name in names if name.startswith("isthmus:region:")), "")
    if not site:
        raise Forbidden("The certificate of the other end names no site.", code="certificate")
    return Peer(site, region)


def listen(host: str, port: int, *, multipath: bool = False) -> socket.socket:
    """A listening socket for both families where the host is empty; answers carry the flow label of the first packet that came."""
    family = socket.AF_INET if host and ":" not in host else socket.AF_INET6
    made = _make(family, multipath=multipath)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            reflect = struct.pack("=16sIBBHHHI", bytes(16), 0, 0, 0, _FLOW_LABEL_REFLECT, 0, 0, 0)
            with contextlib.suppress(OSError):  # flowlabel_consistency forbids it
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWLABEL_MGR, reflect)
        made.bind((host or "::", port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def reflects_flow_labels() -> bool:
    """Whether the kernel lets what a listening socket accepts answer with the flow label that came."""
    settings = Path("/proc/sys/net/ipv6")
    try:
        reflects = int((settings / "flowlabel_reflect").read_text()) & 1
        consistent = int((settings / "flowlabel_consistency").read_text())
    except (OSError, ValueError):
        return False
    return bool(reflects or not consistent)


def connect(endpoint: Endpoint, way: Way) -> socket.socket:
    """A connection over a way, marked as it says. OSError when nobody answers, Refused when the marks need rights that are not there."""
    target = way.relay or way.remote or endpoint
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    family = found[0][0]
    address: Any = found[0][4]
    made = _make(family, multipath=way.multipath)
    try:
        mark(made, dscp=way.dscp, apn=way.apn)
        if way.local_address:
            made.bind((way.local_address, 0))
        if family == socket.AF_INET6 and way.flow_label:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
            address = (address[0], address[1], way.flow_label, address[3])
        made.settimeout(_CONNECT_SECONDS)
        made.connect(address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        made.close()
        raise
    return made


def mark(connection: socket.socket, *, dscp: int, apn: int) -> None:
    """Mark what is sent from now on; Refused when that takes a right that this process does not have."""
    try:
        if dscp:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
            if connection.family == socket.AF_INET6:
                connection.setsockopt(socket.IPPROTO_IPV6, _IPV6_TCLASS, dscp << 2)
        if apn:
            option = struct.pack("!BBBBI", 0, 0, _APN_OPTION, 4, apn)
            connection.setsockopt(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, option)
    except PermissionError:
        raise Refused(
            "Packets with an APN identifier take the right CAP_NET_RAW.",
            remedy="Mark by DSCP or flow label.",
            code="marks",
        ) from None


def pace(connection: socket.socket, bytes_per_second: float) -> None:
    """Send no faster than this, packets evenly spaced by the kernel; 0: no bound."""
    rate = int(bytes_per_second) or _UNBOUNDED
    connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("=Q", rate))


def control_congestion(connection: socket.socket, wanted: str) -> str:
    """Use an algorithm where the kernel lets this process; returns the one in use."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, wanted.encode())
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, 16).split(b"\0")[0].decode()
    except OSError:
        return ""


def figures(connection: socket.socket) -> tuple[float, int]:
    """The kernel's round trip in seconds, and the segments that it sent again."""
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        fields = _INFO.unpack(told)
    except (OSError, struct.error):
        return 0.0, 0
    return fields[_RTT] / 1e6, fields[_TOTAL_RETRANSMITTED]


def has_multipath() -> bool:
    """Whether the kernel makes MPTCP sockets."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _IPPROTO_MPTCP).close()
    except OSError:
        return False
    return True


def is_multipath(connection: socket.socket) -> bool:
    """Whether a connection speaks MPTCP indeed: both ends have it, and nothing between took it away."""
    try:
        told = connection.getsockopt(_SOL_MPTCP, _MPTCP_INFO, _MPTCP_HEAD.size)
        (flags,) = _MPTCP_HEAD.unpack(told)
    except (OSError, struct.error):
        return False
    return not flags & _MPTCP_FELL_BACK


def _make(family: int, *, multipath: bool) -> socket.socket:
    if multipath:
        with contextlib.suppress(OSError):
            return socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP)
    return socket.socket(family, socket.SOCK_STREAM)


def _context(side: int, credentials: Credentials) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.options |= ssl.OP_NO_COMPRESSION
    try:
        made.load_cert_chain(credentials.certificate, credentials.key)
        made.load_verify_locations(credentials.authority)
    except (OSError, ssl.SSLError) as error:
        raise Refused(
            f"The certificate {credentials.certificate} or what belongs to it does not load: {error}.",
            code="certificate",
        ) from None
    return made
