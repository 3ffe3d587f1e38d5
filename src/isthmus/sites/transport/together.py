"""Runs the three pumps of one command together: the first failure stops the others and is what the caller sees."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def together(feed: Coroutine[object, object, None], *reads: Coroutine[object, object, bytes]) -> list[bytes]:
    """Run `feed` and all `reads` at once; returns what the reads returned, in order."""
    feeding = asyncio.create_task(feed)
    reading = [asyncio.create_task(read) for read in reads]
    try:
        answers = await asyncio.gather(feeding, *reading)
        return [answer for answer in answers[1:] if answer is not None]
    finally:
        for task in (feeding, *reading):
            task.cancel()
        await asyncio.gather(feeding, *reading, return_exceptions=True)
