"""A real service in a process of its own on loopback, with SQLite and this machine as its site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from isthmus.client.config import Profile

DEADLINE_SECONDS = 60.0
SOURCE = Path(__file__).parents[2] / "src"


class RunningService:
    """The service's process, where it is, and the administrator's profile."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._log = (state.parent / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; AssertionError with its log when it does not."""
        words = [sys.executable, "-m", "isthmus.server", "--state", str(self.state), "--listen", "127.0.0.1:0"]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self._process = subprocess.Popen(
            [*words, "--join-local"], env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._document().get("pid") != self._process.pid:
            late = time.monotonic() > deadline
            if self._process.poll() is not None or late:
                raise AssertionError(f"no service: {(self.state.parent / 'server.log').read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash does; `start` begins its next life."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it; by force when it does not go."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def _document(self) -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads((self.state / "service.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    @property
    def profile(self) -> Profile:
        """The administrator's profile."""
        return Profile(url=str(self._document()["url"]), token=(self.state / "admin-token").read_text().strip())

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command line that speaks to this service, free of the caller's own settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
        return {
            **kept,
            "PYTHONPATH": str(SOURCE),
            "ISTHMUS_STATE": str(self.state),
            "XDG_CONFIG_HOME": str(self.state.parent / "no-config"),
        }
