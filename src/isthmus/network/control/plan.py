"""From routers, sites and the paths between them to the desired state of every router. Pure.

Every router gets the SIDs `locator::1` (End) and `::d6` (End.DT6), a router with sites for each site's IPv4 one End.DX4 SID,
`::d4:N`. A way is a list of routers to pass; the underlay leads from one to the next.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isthmus.network.control.desired import (
    NO_MARKS,
    Behaviour,
    DesiredState,
    LocalSegment,
    Match,
    Policy,
    Repair,
    SlicedInterface,
    WeightedPath,
)

_END, _DT6, _DX4 = 0x1, 0xD6, 0xD4_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A router with the prefix of its SIDs."""

    name: str
    locator: str

    def sid(self, function: int) -> str:
        """The SID of a function, in the low bits."""
        return str(ipaddress.IPv6Network(self.locator)[function])


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A site behind a router: its prefixes, and the IPv4 address that its packets are handed to."""

    site: str
    router: str
    prefixes: tuple[str, ...]
    neighbour4: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The routers to pass, and the share of flows in proportion to other ways."""

    via: tuple[str, ...] = ()
    weight: int = 1


_STRAIGHT = (Way(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Packets that enter at a site for another, selected by marks, go these ways."""

    name: str
    source: str
    target: str
    ways: tuple[Way, ...] = _STRAIGHT
    match: Match = NO_MARKS
    dscp: int | None = None


class Fabric:
    """The routers and sites of one network."""

    def __init__(self, routers: Iterable[Router], attachments: Iterable[Attachment]) -> None:
        """Know them by name."""
        self._routers = {router.name: router for router in routers}
        self._attachments = {item.site: item for item in attachments}

    def path(self, target_site: str, way: Way, prefix: str) -> WeightedPath:
        """The path to one prefix of a site; raises KeyError for an unknown router or site."""
        target = self._attachments[target_site]
        egress = self._routers[target.router]
        last = egress.sid(_DT6) if ":" in prefix else egress.sid(_DX4 + self._number(target))
        segments = (*(self._routers[name].sid(_END) for name in way.via), last)
        return WeightedPath(segments=segments, weight=way.weight)

    def policies(self, steering: Steering) -> tuple[Policy, ...]:
        """The policies of a steering at its ingress router: one for each prefix of the target that its marks can select."""
        only6 = steering.match.flow_label is not None or steering.match.application_id is not None
        return tuple(
            Policy(
                name=policy_name(steering.name, prefix),
                destination=prefix,
                paths=tuple(self.path(steering.target, way, prefix) for way in steering.ways),
                match=steering.match,
                dscp=steering.dscp,
            )
            for prefix in self._attachments[steering.target].prefixes
            if _selects(steering.match, prefix, only6=only6)
        )

    def ingress(self, steering: Steering) -> str:
        """The router at which a steering's packets enter."""
        return self._attachments[steering.source].router

    def states(
        self,
        steerings: Iterable[Steering],
        interfaces: Mapping[str, tuple[SlicedInterface, ...]] | None = None,
        repairs: Mapping[str, tuple[Repair, ...]] | None = None,
    ) -> dict[str, DesiredState]:
        """The desired state of every router; `interfaces` are the sliced ones, by router, and `repairs` its ways around its own links."""
        by_router: dict[str, list[Policy]] = {name: [] for name in self._routers}
        for steering in steerings:
            by_router[self.ingress(steering)] += self.policies(steering)
        return {
            name: DesiredState(
                segments=self._local(router),
                policies=tuple(by_router[name]),
                interfaces=(interfaces or {}).get(name, ()),
                repairs=(repairs or {}).get(name, ()),
            )
            for name, router in self._routers.items()
        }

    def _local(self, router: Router) -> tuple[LocalSegment, ...]:
        found = [
            LocalSegment(sid=router.sid(_END), behaviour=Behaviour.END),
            LocalSegment(sid=router.sid(_DT6), behaviour=Behaviour.END_DT6),
        ]
        sites = [item for item in self._attachments.values() if item.router == router.name]
        found += [
            LocalSegment(
                sid=router.sid(_DX4 + self._number(item)), behaviour=Behaviour.END_DX4, neighbour=item.neighbour4
            )
            for item in sites
            if item.neighbour4 is not None
        ]
        return tuple(found)

    def _number(self, attachment: Attachment) -> int:
        return list(self._attachments).index(attachment.site)


def policy_name(steering: str, prefix: str) -> str:
    """The name of a steering's policy to one prefix."""
    network = ipaddress.ip_network(prefix)
    return f"{steering}:{network.version}:{network.network_address}".replace("::", "..")


def _selects(match: Match, prefix: str, *, only6: bool) -> bool:
    version = ipaddress.ip_network(prefix).version
    if match.source is not None and ipaddress.ip_network(match.source).version != version:
        return False
    return version == 6 or not only6
