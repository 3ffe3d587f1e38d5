"""The words of an emulated network: sites, routers and links, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link, alike in both directions; a figure that is None or zero is not emulated."""

    name: str
    ends: tuple[str, str]
    rate_bits_per_second: float | None = None
    delay_seconds: float = 0.0
    """One way."""
    jitter_seconds: float = 0.0
    """A packet waits up to this much less or more, evenly spread; packets keep their order."""
    loss: float = 0.0
    """The share of packets that is lost, in each direction."""
    mtu_bytes: int = 1500
    offload: bool = False
    """Whether packets cross it in trains, as the sender's segmentation offload hands them over; never together with a loss."""
    price_per_gb: Decimal = Decimal(0)

    def other(self, node: str) -> str:
        """The node at the other end."""
        return self.ends[1] if node == self.ends[0] else self.ends[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteNode:
    """One site: the daemons by kind (ssh, s3, slurm) with their settings, and programs of the user's by name."""

    name: str
    daemons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_daemons(self) -> bool:
        """Whether anything is started at the site."""
        return bool(self.daemons or self.programs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A network: names are unique among routers and sites, and among links; every link joins two known nodes."""

    name: str
    routers: tuple[str, ...]
    sites: tuple[SiteNode, ...]
    links: tuple[Link, ...]
    control: bool = False
    """Whether every router runs the daemon through which its data plane is programmed."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Routers, then sites."""
        return (*self.routers, *(site.name for site in self.sites))

    def site(self, name: str) -> SiteNode | None:
        """The site of that name, or None."""
        return next((site for site in self.sites if site.name == name), None)

    def link(self, name: str) -> Link | None:
        """The link of that name, or None."""
        return next((link for link in self.links if link.name == name), None)

    def links_of(self, node: str) -> tuple[Link, ...]:
        """The links that end at a node."""
        return tuple(link for link in self.links if node in link.ends)
