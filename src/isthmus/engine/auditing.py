"""Audits of contested rounds, beside the rounds: at most one at a time and one in a while, each in a process with a time limit."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
from collections.abc import Sequence

from isthmus.domain.placement import ScarcePrice, Snapshot, WaitingTask
from isthmus.placement.anchoring import Anchor, Asked, anchored

log = logging.getLogger(__name__)
EVERY_SECONDS = 45.0  # from one audit's begin to the next one's, while rounds are contested
LIMIT_SECONDS = 40.0
_NICE = 10


class Auditing:
    """Takes contested rounds, gives back what the newest audit says; a round never waits for it."""

    def __init__(self, every: float = EVERY_SECONDS, limit: float = LIMIT_SECONDS) -> None:
        self._every, self._limit = every, limit
        self._begun: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._fresh: Anchor | None = None
        self.gap: float | None = None  # of the last audit: how far above the bound the round's answer was
        self.audits = 0
        self.failures = 0

    def offer(self, snapshot: Snapshot, tasks: Sequence[WaitingTask], now: float) -> None:
        """A contested round: audited when the last audit is long enough ago."""
        if self._task is not None and not self._task.done():
            return
        if self._begun is not None and 0 <= now - self._begun < self._every:
            return
        self._begun = now
        self._task = asyncio.create_task(self._run(Asked(snapshot=snapshot, tasks=tuple(tasks))))

    def adjust(self, prices: tuple[ScarcePrice, ...]) -> tuple[ScarcePrice, ...]:
        """The prices, anchored anew when an audit has ended since the last call; none stay none."""
        found, self._fresh = self._fresh, None
        return prices if found is None or not prices else anchored(prices, found)

    async def _run(self, asked: Asked) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "isthmus.placement.anchoring",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_lower,
        )
        try:
            async with asyncio.timeout(self._limit):
                out, said = await process.communicate(pickle.dumps(asked))
        except BaseException as error:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if not isinstance(error, TimeoutError):
                raise
            self.failures += 1
            log.warning("the audit of a contested round took more than %.0f s and was ended", self._limit)
            return
        if process.returncode:
            self.failures += 1
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            log.warning("a contested round could not be audited: %s", last)
            return
        found: Anchor = pickle.loads(out)  # noqa: S301 - from the process just started
        self._fresh, self.gap = found, found.gap
        self.audits += 1
        log.info(
            "audit of a contested round: %d tasks in %d classes, %.2f %% above the bound, prices off by %.2f %%",
            len(asked.tasks),
            found.classes,
            100 * found.gap,
            100 * found.drift,
        )

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _lower() -> None:
    os.nice(_NICE)
