"""Compiling the numeric part of placement beforehand, in a process of its own, so that no round waits for it."""

from __future__ import annotations

import asyncio
import logging
import sys

log = logging.getLogger(__name__)


class Warming:
    """Until `ready`, contested rounds are placed in plain order; what was compiled is kept on disk."""

    def __init__(self) -> None:
        self.ready = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless it has begun already."""
        if self._task is None:
            self._task = asyncio.create_task(self._compile())

    async def _compile(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "isthmus.placement.joint",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        self.ready = process.returncode == 0
        if not self.ready:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            log.warning("contested rounds stay in plain order, joint placement could not be compiled: %s", last)

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
