"""Compiling a numeric part beforehand, in a process of its own, so that nothing here waits for it."""

from __future__ import annotations

import asyncio
import logging
import sys

log = logging.getLogger(__name__)


class Warming:
    """Until `ready`, the part is not used; what was compiled is kept on disk. `without` says in the log what then holds."""

    def __init__(self, module: str, without: str) -> None:
        self.ready = False
        self._module, self._without = module, without
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless it has begun already."""
        if self._task is None:
            self._task = asyncio.create_task(self._compile())

    async def _compile(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
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
            log.warning("%s: %s could not be compiled: %s", self._without, self._module, last)

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
