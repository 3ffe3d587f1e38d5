"""An agent as a process of its own: started, killed and stopped by pid, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

SOURCE = Path(__file__).parents[2]


class AgentProcess:
    """`arguments` follow `python -m`; the log goes to a file that tests read."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._arguments = list(arguments)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it (again)."""
        environment = {**os.environ, "PYTHONPATH": f"{SOURCE / 'src'}:{SOURCE}"}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self._arguments, stdout=log, stderr=log, env=environment, cwd=SOURCE
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    async def ended(self, seconds: float = 60.0) -> int:
        """Its exit status, once it ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()


@asynccontextmanager
async def agent_process(arguments: Sequence[str], log: Path) -> AsyncIterator[AgentProcess]:
    """A process that runs in the block."""
    agent = AgentProcess(arguments, log)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.kill()


def agent_arguments(directory: Path, url: str, token: str, config: str) -> list[str]:
    """Arguments of an agent whose state, config and one-time token lie in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("site.yaml", config), ("one-time", token)):
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(content)
    return [
        *("--url", url),
        *("--site-config", str(directory / "site.yaml")),
        *("--state", str(directory / "state")),
        *("--enrol-token-file", str(directory / "one-time")),
    ]
