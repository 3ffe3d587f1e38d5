"""Where the service listens: addresses, or a socket that it was given open (`fd:3`), as a supervisor hands it over."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from isthmus.domain.errors import Invalid, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a port to listen at, or the descriptor of a socket that is bound already."""

    host: str = ""
    port: int = 0
    descriptor: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def written(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of `HOST:PORT`, `[IPV6]:PORT` or `fd:NUMBER`; Invalid otherwise."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Invalid("--listen", f"{text!r} is no address.", remedy="Write it like 127.0.0.1:8800.")
    if host != "fd":
        return Address(host=host, port=int(port))
    try:
        given = socket.socket(fileno=int(port))
    except OSError:
        raise Invalid(
            "--listen", f"there is no socket at descriptor {port}.", remedy="Pass one to the process, bound to a port."
        ) from None
    try:
        name = given.getsockname()
        if given.type != socket.SOCK_STREAM or not isinstance(name, tuple) or not name[1]:
            raise Invalid("--listen", f"descriptor {port} is not a bound TCP socket.", remedy="Bind it to a port.")
        return Address(host=name[0], port=name[1], descriptor=int(port))
    finally:
        given.detach()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_listener(address: Address) -> socket.socket:
    """A bound socket, not blocking; Refused when it cannot be had."""
    if address.descriptor is not None:
        given = socket.socket(fileno=address.descriptor)
        given.setblocking(False)
        return given
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that say they are TCP; without it an answer in two writes waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise Refused(
            f"Cannot listen at {address.written}: {error.strerror}.", remedy="Choose another --listen."
        ) from None
    listener.setblocking(False)
    return listener
