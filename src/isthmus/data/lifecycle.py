"""Which copies leave a site that is full: those whose loss would cost least, for the room that they free. Pure.

    heat  = sum over uses of 2^(-age / 7 days)
    cost  = 5 s + size / rate        seconds to bring the copy back, at the rate of the best other place that holds it
    value = heat x cost / size       seconds that a byte of room saves

Only *cached* copies are dropped (they came for a task's sake), and only while another place holds the version whole. Copies that
people asked for go to the site's cold store, where it has one. Pinned copies and those in use stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HALF_LIFE_SECONDS = 7 * 86400.0
SETUP_SECONDS = 5.0  # of any transfer
DECLARED_BYTES_PER_SECOND = 50e6  # where nothing was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One whole, warm copy at a full site. `elsewhere`: another place holds the version whole; `busy`: a live task or a transfer
    reads it; `may_chill`: it may lie where the cold store is; `bytes_per_second`: from the best of those places, 0 where nothing was measured."""

    key: tuple[str, str, int]
    size_bytes: int
    heat: float
    pinned: bool = False
    cached: bool = False
    busy: bool = False
    elsewhere: bool = True
    bytes_per_second: float = 0.0
    may_chill: bool = True

    @property
    def value(self) -> float:
        """Seconds that a byte of its room saves."""
        rate = self.bytes_per_second or DECLARED_BYTES_PER_SECOND
        size = max(self.size_bytes, 1)
        return self.heat * (SETUP_SECONDS + size / rate) / size


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What to do for room: copies to drop, copies to move to the cold store, and the bytes that are missing even then."""

    drop: tuple[Copy, ...] = ()
    chill: tuple[Copy, ...] = ()
    missing_bytes: int = 0


def faded(heat: float, heat_at: float | None, now: float) -> float:
    """A heat of the past as it is now."""
    if heat_at is None:
        return 0.0
    return float(heat * 2 ** (-max(0.0, now - heat_at) / HALF_LIFE_SECONDS))


def make_room(copies: Sequence[Copy], needed_bytes: int, *, has_cold: bool) -> Room:
    """The copies of least value that free `needed_bytes`: cached ones are dropped first, then, with a cold store, others chilled."""
    free = [copy for copy in copies if not copy.pinned and not copy.busy]
    drop: list[Copy] = []
    chill: list[Copy] = []
    for copy in sorted((one for one in free if one.cached and one.elsewhere), key=_order):
        if needed_bytes <= 0:
            break
        drop.append(copy)
        needed_bytes -= copy.size_bytes
    rest = [one for one in free if one.may_chill and one not in drop] if has_cold else []
    for copy in sorted(rest, key=_order):
        if needed_bytes <= 0:
            break
        chill.append(copy)
        needed_bytes -= copy.size_bytes
    return Room(drop=tuple(drop), chill=tuple(chill), missing_bytes=max(0, needed_bytes))


def _order(copy: Copy) -> tuple[float, int, tuple[str, str, int]]:
    return (copy.value, -copy.size_bytes, copy.key)
