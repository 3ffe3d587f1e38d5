"""Where tokens for slurmrestd come from: a private file, or a command that makes one for an account."""

from __future__ import annotations

import asyncio
import re
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from isthmus.domain.errors import Unavailable

_TOKEN = re.compile(r"(?:SLURM_JWT=)?([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)")
COMMAND_SECONDS = 30.0


class TokenSource:
    """Gives the token for an account. A token is never part of a message."""

    def __init__(self, *, path: str = "", command: Sequence[str] = (), keep_seconds: float = 300.0) -> None:
        """`path`: read anew for each use, only by its owner readable. `command`: words, `{account}` is filled in; what it
        prints is used for `keep_seconds`."""
        self._path = Path(path).expanduser() if path else None
        self._command = tuple(command)
        self._keep = keep_seconds
        self._kept: dict[str, tuple[float, str]] = {}

    async def token(self, account: str) -> str:
        """The token; Unavailable when there is none or its file is open to others."""
        if self._path is not None:
            return self._read(self._path)
        kept = self._kept.get(account)
        if kept is not None and time.monotonic() - kept[0] < self._keep:
            return kept[1]
        token = await self._make(account)
        self._kept[account] = (time.monotonic(), token)
        return token

    def forget(self) -> None:
        """Make the next use ask anew: the server refused a token."""
        self._kept.clear()

    def _read(self, path: Path) -> str:
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"The token file {path} cannot be read: {type(error).__name__}.") from None
        if stat.S_IMODE(mode) & 0o077:
            raise Unavailable(f"The token file {path} is open to other accounts.", remedy="Run chmod 600 on it.")
        return self._parse(text, f"the token file {path}")

    async def _make(self, account: str) -> str:
        words = [word.replace("{account}", account) for word in self._command]
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise Unavailable(f"The token command cannot be run: {error.strerror}.") from None
        try:
            out, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Unavailable(f"The token command took more than {COMMAND_SECONDS:g} s.") from None
        if process.returncode != 0:
            raise Unavailable(f"The token command failed ({process.returncode}).")
        return self._parse(out.decode("utf-8", "replace"), "the answer of the token command")

    def _parse(self, text: str, where: str) -> str:
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise Unavailable(f"There is no token in {where}.")
        return match[1]
