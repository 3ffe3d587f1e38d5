"""A sender and a reflector over real links: delays, losses and refusals are those of the links."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from isthmus.domain.errors import Conflict, Invalid
from isthmus.lab import namespaces
from isthmus.lab.network.conditions import Brownout
from isthmus.lab.network.network import EmulatedNetwork
from isthmus.lab.network.reading import read_text
from isthmus.lab.network.weather import Weather
from isthmus.network.measurement.figures import PathFigures
from isthmus.network.measurement.packet import ErrorEstimate, SenderPacket
from isthmus.network.measurement.reflector import Reflector, reflecting
from isthmus.network.measurement.sender import Session, measure

pytestmark = pytest.mark.real
NAME = f"m{os.getpid()}"
WAN = f"""
name: {NAME}
routers: [r1]
sites: {{north: , south: }}
links:
  - {{ends: [north, r1]}}
  - {{name: wan, ends: [r1, south], delay: 5 ms}}
"""
SOUTH = {"ipv6": "fd10:3::1", "ipv4": "10.64.3.1"}


@pytest.fixture(scope="module")
def network(emulation: None) -> Iterator[Weather]:
    """Two sites, 5 ms apart."""
    with EmulatedNetwork(read_text(WAN)):
        yield Weather(NAME)


@contextmanager
def reflecting_at_south(*allowed: str, port: int = 862) -> Iterator[Reflector]:
    """A reflector there; its thread was born in the namespace and stays there."""
    with namespaces.inside(f"isthmus-{NAME}-south"):
        running = reflecting(allowed, port=port, wait_seconds=0.02)
        reflector = running.__enter__()
    try:
        yield reflector
    finally:
        running.__exit__(None, None, None)


def measured(session: Session) -> PathFigures:
    """From north."""
    with namespaces.inside(f"isthmus-{NAME}-north"):
        return measure(session)


@pytest.mark.parametrize("family", ["ipv6", "ipv4"])
@pytest.mark.parametrize("size", [44, 1200])
def test_a_path_is_as_long_as_its_links(network: Weather, family: str, size: int) -> None:
    """Both families and sizes: nothing is lost, no delay is below 5 ms a way; times are the kernels' where they were asked for."""
    with reflecting_at_south("fd10::/16", "10.64.0.0/10"):
        found = measured(Session(target=SOUTH[family], count=50, interval_seconds=0.002, size_bytes=size, dscp=46))
    assert (found.sent, found.received, found.lost_forward, found.lost_backward) == (50, 50, 0, 0)
    assert found.two_way is not None
    assert found.forward is not None
    assert found.backward is not None
    assert found.two_way.least >= 0.010
    assert found.forward.least >= 0.005
    assert found.backward.least >= 0.005
    assert (found.exact >= 40) if size > 44 else (found.exact == 0)


def test_losses_are_counted_by_direction(network: Weather) -> None:
    """A fifth is lost each way: each count within five standard deviations."""
    network.brown_out("wan", Brownout(loss=0.2))
    with reflecting_at_south("fd10::/16"):
        found = measured(Session(target=SOUTH["ipv6"], count=1000, interval_seconds=0.001, wait_seconds=0.3))
    network.heal()
    assert found.lost_forward + found.lost_backward + found.received == 1000
    assert abs(found.lost_forward - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5 + 10
    assert abs(found.lost_backward - 160) < 5 * (1000 * 0.16 * 0.84) ** 0.5 + 10


def test_nobody_is_answered_who_is_not_named(network: Weather) -> None:
    """Another prefix, nonsense, and another reflector's port get nothing, and are counted."""
    with reflecting_at_south("10.64.0.0/10", port=8620) as reflector:
        session = Session(target=SOUTH["ipv6"], port=8620, count=3, interval_seconds=0.001, wait_seconds=0.1)
        assert measured(session).received == 0
        assert reflector.refused == 3
        with namespaces.inside(f"isthmus-{NAME}-north"):
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.settimeout(0.2)
            stranger.bind(("", 862))
            whole = SenderPacket(sequence=0, sent_ns=0, error=ErrorEstimate(synchronised=False, error_seconds=1))
            for data in (bytes(20), whole.encode()):
                stranger.sendto(data, (SOUTH["ipv4"], 8620))
                with pytest.raises(TimeoutError):
                    stranger.recv(2000)
        assert reflector.refused == 5


def test_an_answer_is_as_long_as_the_question_and_the_port_is_one_reflectors(network: Weather) -> None:
    """No amplification, whatever the extensions say; a second reflector is told that the port is taken."""
    with reflecting_at_south("fd10::/16", port=8621):
        with namespaces.inside(f"isthmus-{NAME}-south"), pytest.raises(Conflict):
            Reflector(["::/0"], port=8621)
        with pytest.raises(Invalid, match="prefix"):
            Reflector(["everybody"], port=8622)
        with namespaces.inside(f"isthmus-{NAME}-north"):
            sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with sender:
            sender.settimeout(2)
            whole = SenderPacket(sequence=0, sent_ns=0, error=ErrorEstimate(synchronised=False, error_seconds=1))
            for extra in (b"", b"\x80\x07\xff\xff", b"\x80\x07\x00\x10" + bytes(16), b"\x01\x02\x03"):
                data = whole.encode() + extra
                sender.sendto(data, (SOUTH["ipv6"], 8621))
                assert len(sender.recv(2000)) <= len(data)
