"""The network as it is known: nodes, links, and figures with their age, error and source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

from isthmus.domain.errors import Invalid
from isthmus.domain.ids import is_name
from isthmus.domain.task import FORBID_UNKNOWN

MOST_NODES, MOST_LINKS = 5_000, 20_000
STALE_SECONDS = 300.0
"""A measured figure that is older is marked as stale; its error has doubled by then."""


class NodeKind(StrEnum):
    """What a node of the network is."""

    SITE = "site"
    ROUTER = "router"


class Source(StrEnum):
    """Whence a figure is."""

    DECLARED = "declared"
    """An operator wrote it."""
    STAMP = "stamp"
    """Measured by STAMP sessions of a site's agent (RFC 8762)."""
    DERIVED = "derived"
    """Computed from STAMP sessions over several paths that share links."""
    TRANSFERS = "transfers"
    """Seen from transfers as they ran."""
    PROBE = "probe"
    """A bounded active probe of bandwidth."""
    ROUTER = "router"
    """A router's own word on its interface."""


class Metric(StrEnum):
    """What a figure is of, with its unit."""

    ONE_WAY_DELAY = "one_way_delay_seconds"
    TWO_WAY_DELAY = "two_way_delay_seconds"
    JITTER = "jitter_seconds"
    LOSS = "loss"
    """Share of packets, 0 to 1."""
    AVAILABLE = "available_bits_per_second"
    UP = "up"
    """1 when packets pass, 0 when not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value; `error` is half of the interval in which the true one lay (95 %) when it was measured."""

    value: float
    error: float
    measured_at: float
    """Seconds since 1970; of a declared figure, when it was declared."""
    source: Source

    def age_seconds(self, now: float) -> float:
        """How old it is; never negative."""
        return max(0.0, now - self.measured_at)

    def is_stale(self, now: float) -> bool:
        """Whether it is a measurement that is too old to be taken as it is."""
        return self.source is not Source.DECLARED and self.age_seconds(now) > STALE_SECONDS

    def error_at(self, now: float) -> float:
        """The error now: that of the measurement, once more for every STALE_SECONDS of age. A declared figure has none of its own."""
        if self.source is Source.DECLARED:
            return self.error
        return self.error * (1 + self.age_seconds(now) / STALE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """How a router's daemon is reached: a socket of the control plane's own machine, or one at the machine of a site's agent."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    socket: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetNode:
    """A site or a router. `address` and the UDP port `port` answer STAMP; `prefixes` are a site's networks, `address4` is where its router hands IPv4 packets to; `locator` is where a router's SIDs come from."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: str
    kind: NodeKind
    address: str = ""
    port: int = 862
    address4: str = ""
    prefixes: tuple[str, ...] = ()
    locator: str = ""
    control: Control | None = None
    longitude: float | None = None  # degrees east, for maps
    latitude: float | None = None  # degrees north

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise Invalid(
                "name", f"{self.name!r} is no name of a node.", remedy="Use a-z, 0-9, . _ -, at most 63 characters."
            )
        for field, most in (("longitude", 180), ("latitude", 90)):
            value = getattr(self, field)
            if value is not None and not -most <= value <= most:
                raise Invalid(field, f"is {value}.", remedy=f"It must be from -{most} to {most} degrees.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetLink:
    """A declared link, alike in both directions. `programmable` when both ends are routers whose paths Isthmus may set."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: str
    ends: tuple[str, str]
    capacity_bits_per_second: float | None = None
    """None: nobody said."""
    delay_seconds: float | None = None
    """One way; None: nobody said."""
    jitter_seconds: float = 0.0
    loss: float = 0.0
    mtu_bytes: int = 1500
    price_per_gb: Decimal = Decimal(0)
    """For 10^9 bytes."""
    interfaces: tuple[str, str] = ("", "")
    """The name of the link's interface at each end, where an end is a router that tells of its interfaces."""

    def __post_init__(self) -> None:
        if self.ends[0] == self.ends[1]:
            raise Invalid("ends", "Both ends are the same node.", remedy="Join two nodes.")
        if self.capacity_bits_per_second is not None and not 0 < self.capacity_bits_per_second < math.inf:
            raise Invalid("rate", "is not positive.")
        if not 0 <= self.loss < 1:
            raise Invalid("loss", f"{self.loss} is not a share from 0 to below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """One direction of a link now. A figure is the newest measured one, else the declared one, else None."""

    link: NetLink
    source: str
    target: str
    programmable: bool
    up: bool
    up_since: float | None
    delay_seconds: Figure | None
    jitter_seconds: Figure | None
    loss: Figure | None
    available_bits_per_second: Figure | None
    """What was seen to be free for one more transfer; None: not measured. Never above the capacity."""

    @property
    def capacity_bits_per_second(self) -> float | None:
        """As declared."""
        return self.link.capacity_bits_per_second

    @property
    def price_per_gb(self) -> Decimal:
        """For 10^9 bytes."""
        return self.link.price_per_gb


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """What was measured between two sites over the way that packets take by themselves, whatever links it has."""

    source: str
    target: str
    up: bool
    up_since: float | None
    delay_seconds: Figure | None
    two_way_delay_seconds: Figure | None
    jitter_seconds: Figure | None
    loss: Figure | None
    available_bits_per_second: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """All that is known of the network at `now`. Nodes and links are in the order of their names, each link once a direction."""

    now: float
    nodes: tuple[NetNode, ...]
    links: tuple[LinkView, ...]
    pairs: tuple[PairView, ...]

    def node(self, name: str) -> NetNode | None:
        """A node by its name."""
        return next((node for node in self.nodes if node.name == name), None)

    def between(self, source: str, target: str) -> PairView | None:
        """What was measured from one site to another."""
        return next((pair for pair in self.pairs if (pair.source, pair.target) == (source, target)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredNetwork:
    """What operators say of the network. Raises Invalid where names clash, or a link ends at no node."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    nodes: tuple[NetNode, ...] = ()
    links: tuple[NetLink, ...] = ()

    def __post_init__(self) -> None:
        if len(self.nodes) > MOST_NODES or len(self.links) > MOST_LINKS:
            raise Invalid("nodes", "There are too many.", remedy=f"At most {MOST_NODES} nodes and {MOST_LINKS} links.")
        names = [node.name for node in self.nodes]
        known = set(names)
        if len(known) < len(names):
            raise Invalid("nodes", f"The name {_twice(names)} is there twice.", remedy="Give every node its own name.")
        link_names = [link.name for link in self.links]
        if len(set(link_names)) < len(link_names):
            raise Invalid(
                "links", f"The name {_twice(link_names)} is there twice.", remedy="Give every link its own name."
            )
        for place, link in enumerate(self.links):
            for end in link.ends:
                if end not in known:
                    raise Invalid(
                        f"links.{place}.ends", f"There is no node {end}.", remedy="Name it under routers or sites."
                    )


def _twice(names: list[str]) -> str:
    return next(name for place, name in enumerate(names) if name in names[:place])
