"""A real service and real agents on loopback, each a process of its own, with real data roots; killed and stopped by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.client import administration, datasets
from isthmus.client.config import Profile
from isthmus.client.sync import Client
from isthmus.domain.dataset import DatasetRef

SOURCE = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0


def until(what: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """What it answers once that is true; AssertionError when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.1)


@dataclass
class Process:
    """A module of Python as a process that may be killed and started again."""

    arguments: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
        environment = {**kept, "PYTHONPATH": f"{SOURCE / 'src'}:{SOURCE}", **self.environment}
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal, by force when it does not go."""
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)
            try:
                self.running.wait(20)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait()


class Centres:
    """One service and its sites; use as a context."""

    def __init__(self, directory: Path, *, region: str = "") -> None:
        self.directory = directory
        self.state = directory / "state"
        self._region = region
        self.port = 0
        self.service = Process([], directory / "server.log")
        self.agents: dict[str, Process] = {}

    def __enter__(self) -> Centres:
        self.start_service()
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents.values():
            agent.end(signal.SIGTERM)
        self.service.end(signal.SIGTERM)

    def start_service(self) -> None:
        """Start the service, at the same port as before."""
        listen = f"127.0.0.1:{self.port}"
        words = ["isthmus.server", "--state", str(self.state), "--listen", listen]
        self.service.arguments = [*words, *(["--region", self._region] if self._region else [])]
        self.service.start()
        until(lambda: self._document().get("pid") == self.service.running.pid)  # type: ignore[union-attr]
        self.port = int(str(self._document()["url"]).rpartition(":")[2])

    def _document(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.state / "service.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def client(self) -> Client:
        """A client of the administrator."""
        token = (self.state / "admin-token").read_text().strip()
        return Client(profile=Profile(url=str(self._document()["url"]), token=token))

    def root(self, site: str) -> Path:
        """Where a site keeps data."""
        return self.directory / site / "data"

    def join(
        self,
        site: str,
        *,
        region: str = "",
        listens: bool = True,
        more: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Join a site behind an agent that keeps data, and wait until it has announced that."""
        place = self.directory / site
        place.mkdir()
        with self.client() as client:
            client.run(administration.join_site("local", site, mode="agent", region=region, accounts={"*": ""}))
            token = client.run(administration.enrol_site(site))["token"]
        (place / "site.yaml").write_text(f"kind: local\nsettings: {{root: {place / 'jobs'}}}\n")
        (place / "jobs").mkdir()
        secret = place / "one-time"
        secret.touch(mode=0o600)
        secret.write_text(token)
        words = ["isthmus.agent.main", "--url", str(self._document()["url"]), "--site-config", str(place / "site.yaml")]
        words += ["--state", str(place / "state"), "--enrol-token-file", str(secret)]
        words += ["--data-root", str(self.root(site)), *more]
        words += ["--data-listen", "127.0.0.1:0"] if listens else []
        agent = Process(words, place / "agent.log", environment or {})
        self.agents[site] = agent
        agent.start()
        until(lambda: self.announced(site, listens))
        return agent

    def announced(self, site: str, listens: bool) -> bool:
        """Whether the site's agent said that it keeps data."""
        rows = self.rows("SELECT address FROM data_servers WHERE site = ?", site)
        return bool(rows) and (bool(rows[0]["address"]) or not listens)

    def rows(self, query: str, *values: object) -> list[Any]:
        """Rows of the store, read from outside."""
        import sqlite3

        connection = sqlite3.connect(f"file:{self.state / 'isthmus.db'}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def contents(self, site: str) -> set[str]:
        """Hashes of what a site keeps."""
        return {path.name for path in (self.root(site) / "contents").glob("??/*")}

    def put(self, name: str, files: Mapping[str, bytes], **labels: Any) -> DatasetRef:
        """A dataset of these files at the service; its newest version."""
        source = self.directory / "sources" / name.replace("/", "-")
        for path, content in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(content)
        with self.client() as client:
            return client.run(datasets.put(source, DatasetRef.parse(name), **labels)).ref

    def copy(self, ref: DatasetRef, site: str) -> datasets.Transfer:
        """Have a copy at a site and wait for it."""
        with self.client() as client:
            transfer = client.run(datasets.copy(ref, site))
            assert transfer is not None
            return client.run(datasets.wait(transfer))

    def execute(self, statement: str) -> None:
        """Change the store from outside, as no program of ours would."""
        import sqlite3

        connection = sqlite3.connect(self.state / "isthmus.db", timeout=30)
        try:
            connection.execute(statement)
            connection.commit()
        finally:
            connection.close()
