"""Paced, numbered datagrams between two nodes of an emulated network, each end a process of its own.

`python -m benchmarks.traffic send HOST PORT PACKETS_PER_S SECONDS BYTES [DSCP [BURST]]` prints {"sent", "seconds"};
`python -m benchmarks.traffic receive HOST PORT` prints `ready`, and after two silent seconds {"received", "lost_between", "reordered",
"holes", "by_tenth"}: arrivals by the kernel's clock; holes are where numbers are left out, as [number before, number after, seconds before,
seconds after]; by_tenth counts arrivals in each tenth of a second.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.lab.network.showing import enter_command

_SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _UDP_SEGMENT = 33, 35, 103
_SOL_UDP = 17
_SILENT_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 30.0


def send(host: str, port: int, per_second: float, seconds: float, size: int, dscp: int = 0, burst: int = 1) -> None:
    """Send; a burst goes to the kernel as one call."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        if family == socket.AF_INET6:
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        else:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        if burst > 1:
            out.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
        out.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)  # SO_SNDBUFFORCE
        out.connect((host, port))
        packets = bytearray(size * burst)
        begun, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - begun) < seconds:
            due = int(now * per_second)
            while sent < due:
                for number in range(burst):
                    struct.pack_into("!Q", packets, number * size, sent + number)
                try:
                    out.send(packets)
                except ConnectionRefusedError:
                    out.send(packets)
                sent += burst
            time.sleep(0.0003)
    print(json.dumps({"sent": sent, "seconds": now}))


def receive(host: str, port: int) -> None:
    """Receive until nothing comes any more."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as came:
        came.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 128 << 20)
        came.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        came.bind((host, port))
        came.settimeout(_LONGEST_WAIT_SECONDS)
        print("ready", flush=True)
        seen: set[int] = set()
        last_number, last_time, reordered = -1, 0.0, 0
        holes: list[tuple[int, int, float, float]] = []
        by_tenth: Counter[int] = Counter()
        while True:
            try:
                data, ancillary, _flags, _address = came.recvmsg(2048, 64)
            except TimeoutError:
                break
            came.settimeout(_SILENT_SECONDS)
            (number,) = struct.unpack_from("!Q", data)
            whole, parts = struct.unpack_from("qq", ancillary[0][2])
            at = whole + parts / 1e9
            if last_time and number > last_number + 1:
                holes.append((last_number, number, last_time, at))
            reordered += number < last_number
            last_number, last_time = max(last_number, number), at
            by_tenth[int(at * 10)] += 1
            seen.add(number)
    missing = last_number + 1 - len(seen) if seen else 0
    print(
        json.dumps(
            {
                "received": len(seen),
                "lost_between": missing,
                "reordered": reordered,
                "holes": holes,
                "by_tenth": by_tenth,
            }
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One stream between two nodes of a network."""

    network: str
    source: str
    target: str
    address: str
    port: int
    per_second: float
    seconds: float
    size: int
    dscp: int = 0
    burst: int = 1


class Running:
    """A flow under way."""

    def __init__(self, flow: Flow) -> None:
        """Start the receiver, and when it listens the sender."""
        self.flow = flow
        self._receiver = _start(flow.network, flow.target, ["receive", flow.address, str(flow.port)])
        assert self._receiver.stdout is not None
        self._receiver.stdout.readline()
        numbers = (flow.per_second, flow.seconds, flow.size, flow.dscp, flow.burst)
        words = ["send", flow.address, str(flow.port), *(str(number) for number in numbers)]
        self._sender = _start(flow.network, flow.source, words)

    def result(self) -> dict[str, Any]:
        """Wait for both ends: what the receiver saw, `sent`, `lost`, and the seconds of sending."""
        sent = json.loads(self._sender.communicate(timeout=self.flow.seconds + 60)[0])
        seen: dict[str, Any] = json.loads(self._receiver.communicate(timeout=90)[0])
        return seen | sent | {"lost": sent["sent"] - seen["received"]}


def _start(network: str, node: str, words: list[str]) -> subprocess.Popen[str]:
    argv = enter_command(network, node, [sys.executable, "-m", "benchmarks.traffic", *words])
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1])


if __name__ == "__main__":
    if sys.argv[1] == "send":
        pace, lasting = float(sys.argv[4]), float(sys.argv[5])
        send(sys.argv[2], int(sys.argv[3]), pace, lasting, *(int(word) for word in sys.argv[6:]))
    else:
        receive(sys.argv[2], int(sys.argv[3]))
