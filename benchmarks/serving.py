"""A control plane as people run it: its own process, reached over HTTP, on PostgreSQL or SQLite, with the null site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import sqlalchemy as sa

from isthmus.lab.ports import free_port

TASK: dict[str, Any] = {"command": ["true"], "demand": {"cpus": 1, "memory_bytes": 1048576}}


class Service:
    """One server process and a connection to it."""

    def __init__(self, directory: Path, database_url: str = "", options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.options = tuple(options)
        self.state = directory / "state"
        self.database_url = database_url or f"sqlite:///{self.state}/isthmus.db"
        self._external = database_url
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.started_in = 0.0  # seconds from the last start until it answered

    def start(self) -> float:
        """Start the process; answers the seconds until it answers."""
        begun = time.monotonic()
        environment = {**os.environ, "ISTHMUS_DATABASE": self._external}
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "isthmus.server",
                    "--state",
                    str(self.state),
                    "--listen",
                    f"127.0.0.1:{self.port}",
                    *self.options,
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
        while time.monotonic() - begun < 120:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/v1/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.02)
        else:
            raise RuntimeError(f"the server does not answer; see {self.directory / 'server.log'}")
        token = (self.state / "admin-token").read_text().strip()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {token}"}, timeout=120
        )
        self.started_in = time.monotonic() - begun
        return self.started_in

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.http.close()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def join_null(self, seconds: float = 0.0, name: str = "null") -> None:
        """Join a site that ends every job well after that time."""
        config = {"seconds": seconds, "journal": str(self.directory / f"{name}.journal")}
        body = {"name": name, "kind": "null", "mode": "direct", "config": config, "accounts": {"*": ""}}
        self.http.post("/v1/sites", json=body).raise_for_status()
        self.until(lambda: self.scalar("SELECT count(*) FROM sites WHERE description <> ''") >= 1, 30)

    def batch(self, number: int, **fields: Any) -> None:
        """Submit that many tasks in one call."""
        content = json.dumps({"tasks": [{**TASK, **fields, "name": f"t{index}"} for index in range(number)]})
        self.http.post("/v1/tasks:batch", params={"project": "default"}, content=content).raise_for_status()

    def scalar(self, query: str, **values: Any) -> Any:
        """One value straight from the store, so that asking costs the service nothing."""
        if not hasattr(self, "_engine"):
            self._engine = sa.create_engine(self.database_url)
        with self._engine.connect() as connection:
            return connection.execute(sa.text(query), values).scalar()

    def until(self, condition: Any, seconds: float, pause: float = 0.1) -> float:
        """Wait for a condition; answers the seconds it took."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if condition():
                return time.monotonic() - begun
            time.sleep(pause)
        raise RuntimeError(f"it did not come to be within {seconds} s; see {self.directory / 'server.log'}")
