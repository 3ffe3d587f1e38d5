"""Whether paths carry packets at all: a steady trickle of STAMP packets over each, and a word when answers stop or come again.

For links that are up and carry nothing. Several in a row must be missing, or be there, before the word changes.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isthmus.domain.errors import Corrupt
from isthmus.network.measurement.clock import error_estimate
from isthmus.network.measurement.packet import PORT, ReflectorPacket, SenderPacket
from isthmus.network.measurement.stamped import StampedSocket

_IPV6_FLOWINFO_SEND = 33


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPath:
    """A path by the marks that its packets carry, to a reflector at its end. `flow_label` is of IPv6 only."""

    name: str
    target: str
    port: int = PORT
    dscp: int = 0
    flow_label: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often, and how many in a row: the defaults find a dead path after 0.1 s and trust it again after 1 s."""

    interval_seconds: float = 0.02
    missing_count: int = 5
    answered_count: int = 50


@dataclass(slots=True)
class _Probe:
    path: ProbedPath
    stamped: StampedSocket
    sequence: int = 0
    last_answered: int = -1
    answered_in_a_row: int = 0
    alive: bool = True


class Liveness:
    """Probes paths while it is entered as a context; the sockets are of the network namespace of the thread that makes it."""

    def __init__(
        self, paths: Sequence[ProbedPath], told: Callable[[str, bool], None], pace: Pace | None = None
    ) -> None:
        """`told` hears the name of a path and whether it is alive, whenever this changes; at first all are taken for alive."""
        self._pace = pace or Pace()
        self._told = told
        self._probes = [_Probe(path, _open(path)) for path in paths]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def _run(self) -> None:
        poll = select.poll()
        by_descriptor = {probe.stamped.socket.fileno(): probe for probe in self._probes}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN | select.POLLERR)
        error, due = error_estimate(), time.monotonic()
        while not self._ended.is_set():
            if (now := time.monotonic()) >= due:
                for probe in self._probes:
                    self._judge(probe)
                    packet = SenderPacket(sequence=probe.sequence, sent_ns=time.time_ns(), error=error)
                    probe.stamped.send(packet.encode())
                    probe.sequence += 1
                # After a pause of this process nothing is sent twice at once: that would look like missing answers.
                due = max(due + self._pace.interval_seconds, now + self._pace.interval_seconds / 2)
            for descriptor, _events in poll.poll(max(0.0, due - time.monotonic()) * 1000):
                self._take(by_descriptor[descriptor])

    def _take(self, probe: _Probe) -> None:
        probe.stamped.sending_times()
        while (received := probe.stamped.receive()) is not None:
            try:
                sequence = ReflectorPacket.decode(received.data, received.time_ns).sender_sequence
            except Corrupt:
                continue
            if probe.last_answered < sequence < probe.sequence:
                gap = sequence > probe.last_answered + 1
                probe.answered_in_a_row = 1 if gap else probe.answered_in_a_row + 1
                probe.last_answered = sequence

    def _judge(self, probe: _Probe) -> None:
        missing = probe.sequence - 1 - probe.last_answered
        if probe.alive and missing >= self._pace.missing_count:
            probe.alive, probe.answered_in_a_row = False, 0
            self._told(probe.path.name, False)
        elif (
            not probe.alive
            and missing < self._pace.missing_count
            and probe.answered_in_a_row >= self._pace.answered_count
        ):
            probe.alive = True
            self._told(probe.path.name, True)

    def __enter__(self) -> Liveness:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()
        for probe in self._probes:
            probe.stamped.close()


def _open(path: ProbedPath) -> StampedSocket:
    family = socket.AF_INET6 if ":" in path.target else socket.AF_INET
    stamped = StampedSocket(family)
    if family == socket.AF_INET6:
        stamped.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, path.dscp << 2)
        stamped.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
        stamped.socket.connect((path.target, path.port, path.flow_label, 0))
    else:
        stamped.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, path.dscp << 2)
        stamped.socket.connect((path.target, path.port))
    return stamped
