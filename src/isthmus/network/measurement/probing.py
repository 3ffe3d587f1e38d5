"""What a site's agent is asked to measure, within bounds of its own, and what it tells: STAMP sessions and packet trains."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from isthmus.domain.errors import Invalid, IsthmusError
from isthmus.network.measurement.figures import PathFigures
from isthmus.network.measurement.packet import PORT
from isthmus.network.measurement.sender import Session, measure
from isthmus.network.measurement.train import send_train

MOST_PROBES = 64
MOST_PACKETS = 100
LEAST_INTERVAL_SECONDS = 0.01
MOST_BYTES = 1500
AT_ONCE = 8
SECONDS_BETWEEN_TRAINS = 30.0
"""To one target; an agent sends a train of a quarter of a megabyte no more often, whoever asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One target: a reflector, by address and port; `dscp` is the class that is measured."""

    name: str
    address: str
    port: int = PORT
    dscp: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """A round of sessions, each of `count` packets; with `train` each target gets a packet train too, for its bandwidth."""

    probes: tuple[Probe, ...]
    count: int = 20
    interval_seconds: float = 0.05
    size_bytes: int = 64
    train: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a session, or a train, said of the path to one target; None where it said nothing. Times in seconds."""

    name: str
    sent: int = 0
    received: int = 0
    lost_forward: int = 0
    lost_backward: int = 0
    two_way: float | None = None
    """Median."""
    two_way_low: float | None = None
    two_way_p99: float | None = None
    forward: float | None = None
    """Median of the way there, as far as the clocks agree."""
    jitter: float | None = None
    clock_error: float | None = None
    """How far `forward` may be wrong; None: a clock is not synchronised."""
    bits_per_second: float | None = None
    """What the train came through with; `at_least` when the path was no narrower than the sender was fast."""
    at_least: bool = False
    error: str = ""


class Prober:
    """Carries rounds out in threads, to the permitted addresses alone; one round at a time."""

    def __init__(self, permitted: Iterable[str]) -> None:
        """`permitted` are the prefixes that may be measured; without any, nothing is."""
        self._permitted = [ipaddress.ip_network(text) for text in permitted]
        self._busy = threading.Lock()
        self._trained: dict[str, float] = {}

    def run(self, asked: Probes) -> tuple[Told, ...]:
        """Measure what is permitted, and tell of nothing else; raises Invalid for a round beyond the bounds, before anything is sent."""
        self._check(asked)
        permitted = [probe for probe in asked.probes if self._is_permitted(probe)]
        with self._busy, ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="probe") as threads:
            found = list(threads.map(lambda probe: _session(probe, asked), permitted))
            if asked.train:  # one after the other: trains must not meet
                heard = {one.name for one in found if one.received}
                found += [_train(probe) for probe in permitted if probe.name in heard and self._may_train(probe)]
            return tuple(found)

    def _check(self, asked: Probes) -> None:
        if len(asked.probes) > MOST_PROBES:
            raise Invalid("probes", f"{len(asked.probes)} are too many.", remedy=f"At most {MOST_PROBES}.")
        if asked.count > MOST_PACKETS or asked.size_bytes > MOST_BYTES:
            raise Invalid("count", "A round is too large.", remedy=f"{MOST_PACKETS} packets of {MOST_BYTES} bytes.")
        if asked.interval_seconds < LEAST_INTERVAL_SECONDS:
            raise Invalid("interval_seconds", "is too short.", remedy=f"At least {LEAST_INTERVAL_SECONDS} s.")

    def _is_permitted(self, probe: Probe) -> bool:
        address = ipaddress.ip_address(probe.address)
        return any(address in network for network in self._permitted)

    def _may_train(self, probe: Probe) -> bool:
        now = time.monotonic()
        if now - self._trained.get(probe.address, -math.inf) < SECONDS_BETWEEN_TRAINS:
            return False
        self._trained[probe.address] = now
        return True


def _session(probe: Probe, asked: Probes) -> Told:
    try:
        found = measure(
            Session(
                target=probe.address,
                port=probe.port,
                count=asked.count,
                interval_seconds=asked.interval_seconds,
                size_bytes=asked.size_bytes,
                dscp=probe.dscp,
                wait_seconds=1.0,
            )
        )
    except (IsthmusError, OSError) as error:
        return Told(name=probe.name, sent=asked.count, lost_forward=asked.count, error=str(error)[:200])
    return told(probe.name, found)


def told(name: str, found: PathFigures) -> Told:
    """A session's figures as they travel."""
    return Told(
        name=name,
        sent=found.sent,
        received=found.received,
        lost_forward=found.lost_forward,
        lost_backward=found.lost_backward,
        two_way=found.two_way.p50 if found.two_way else None,
        two_way_low=found.two_way.least if found.two_way else None,
        two_way_p99=found.two_way.p99 if found.two_way else None,
        forward=found.forward.p50 if found.forward else None,
        jitter=found.forward_variation_seconds,
        clock_error=found.clock_error_seconds if math.isfinite(found.clock_error_seconds) else None,
    )


def _train(probe: Probe) -> Told:
    try:
        found = send_train(probe.address, probe.port)
    except (IsthmusError, OSError) as error:
        return Told(name=probe.name, error=str(error)[:200])
    if found is None:
        return Told(name=probe.name)
    return Told(name=probe.name, bits_per_second=found.bits_per_second, at_least=found.at_least)
