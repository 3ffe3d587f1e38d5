"""What is left to fetch, and who fetches it: units are handed out one by one as streams ask, so that no stream holds the end back.

A unit is a piece of a large content, its list of pieces, or a bundle of small contents that follow one another in the order. When nothing
is left to hand out, a stream that is idle takes over what another would bring much later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from isthmus.data.transfer import pieces, wire
from isthmus.data.transfer.port import Content

_WORTH: Final = 1.5
_AT_LEAST_SECONDS: Final = 0.2
_LAST_SECONDS: Final = 2.0
"""Before the end nobody takes what it would bring after the others are done."""
_LATER: Final = 1.1
_LATER_SECONDS: Final = 0.05


class What(Enum):
    """What a unit asks for."""

    LIST = 1
    PIECE = 2
    BUNDLE = 3


@dataclass(frozen=True, slots=True)
class Unit:
    """`index`: the content, or the first of a bundle; `number`: the piece, or how many contents the bundle has."""

    what: What
    index: int
    number: int
    bytes: int


@dataclass(eq=False, slots=True)
class Carrier:
    """One stream as the work sees it: what it was asked for, in sequence, and how fast it brings it."""

    site: str
    asked: deque[Unit] = field(default_factory=deque)
    bytes_per_second: float | None = None
    """None: not seen yet."""
    got: int = 0
    """Bytes of the first unit that are here."""

    @property
    def asked_bytes(self) -> int:
        """What is still to come."""
        return sum(unit.bytes for unit in self.asked) - self.got


class Work:
    """Thread-safe. `have`: indexes of contents that are here already; `verified(index, number)` tells a piece that is here."""

    def __init__(
        self,
        contents: Sequence[Content],
        have: set[int],
        verified: dict[int, bytearray],
        lists: set[int],
        sites: set[str],
        left_bytes: int | None = None,
    ) -> None:
        """`left_bytes`: what is to come; None: all contents."""
        self._contents = contents
        self._sites = sites
        self._lock = threading.Lock()
        self._fresh: Iterator[Unit] | None = self._units(have, verified, lists)
        self._back: deque[Unit] = deque()
        self._carriers: set[Carrier] = set()
        self._twice: dict[Unit, bool] = {}
        """Units asked for twice, and whether they have come."""
        self._left = sum(content.size_bytes for content in contents) if left_bytes is None else left_bytes
        self._lacking: dict[tuple[str, int], str] = {}
        self.hopeless: dict[Unit, str] = {}
        """Units that no source has, with the last reason."""

    def join(self, carrier: Carrier) -> None:
        """A stream begins."""
        with self._lock:
            self._carriers.add(carrier)

    def leave(self, carrier: Carrier) -> None:
        """A stream ends; what it owes is handed out again."""
        with self._lock:
            self._carriers.discard(carrier)
            self._back.extendleft(unit for unit in reversed(carrier.asked) if not self._twice.get(unit, False))
            carrier.asked.clear()
            carrier.got = 0

    def take(self, carrier: Carrier) -> Unit | None:
        """The next unit for a stream, noted as asked of it; None when there is none for it now."""
        with self._lock:
            unit = None if self._is_late(carrier) else self._next(carrier)
            if unit is not None:
                carrier.asked.append(unit)
            return unit

    def came(self, carrier: Carrier) -> tuple[Unit, bool]:
        """The first unit that was asked of a stream is here; whether that is new."""
        with self._lock:
            unit = carrier.asked.popleft()
            carrier.got = 0
            if unit in self._twice:
                first = not self._twice[unit]
                self._twice[unit] = True
            else:
                first = True
            if first and unit.what is not What.LIST:
                self._left -= unit.bytes
            return unit, first

    def put_back(self, carrier: Carrier) -> Unit:
        """The first unit that was asked of a stream does not come now; somebody asks again, behind all else."""
        with self._lock:
            unit = carrier.asked.popleft()
            carrier.got = 0
            if not self._twice.get(unit, False):
                self._back.append(unit)
            return unit

    def was_wrong(self, unit: Unit, site: str) -> None:
        """A unit that came was corrupt: the site is not asked for that content any more, one of the others is."""
        with self._lock:
            self._lacking[site, unit.index] = "corrupt"
            self._twice.pop(unit, None)
            self._left += unit.bytes
            self._offer(unit, "corrupt")

    def lacks(self, carrier: Carrier, code: str) -> Unit:
        """The source of a stream does not give the first unit: a bundle is asked for content by content, others elsewhere."""
        with self._lock:
            unit = carrier.asked.popleft()
            carrier.got = 0
            if unit.what is What.BUNDLE and unit.number > 1:
                for index in range(unit.index, unit.index + unit.number):
                    self._back.append(Unit(What.BUNDLE, index, 1, self._contents[index].size_bytes))
                return unit
            self._lacking[carrier.site, unit.index] = code
            self._offer(unit, code)
            return unit

    def restart(self, index: int, site: str) -> None:
        """A large content turned out wrong as a whole: all of it is fetched anew from others than this site, its list first."""
        with self._lock:
            self._lacking[site, index] = "corrupt"
            size = self._contents[index].size_bytes
            self._left += size
            units = [Unit(What.LIST, index, 0, _list_bytes(size))]
            units += [piece(index, n, size) for n in range(pieces.piece_count(size))]
            for unit in units:
                self._twice.pop(unit, None)
                self._offer(unit, "corrupt")

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be handed out and nothing owed."""
        with self._lock:
            self._fill()
            return not self._back and self._fresh is None and not any(carrier.asked for carrier in self._carriers)

    def _offer(self, unit: Unit, code: str) -> None:
        reasons = [self._lacking.get((site, unit.index)) for site in self._sites]
        if all(reasons):
            self.hopeless[unit] = code
        else:
            self._back.append(unit)

    def _next(self, carrier: Carrier) -> Unit | None:
        self._fill()
        for _ in range(len(self._back)):
            unit = self._back.popleft()
            if self._twice.get(unit, False):
                continue
            if self._lacking and all((site, unit.index) in self._lacking for site in self._sites):
                self.hopeless[unit] = self._lacking[carrier.site, unit.index]
                continue
            if not self._lacking or (carrier.site, unit.index) not in self._lacking:
                return unit
            self._back.append(unit)
        if self._fresh is not None:
            for unit in self._fresh:
                if not self._lacking or (carrier.site, unit.index) not in self._lacking:
                    return unit
                self._back.append(unit)
            self._fresh = None
        return None if carrier.asked else self._take_over(carrier)

    def _is_late(self, carrier: Carrier) -> bool:
        """Whether the end is near, and what this stream would take now would come after all else."""
        speed = carrier.bytes_per_second
        speeds = [other.bytes_per_second for other in self._carriers if other.bytes_per_second]
        if not speed or self._left > _LAST_SECONDS * sum(speeds):
            return False
        end = max(0, self._left - sum(other.got for other in self._carriers)) / sum(speeds)
        one = carrier.asked[-1].bytes if carrier.asked else pieces.LEAST_BYTES
        mine = (carrier.asked_bytes + one) / speed
        if carrier.asked:
            return mine > _LATER * end + _LATER_SECONDS
        return mine > 2 * one / max(speeds) + end + _AT_LEAST_SECONDS

    def _fill(self) -> None:
        if self._fresh is not None and not self._back:
            unit = next(self._fresh, None)
            if unit is None:
                self._fresh = None
            else:
                self._back.append(unit)

    def _take_over(self, carrier: Carrier) -> Unit | None:
        """The unit that would come last, where it would come sooner by this stream."""
        best: tuple[float, Unit] | None = None
        if carrier.bytes_per_second is None:
            return None
        for other in self._carriers:
            if other is carrier or not other.asked or other.bytes_per_second is None:
                continue
            unit = other.asked[-1]
            if unit in self._twice or (carrier.site, unit.index) in self._lacking:
                continue
            later = other.asked_bytes / max(other.bytes_per_second, 1.0)
            if best is None or later > best[0]:
                best = (later, unit)
        if best is None:
            return None
        sooner = best[1].bytes / max(carrier.bytes_per_second, 1.0)
        if best[0] < _WORTH * sooner + _AT_LEAST_SECONDS:
            return None
        self._twice[best[1]] = False
        return best[1]

    def _units(self, have: set[int], verified: dict[int, bytearray], lists: set[int]) -> Iterator[Unit]:
        first, size = 0, 0
        for index, content in enumerate(self._contents):
            small = pieces.is_small(content.size_bytes)
            joins = small and index not in have
            full = size + content.size_bytes > wire.MOST_BUNDLE_BYTES or index - first >= wire.MOST_FILES
            if first < index and (full or not joins):
                yield Unit(What.BUNDLE, first, index - first, size)
            if not joins or full or first == index:
                first, size = (index if joins else index + 1), 0
            if joins:
                size += content.size_bytes
            elif index not in have:
                if index not in lists:
                    yield Unit(What.LIST, index, 0, _list_bytes(content.size_bytes))
                known = verified.get(index, b"")
                for number in range(pieces.piece_count(content.size_bytes)):
                    if not known or not known[number]:
                        yield piece(index, number, content.size_bytes)
        if first < len(self._contents):
            yield Unit(What.BUNDLE, first, len(self._contents) - first, size)


def piece(index: int, number: int, size: int) -> Unit:
    """The unit of one piece of a content of that size."""
    return Unit(What.PIECE, index, number, pieces.span(size, number)[1])


def _list_bytes(size: int) -> int:
    return pieces.piece_count(size) * pieces.DIGEST_BYTES
