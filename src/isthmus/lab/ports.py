"""Free TCP ports on loopback, and whether something listens on one."""

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


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
