"""Paths that share links tell the delay of those links that they determine; a train tells the pace of the narrow link."""

from __future__ import annotations

import pytest

from isthmus.network.measurement.attribution import Sum, attribute
from isthmus.network.measurement.train import PACKETS, dispersion


def sums(*rows: tuple[str, float]) -> list[Sum]:
    return [Sum(links=tuple(links.split()), value=value, error=1e-4) for links, value in rows]


def test_a_link_is_told_where_the_paths_determine_it() -> None:
    """Three sites around a router: three pairs determine all three links."""
    found = attribute(sums(("a b", 3.0), ("b c", 5.0), ("a c", 4.0)))
    assert {name: value for name, (value, _error) in found.items()} == pytest.approx({"a": 1.0, "b": 2.0, "c": 3.0})
    assert all(error == pytest.approx(1e-4 * 3**0.5 / 2, rel=0.01) for _value, error in found.values())


def test_links_that_only_occur_together_are_not_told_apart() -> None:
    """A path through two links says nothing of each; a session to the router between them does."""
    assert attribute(sums(("a m b", 9.0))) == {}
    found = attribute(sums(("a m b", 9.0), ("a m", 8.0)))
    assert {name: value for name, (value, _error) in found.items()} == pytest.approx({"b": 1.0})
    assert attribute([]) == {}


def test_noise_makes_no_negative_delay() -> None:
    """The router answers later than the site behind it: the link in between has no delay, not a negative one."""
    assert attribute(sums(("a b", 1.0), ("a", 1.1)))["b"][0] == 0.0


def test_a_train_tells_the_pace_of_the_narrow_link() -> None:
    """1,420 bytes each 113.6 us are 100 Mbit/s; the head that a bucket lets through does not count, nor do losses and their pauses."""
    times = {place: (place if place < 30 else 30 + (place - 30) * 113_600) for place in range(PACKETS)}
    found = dispersion(times, 1420, 20e-6)
    assert found is not None
    assert found.bits_per_second == pytest.approx(100e6, rel=0.001)
    assert not found.at_least
    holes = {place: at for place, at in times.items() if place % 20}
    with_holes = dispersion(holes, 1420, 20e-6)
    assert with_holes is not None
    assert with_holes.bits_per_second == pytest.approx(100e6, rel=0.001)
    fast = dispersion({place: place * 20_000 for place in range(PACKETS)}, 1420, 20e-6)
    assert fast is not None
    assert fast.at_least
    assert dispersion({1: 5, 2: 7}, 1420, 20e-6) is None
