"""Latency circles: which sites, and how far on the ground, are within 1, 5 and 20 ms of each site."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isthmus.twin.scenario.model import MICROSECONDS_PER_KM, Link, Scenario, Site
from isthmus.twin.scenario.routes import least_latency_paths

LIMITS_MS = (1.0, 5.0, 20.0)
EARTH_KM = 6371.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """One site and limit of round-trip time: fibre in km that it allows, by kind; the sites within reach over the links."""

    site: str
    limit_ms: float
    solid_km: float
    hollow_km: float
    within: tuple[str, ...]
    within_hollow: tuple[str, ...]


def latency_circles(scenario: Scenario) -> tuple[Circle, ...]:
    """The circles of each site; propagation in fibre alone, there and back, no queueing and no equipment.

    `within` takes the links as they are; `within_hollow` as if all their fibre was hollow.
    """
    count = len(scenario.sites)
    as_is = hollow = np.zeros((count, count))
    if scenario.links:
        as_is = least_latency_paths(scenario.sites, scenario.links)[1]
        hollow = least_latency_paths(scenario.sites, tuple(_hollow(link) for link in scenario.links))[1]
    found = []
    for number, site in enumerate(scenario.sites):
        for limit in LIMITS_MS:
            found.append(
                Circle(
                    site=site.name,
                    limit_ms=limit,
                    solid_km=limit * 1000 / 2 / MICROSECONDS_PER_KM["solid"],
                    hollow_km=limit * 1000 / 2 / MICROSECONDS_PER_KM["hollow"],
                    within=_within(scenario.sites, number, as_is, limit),
                    within_hollow=_within(scenario.sites, number, hollow, limit),
                )
            )
    return tuple(found)


def _hollow(link: Link) -> Link:
    """The link with hollow fibre, where its length is known."""
    return replace(link, latency_seconds=link.km * MICROSECONDS_PER_KM["hollow"] / 1e6) if link.km else link


def _within(sites: tuple[Site, ...], number: int, latency: NDArray[np.float64], limit_ms: float) -> tuple[str, ...]:
    near = np.flatnonzero(2000 * latency[number] <= limit_ms)
    return tuple(sites[other].name for other in near if other != number and (latency[number] > 0).any())


def great_circle_km(a: Site, b: Site) -> float:
    """The distance on a sphere (haversine)."""
    lat_a, lat_b = np.radians(a.latitude), np.radians(b.latitude)
    east = np.radians(b.longitude - a.longitude)
    chord = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin(east / 2) ** 2
    return float(2 * EARTH_KM * np.arcsin(np.sqrt(chord)))
