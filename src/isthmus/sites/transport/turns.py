"""Whose turn it is at one host: commands that carry content leave room for those that only ask or tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum


class Carries(StrEnum):
    """What a command moves: nothing to speak of, content to the site, or content from it."""

    NOTHING = "nothing"
    IN = "in"
    OUT = "out"


class Turns:
    """At most `most` commands at once, each kind in the order in which it came. Content in one direction has at most three eighths of
    them: with 8, a look at a site's jobs has 2 for itself and its like, and outputs come while inputs go. With 1 there is nothing to
    divide."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        each = max(1, most * 3 // 8)
        self._content = {carried: asyncio.Semaphore(each) for carried in (Carries.IN, Carries.OUT)}

    @contextlib.asynccontextmanager
    async def take(self, carries: Carries) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        async with contextlib.AsyncExitStack() as held:
            if carries is not Carries.NOTHING:
                await held.enter_async_context(self._content[carries])
            await held.enter_async_context(self._all)
            yield
