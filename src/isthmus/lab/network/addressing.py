"""Addresses and shortest paths of an emulated network, from the order of its nodes and links alone.

A router has the locator fc00:N::/32 with its own address fc00:N::ffff (RFC 8986 names: SIDs are taken from the locator);
a site has fd10:N::1 and 10.64+N.1; a link has fd00:L::/64. N and L count from 1.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

from isthmus.lab.network.topology import Topology

_HOP_SECONDS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One entry of a node's routing table: the prefix, the neighbour and the neighbour's address on the link."""

    prefix: str
    neighbour: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Addressing:
    """The addresses of one topology."""

    topology: Topology

    def number(self, node: str) -> int:
        """The number of a node, from 1."""
        return self.topology.nodes.index(node) + 1

    def locator(self, router: str) -> str:
        """The prefix from which the segment identifiers of a router are taken."""
        return f"fc00:{self.number(router):x}::/32"

    def router_address(self, router: str) -> str:
        """The router's own address, in its locator."""
        return f"fc00:{self.number(router):x}::ffff"

    def site_address(self, site: str) -> str:
        """The IPv6 address of a site."""
        return f"fd10:{self.number(site):x}::1"

    def site_prefix(self, site: str) -> str:
        """The IPv6 prefix of a site."""
        return f"fd10:{self.number(site):x}::/64"

    def site_address4(self, site: str) -> str:
        """The IPv4 address of a site."""
        number = self.number(site)
        return f"10.{64 + number // 256}.{number % 256}.1"

    def site_prefix4(self, site: str) -> str:
        """The IPv4 prefix of a site."""
        return self.site_address4(site).removesuffix(".1") + ".0/24"

    def link_address(self, node: str, neighbour: str) -> str:
        """The address of a node on the link to a neighbour."""
        for number, link in enumerate(self.topology.links, 1):
            if set(link.ends) == {node, neighbour}:
                return f"fd00:{number:x}::{link.ends.index(node) + 1}"
        raise KeyError((node, neighbour))

    def routes(self, node: str, down: Collection[str] = ()) -> list[Route]:
        """The routes of a node to every site and every router, by least delay; links named in `down` do not exist.

        Sites carry no traffic of others. Equal paths are told apart by the order of the nodes. (Dijkstra 1959)
        """
        first = self._first_hops(node, down)
        found: list[Route] = []
        for target in self.topology.nodes:
            if target == node or target not in first:
                continue
            hop = first[target]
            gateway = self.link_address(hop, node)
            prefixes = (
                [self.locator(target)]
                if target in self.topology.routers
                else [self.site_prefix(target), self.site_prefix4(target)]
            )
            found += [Route(prefix=prefix, neighbour=hop, gateway=gateway) for prefix in prefixes]
        return found

    def _first_hops(self, source: str, down: Collection[str]) -> dict[str, str]:
        neighbours: dict[str, list[tuple[str, float]]] = {node: [] for node in self.topology.nodes}
        for link in self.topology.links:
            if link.name not in down:
                for end in link.ends:
                    neighbours[end].append((link.other(end), link.delay_seconds + _HOP_SECONDS))
        routers = frozenset(self.topology.routers)
        order = {node: index for index, node in enumerate(self.topology.nodes)}
        first: dict[str, str] = {}
        waiting: list[tuple[float, int, str, str]] = [(0.0, order[source], source, "")]
        while waiting:
            cost, _order, node, hop = heapq.heappop(waiting)
            if node in first:
                continue
            first[node] = hop
            if node != source and node not in routers:
                continue
            for neighbour, more in neighbours[node]:
                if neighbour not in first:
                    heapq.heappush(waiting, (cost + more, order[neighbour], neighbour, hop or neighbour))
        return first
