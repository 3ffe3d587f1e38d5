"""A scenario's sites, tariffs and links as the brain of the service is told of them."""

from __future__ import annotations

from decimal import Decimal

from isthmus.domain.roads import Roads, Route, Way
from isthmus.twin.federation.surroundings import Surroundings, Tariff
from isthmus.twin.scenario.model import Scenario, Site
from isthmus.twin.scenario.routes import least_latency_paths


def surroundings(scenario: Scenario) -> Surroundings:
    """Names, prices and carbon by the hour, and a route of least latency for each pair; both directions share a link."""
    sites, links = scenario.sites, scenario.links
    names = tuple(site.name for site in sites)
    tariffs = tuple(_tariff(site) for site in sites)
    if not links:
        return Surroundings(names=names, tariffs=tariffs)
    paths, latency = least_latency_paths(sites, links)
    ways = {_name(number): Way(bytes_per_second=link.bytes_per_second) for number, link in enumerate(links)}
    routes = {
        (names[a], names[b]): (
            Route(
                links=tuple(_name(int(number)) for number in paths[a, b] if number >= 0),
                latency_seconds=float(latency[a, b]),
            ),
        )
        for a in range(len(sites))
        for b in range(len(sites))
        if a != b
    }
    return Surroundings(names=names, tariffs=tariffs, roads=Roads(links=ways, routes=routes))


def _name(number: int) -> str:
    return f"link-{number}"


def _tariff(site: Site) -> Tariff:
    kilowatts = site.watts_per_processor * site.pue / 1000
    return Tariff(
        price_per_cpu_hour=tuple(Decimal(f"{kilowatts * value:.9f}") for value in site.tariff.tolist()),
        watts_per_cpu=Decimal(f"{site.watts_per_processor:.6f}"),
        pue=Decimal(f"{site.pue:.6f}"),
        carbon_grams_per_kwh=tuple(Decimal(f"{value:.3f}") for value in site.intensity.tolist()),
    )
