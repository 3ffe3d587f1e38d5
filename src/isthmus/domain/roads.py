"""Ways between places for a decision: links with their figures, routes over them, what was promised of links, where data is.

A place is a site, or `HOME`: where the service keeps uploads. Rates are in bytes a second of payload, times in seconds since
1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from isthmus.domain.dataset import HOME as HOME

PROMISED_SHARE = 0.95
"""Of a link; the rest is for headers and for what nobody planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One link, one direction: what may be promised of it, its 10 % and 90 % quantiles where they are known, and the source of
    the figure (`measured`, `learned`, `declared`)."""

    bytes_per_second: float
    source: str = "declared"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Links in travelling order, with their sums. `programmable`: the network can be told to send a transfer this way.
    `bytes_per_second` is that of its narrowest link; 0 = look at the links."""

    links: tuple[str, ...]
    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0
    price_per_gigabyte: Decimal = Decimal(0)
    programmable: bool = False
    relays: frozenset[str] = frozenset()  # regions of the sites that pass it on


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Part of a link that was promised to a transfer for a time."""

    link: str
    begins: float
    ends: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What is given away of links: parts for a time by `held`, whose links are called `LINK>TARGET`, and slices of links for ever, in
    bits a second by the link's name, in both directions."""

    held: tuple[Held, ...] = ()
    slices: Mapping[str, float] = field(default_factory=dict)

    def sliced_bits_per_second(self, link: str) -> float:
        """Of slices, in each direction."""
        return self.slices.get(link, 0.0)

    def bits_per_second(self, link: str, target: str, begins: float, ends: float) -> float:
        """The most that is given away of a link towards one of its ends at any moment between two."""
        name = f"{link}>{target}"
        parts = [one for one in self.held if one.link == name and one.begins < ends and one.ends > begins]
        moments = {begins, *(one.begins for one in parts if one.begins > begins)}
        most = max(
            (sum(one.bytes_per_second for one in parts if one.begins <= at < one.ends) for at in moments), default=0.0
        )
        return 8 * most + self.slices.get(link, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roads:
    """What is known of the network between places. Where no route is known data moves through the service.

    `routes` by (from, to), the best first, over these links only; `sliced` by (project, from, to): ways that have parts of links for sure,
    for data of that project only. Such a part is a link of its own, `SLICE/LINK>TARGET`, and no link has it besides. `coming`: (data, place) -> when a transfer that is promised brings it whole there.
    """

    links: Mapping[str, Way] = field(default_factory=dict)
    routes: Mapping[tuple[str, str], tuple[Route, ...]] = field(default_factory=dict)
    sliced: Mapping[tuple[str, str, str], tuple[Route, ...]] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    coming: Mapping[tuple[str, str], float] = field(default_factory=dict)
    home_region: str = ""  # of the service: data that may not be there does not move through it


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One data set (or all uploads) that a task needs: bytes, the places that hold all of it, the regions that it may not leave
    (none = it may go anywhere)."""

    name: str
    size_bytes: int
    places: frozenset[str]
    regions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A time during which a transfer has one rate."""

    begins: float
    ends: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """A transfer as it was planned: what moves from where to where over which links, in which window and at what rates.

    No stretches: it comes with another transfer (`shared`), or through the service, whose way is not planned.
    """

    name: str
    size_bytes: int
    source: str
    target: str
    links: tuple[str, ...] = ()
    begins: float = 0.0
    ends: float = 0.0
    stretches: tuple[Stretch, ...] = ()
    price: Decimal = Decimal(0)
    programmable: bool = False
    shared: bool = False
    held_up: bool = False  # by what others were promised of the links

    @property
    def bytes_per_second(self) -> float:
        """The mean rate in the window; 0 where none is known."""
        seconds = self.ends - self.begins
        return self.size_bytes / seconds if seconds > 0 else 0.0
