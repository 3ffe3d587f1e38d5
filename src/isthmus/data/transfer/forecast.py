"""When a pull will be over, from what is left, what is promised and what has been seen. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from isthmus.data.transfer.port import Window

PAYLOAD_SHARE: Final = 0.93
"""Of the bytes of a packet on a link: 1,500 bytes with Ethernet, a segment routing header, IPv6, TCP and TLS around the content."""
_HALF_LIFE_SECONDS: Final = 4.0
_PRIOR_SECONDS: Final = 1.0
_HELD: Final = 0.97
"""Of a promise, before anything is seen: BBR sends a hundredth less than it may, and less while it looks for the shortest round trip."""
_LAST_SECONDS: Final = 0.1
"""From the moment at which the rate would have brought all until all is visible: streams do not end together, and the last hashes."""
_RAMP_SECONDS: Final = 0.75
"""From the first byte until streams are as fast as they will be: nothing is learned from it."""


class Forecast:
    """Learns from samples of progress; `predict` may be asked at any time."""

    def __init__(self, ways: Sequence[Sequence[Window]], limit: float | None) -> None:
        """`ways`: the windows of each way, none for a way without a promise; `limit` of all together, headers included."""
        self._ways = [tuple(windows) for windows in ways]
        self._limit = math.inf if limit is None else limit * PAYLOAD_SHARE
        self._is_promised = all(self._ways)
        self._ramped: float | None = None
        self._rate = 0.0
        self._weight = 0.0
        self._held = _HELD * _PRIOR_SECONDS
        self._held_weight = _PRIOR_SECONDS

    def observe(self, begin: float, end: float, payload_bytes: int) -> None:
        """So many verified bytes came between two times."""
        seconds = end - begin
        if self._ramped is None and payload_bytes > 0:
            self._ramped = begin + _RAMP_SECONDS
        if seconds <= 0 or self._ramped is None or end < self._ramped:
            return
        fade = 0.5 ** (seconds / _HALF_LIFE_SECONDS)
        self._rate = self._rate * fade + payload_bytes * (1 - fade) / seconds
        self._weight = self._weight * fade + (1 - fade)
        promised = self._promised(begin, end)
        if self._is_promised and promised > 0:
            fade = 0.5 ** (seconds / (4 * _HALF_LIFE_SECONDS))
            self._held = self._held * fade + payload_bytes / promised * seconds
            self._held_weight = self._held_weight * fade + seconds

    def predict(self, now: float, left_bytes: float) -> float | None:
        """The time when it will be over; None when nothing is known yet, or the promises are too small. `left_bytes` not yet verified."""
        if left_bytes <= 0:
            return now
        if not self._is_promised:
            if self._weight <= 0 or self._rate <= 0:
                return None
            return now + left_bytes / (self._rate / self._weight) + _LAST_SECONDS
        held = min(1.0, self._held / self._held_weight)
        left = left_bytes
        times = sorted({now, *(t for windows in self._ways for w in windows for t in (w.start, w.end) if t > now)})
        for begin, end in itertools.pairwise(times):
            room = self._promised(begin, end) * held
            if room >= left:
                return begin + (end - begin) * left / room + _LAST_SECONDS
            left -= room
        return None

    def _promised(self, begin: float, end: float) -> float:
        """Payload that all promises together let through between two times."""
        total = sum(
            window.bytes_per_second * max(0.0, min(end, window.end) - max(begin, window.start))
            for windows in self._ways
            for window in windows
        )
        return min(total * PAYLOAD_SHARE, self._limit * (end - begin))
