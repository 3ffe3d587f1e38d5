"""Free TCP ports on loopback, whether something listens on one, and what this machine's own name stands for."""

from __future__ import annotations

import random
import socket
import threading

from isthmus.lab.errors import LabError

HOST = "127.0.0.1"
# Below the range from which the kernel takes the source ports of outgoing connections.
FIRST, LAST = 12_000, 32_000

_given: set[int] = set()
_lock = threading.Lock()
_choice = random.SystemRandom()


def free_port() -> int:
    """Return a port on loopback that nothing uses and that this process has not given out before."""
    with _lock:
        for _ in range(1000):
            port = _choice.randrange(FIRST, LAST)
            if port not in _given and _can_bind(port):
                _given.add(port)
                return port
    raise LabError(f"no free port between {FIRST} and {LAST}")


def free_ports(count: int) -> list[int]:
    """Return that many different free ports."""
    return [free_port() for _ in range(count)]


def listening(port: int, host: str = HOST) -> bool:
    """Tell whether a connection to the port is accepted."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def short_host_name() -> str:
    """Return this machine's name without its domain."""
    return socket.gethostname().split(".")[0]


def own_address() -> str:
    """Return the address of this machine's own name, to which some daemons bind and no other.

    It is a loopback address on most machines and the container's own in many containers. Raises LabError when the
    name has no address or one of another machine.
    """
    name = short_host_name()
    remedy = f"Put the line '127.0.0.1 {name}' into /etc/hosts"
    try:
        address = socket.gethostbyname(name)
    except OSError:
        raise LabError(f"this machine's own name, {name}, has no address", remedy) from None
    if not _can_bind(0, address):
        raise LabError(f"this machine's own name, {name}, stands for another machine, {address}", remedy)
    return address


def _can_bind(port: int, address: str = HOST) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
