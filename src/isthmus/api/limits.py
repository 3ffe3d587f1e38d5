"""Bounds on what callers may ask at once: a token bucket for each token, in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from isthmus.domain.errors import Busy

_BUCKETS = 50_000


class RateLimit:
    """Each key may call `rate` times a second, and `burst` times at once after a pause."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, key: str) -> None:
        """Take one call from the key's bucket; Busy when it is empty."""
        now = self._clock()
        level, at = self._levels.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        if level < 1:
            self._levels[key] = (level, now)
            raise Busy(
                f"More than {self.rate:g} calls a second.",
                remedy="Slow down, or put many tasks into one file: `isthmus submit tasks.yaml`.",
                retry_after_seconds=(1 - level) / self.rate,
            )
        self._levels[key] = (level - 1, now)
        if len(self._levels) > _BUCKETS:
            self._levels.popitem(last=False)
