"""Virtual time: an event loop that never waits, so that hours pass in milliseconds and always in the same order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

EPOCH = 1_800_000_000.0  # the world begins here, seconds since 1970


class _NoSelector(selectors.SelectSelector):
    """Answers at once that nothing happened, and lets the loop's clock jump by the time it would have waited."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the world stands still: nothing is scheduled")
        if timeout > 0:
            self.loop.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is counted, not measured. Work for threads is done in place, so that one seed is one history."""

    def __init__(self) -> None:
        selector = _NoSelector()
        super().__init__(selector)
        selector.loop = self
        self._seconds = 0.0
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._seconds

    def jump(self, seconds: float) -> None:
        """Go on to the next thing that is due."""
        self._seconds += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call it now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future
