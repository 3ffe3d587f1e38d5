"""Several calls side by side: what waits for a distant store waits once, not for each of many small contents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
U = TypeVar("U")
AT_ONCE: Final = 8


async def several(act: Callable[[T], Awaitable[U]], items: Iterable[T]) -> list[U]:
    """What `act` answers for each item, in their order, at most `AT_ONCE` under way. The first failure is raised, once all that was
    begun has ended."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> U:
        async with turns:
            return await act(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
