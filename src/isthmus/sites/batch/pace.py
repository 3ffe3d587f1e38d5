"""Spaces out the questions to one scheduler: however many tasks there are, it is asked at most twice in an interval."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

QUERIES: Final = 2
QUERY_HELP: Final = "Seconds in which at most two commands that ask the scheduler something start; 0 = no limit (2)."


class Pace:
    """At most `QUERIES` queries start in any window of `seconds`; those that wait go in the order in which they came."""

    def __init__(
        self,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`seconds` 0: no limit."""
        self._seconds = seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._starts: deque[float] = deque(maxlen=QUERIES)
        self._turn = asyncio.Lock()

    async def take(self, count: int = 1) -> None:
        """Wait until `count` (at most `QUERIES`) queries may start together."""
        if not self._seconds:
            return
        assert 1 <= count <= QUERIES
        async with self._turn:
            if len(self._starts) > QUERIES - count:
                await self._until(self._starts[-1 - (QUERIES - count)] + self._seconds)
            self._starts.extend([self._monotonic()] * count)

    async def _until(self, moment: float) -> None:
        while (left := moment - self._monotonic()) > 0:
            await self._sleep(left)
