"""Time and identifiers, handed in so that a simulated world can run the engine."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Protocol

from isthmus.domain.ids import make_id


class Clock(Protocol):
    """The present, and sleeping until later."""

    def now(self) -> float:
        """Seconds since 1970; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others run for that long."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(seconds)


def new_id(now: float) -> str:
    """A fresh identifier of this moment."""
    return make_id(int(now * 1000), os.urandom(10))
