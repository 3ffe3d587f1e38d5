"""The two ends of a transfer as processes, for `benchmarks.transfer`: `python -m benchmarks.transfer_ends serve|pull|flood FILE`.

FILE is JSON. `serve` says `ready`; `pull` prints one JSON line for each progress and one for the outcome; `flood` sends datagrams of 1,400 bytes,
evenly paced by the kernel, as fast as it is told.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Content, Credentials, Endpoint, Order, Progress, Source, Way, Window
from isthmus.data.transfer.puller import pull
from isthmus.data.transfer.server import Server
from isthmus.domain.ids import make_id
from isthmus.trust.authority import read_ticket_key

DATAGRAM_BYTES = 1400
_UDP_SEGMENT, _SO_MAX_PACING_RATE = 103, 47
_AT_ONCE = 32


def credentials(directory: Path) -> Credentials:
    """The files of a site in a directory."""
    return Credentials(certificate=directory / "site.pem", key=directory / "site.key", authority=directory / "ca.pem")


def serve(fields: dict[str, Any]) -> None:
    """Until SIGTERM."""
    key = read_ticket_key(Path(fields["ticket_key"]).read_bytes())
    ended = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    with Server(Keep(Path(fields["keep"])), credentials(Path(fields["tls"])), ticket_keys=[key], port=fields["port"]):
        print("ready", flush=True)
        signal.sigwait(ended)


def fetch(fields: dict[str, Any]) -> None:
    """One pull."""
    encoded = Path(fields["contents"]).read_bytes()
    contents = tuple(
        Content(blake3=encoded[at : at + 32].hex(), size_bytes=int.from_bytes(encoded[at + 32 : at + 40], "big"))
        for at in range(0, len(encoded), 40)
    )
    begun = time.time()
    ways = tuple(
        Way(
            flow_label=way.get("flow_label", 0),
            windows=tuple(
                Window(start=begun, end=begun + 3600, bytes_per_second=rate) for rate in way.get("windows", ())
            ),
        )
        for way in fields["ways"]
    )
    endpoint = Endpoint(host=fields["host"], port=fields["port"])
    order = Order(
        id=make_id(1, bytes(10)),
        contents=contents,
        sources=(Source(site="north", endpoint=endpoint, ways=ways),),
        ticket=fields["ticket"],
    )

    def tell(progress: Progress) -> None:
        print(json.dumps({"at": time.time(), **asdict(progress)}), flush=True)

    used = time.process_time()
    outcome = pull(order, Keep(Path(fields["keep"])), credentials(Path(fields["tls"])), on_progress=tell)
    passed = time.time() - begun
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    told = {
        "begun": begun,
        "ended": begun + passed,
        "seconds": passed,
        "peak_mib": peak,
        "cpu_seconds": time.process_time() - used,
    }
    print(json.dumps({"outcome": asdict(outcome), **told}), flush=True)


def flood(fields: dict[str, Any]) -> None:
    """Datagrams for a time."""
    out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    out.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, DATAGRAM_BYTES)
    rate = fields["bytes_per_second"]
    out.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("=Q", int(rate)))
    out.connect((fields["host"], fields["port"]))
    data, begun, sent = bytes(DATAGRAM_BYTES * _AT_ONCE), time.monotonic(), 0
    while (passed := time.monotonic() - begun) < fields["seconds"]:
        if sent > passed * rate:
            time.sleep(0.0005)
            continue
        try:
            sent += out.send(data)
        except OSError:
            time.sleep(0.0005)
    print(json.dumps({"sent": sent}), flush=True)


if __name__ == "__main__":
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    {"serve": serve, "pull": fetch, "flood": flood}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
