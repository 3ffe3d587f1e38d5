"""Several calls side by side."""

from __future__ import annotations

import asyncio

import pytest

from isthmus.sites.several import AT_ONCE, several


async def test_answers_are_in_order_and_few_are_under_way() -> None:
    """Thirty calls that end in another order than they began: all answers at their places, never more than a few at once."""
    under_way = most = 0

    async def square(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(1 + number * 7 % 5):
            await asyncio.sleep(0)
        under_way -= 1
        return number * number

    assert await several(square, range(30)) == [number * number for number in range(30)]
    assert most == AT_ONCE


async def test_the_first_failure_is_raised_when_nothing_goes_on_any_more() -> None:
    """The others are ended before the caller hears of it."""
    ended = []

    async def fail_at_three(number: int) -> None:
        try:
            await asyncio.sleep(0 if number == 3 else 600)
            raise ValueError(number)
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="3"):
        await several(fail_at_three, range(20))
    assert set(range(AT_ONCE)) <= set(ended)
