"""The contract of the transfer engine: what is ordered, what is told meanwhile, what came of it.

    keep = Keep(Path("/data/keep"))                                      # keep.py: contents of this site by their BLAKE3
    with Server(keep, credentials, ticket_keys=(public_key,), port=7422) # server.py: hands them to other sites
    outcome = pull(order, keep, credentials, on_progress=print)          # puller.py: fetches them from other sites

Contents are named by their BLAKE3, as 64 hexadecimal digits. Times are seconds since 1970, sizes bytes, rates bytes per second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from isthmus.domain.errors import Invalid
from isthmus.domain.ids import is_id, is_name

MAX_CONTENTS = 250_000
"""Of one order; more are several orders."""
MAX_STREAMS = 128
_BLAKE3 = re.compile(r"[0-9a-f]{64}")


def is_blake3(text: str) -> bool:
    """Whether the text is a BLAKE3 in lower-case hexadecimal."""
    return _BLAKE3.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One content. `regions`: the only regions that it may lie in; empty: it may lie anywhere."""

    blake3: str
    size_bytes: int
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_blake3(self.blake3):
            raise Invalid("blake3", f"{self.blake3[:80]!r} is not a BLAKE3.", remedy="Give 64 hexadecimal digits.")
        if self.size_bytes < 0:
            raise Invalid("size_bytes", "is negative.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A TCP address: a name or a numeric address, and a port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65536:
            raise Invalid("endpoint", f"{self.host!r}:{self.port} is no address.", remedy="Give a host and a port.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `start` to `end` the way may carry `bytes_per_second`, headers included, and no more."""

    start: float
    end: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        if not self.start < self.end or not 0 < self.bytes_per_second < math.inf:
            raise Invalid("windows", "A window ends after it starts, and has a rate above zero.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One path from a source to this site.

    What tells its packets from those of other ways, in both directions: the addresses at the two ends (`local_address` to bind,
    `remote` in place of the source's endpoint), or marks: DSCP (0-63), IPv6 flow label (20 bits), APN identifier (32 bits, carried as
    an IPv6 destination option); 0 is none. `relay`: the address of a relay through which the way leads. `multipath`: MPTCP, where both
    ends have it. `windows` are promised rates; without any the way carries what it can, at any time. `share` tells how many of the
    streams go this way, against the other ways that have no windows.
    """

    local_address: str | None = None
    remote: Endpoint | None = None
    relay: Endpoint | None = None
    dscp: int = 0
    flow_label: int = 0
    apn: int = 0
    multipath: bool = False
    share: float = 1.0
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.dscp < 64 and 0 <= self.flow_label < 1 << 20 and 0 <= self.apn < 1 << 32):
            raise Invalid("way", "DSCP has 6 bits, a flow label 20, an APN identifier 32.")
        if not 0 < self.share < math.inf:
            raise Invalid("share", "is not positive.")
        if any(later.start < earlier.end for earlier, later in zip(self.windows, self.windows[1:], strict=False)):
            raise Invalid("windows", "overlap, or are not in order.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A site that has the contents. `site` is the name in its certificate; `is_receiving`: it may still be receiving them itself
    (point to multipoint), so that what it lacks is waited for."""

    site: str
    endpoint: Endpoint
    ways: tuple[Way, ...] = (Way(),)
    is_receiving: bool = False

    def __post_init__(self) -> None:
        if not is_name(self.site):
            raise Invalid("site", f"{self.site[:80]!r} names no site.")
        if not self.ways:
            raise Invalid("ways", "are none.", remedy="Give Way() for the ordinary route.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to fetch, from where, by whose leave and how.

    `ticket` is signed by the control plane (`tickets.sign`). `streams`: how many connections in all, 0: the engine chooses.
    `bytes_per_second` bounds all ways together, headers included; None: no bound. Nothing is asked for before `not_before`; at
    `not_after` the pull ends, whole or not, and a later one goes on from there. `patience_seconds`: how long no byte may come from
    any source before the pull ends as unavailable.
    """

    id: str
    contents: tuple[Content, ...]
    sources: tuple[Source, ...]
    ticket: str
    streams: int = 0
    bytes_per_second: float | None = None
    not_before: float | None = None
    not_after: float | None = None
    patience_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise Invalid("id", f"{self.id[:80]!r} is not an identifier.", remedy="Give one of domain.ids.make_id.")
        if not 0 < len(self.contents) <= MAX_CONTENTS:
            raise Invalid("contents", f"are {len(self.contents)}.", remedy=f"Give 1 to {MAX_CONTENTS} in one order.")
        if len({content.blake3 for content in self.contents}) < len(self.contents):
            raise Invalid("contents", "name one content twice.", remedy="Name each content once.")
        if not self.sources:
            raise Invalid("sources", "are none.", remedy="Name a site that has the contents.")
        if not 0 <= self.streams <= MAX_STREAMS:
            raise Invalid("streams", f"is {self.streams}.", remedy=f"Give 1 to {MAX_STREAMS}, or 0.")
        if self.bytes_per_second is not None and not 0 < self.bytes_per_second < math.inf:
            raise Invalid("bytes_per_second", "is not positive.")

    @property
    def size_bytes(self) -> int:
        """All contents together."""
        return sum(content.size_bytes for content in self.contents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files of one site: its certificate (with the chain), its key, and the certificates of the authorities that it trusts."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Told about twice a second. `done_bytes` are verified; `bytes_per_second` is the recent rate of verified bytes; `predicted_end`
    is None until there is something to tell it from; `stalled` counts streams that were given up and replaced; `multipath`: some stream
    speaks MPTCP."""

    done_bytes: int
    total_bytes: int
    contents_done: int
    bytes_per_second: float
    predicted_end: float | None
    resent_bytes: int
    streams: int
    stalled: int
    multipath: bool = False


class End(StrEnum):
    """How a pull ended. All but DONE and REFUSED may be tried again, and go on from what was verified."""

    DONE = "done"
    STOPPED = "stopped"  # the caller asked for it
    WINDOW_OVER = "window_over"  # not_after, or the last promised window, came first
    UNAVAILABLE = "unavailable"  # no source answered, or none sent anything for patience_seconds
    NO_SPACE = "no_space"  # at this end
    REFUSED = "refused"  # ticket, certificate or a limit of the content
    NOT_FOUND = "not_found"  # no source has some of the contents
    CORRUPT = "corrupt"  # what every source has is not what its name says


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong with a source; `blake3` is empty when it concerns the source as a whole."""

    site: str
    blake3: str
    code: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WayUse:
    """What one way carried, over how many streams at most at once. `bytes_per_second` is the best half second seen on it, of payload."""

    site: str
    way: int
    bytes: int
    streams: int
    bytes_per_second: float
    round_trip_seconds: float | None
    congestion_control: str
    multipath: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an order. `received_bytes` came over the network in this pull, `resumed_bytes` were there and verified before it,
    `resent_bytes` came although they had come before (in this pull or, as far as is known, in the one that it goes on from)."""

    end: End
    cause: str
    failures: tuple[Failure, ...]
    contents_done: int
    received_bytes: int
    resumed_bytes: int
    resent_bytes: int
    seconds: float
    bytes_per_second: float
    stalled: int
    ways: tuple[WayUse, ...]

    @property
    def is_done(self) -> bool:
        """Whether every content is there, verified, under its name."""
        return self.end is End.DONE


OnProgress = Callable[[Progress], None]
