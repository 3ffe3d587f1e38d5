"""A control plane, an agent behind a link that can be cut, and tasks that leave a line at start and end: for fault histories.

The processes are real and are killed with SIGKILL. They are forked from a server that has the code loaded, so that a
restart takes a tenth of a second and a thousand kills fit in minutes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from isthmus.lab.ports import free_port
from tests.agent.proxy import Proxy, Weather

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["isthmus.server", "isthmus.agent.main", "isthmus.sites.plain", "isthmus.sites.slurm"])
SCRIPT = 'echo "s $ISTHMUS_TASK_ID $ISTHMUS_ATTEMPT $$" >>"$0"; sleep "$1" && echo "c $ISTHMUS_TASK_ID $ISTHMUS_ATTEMPT $$" >>"$0"'


def _enter(log: str, points: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setsid()
    if points:
        from isthmus.engine import failpoints

        failpoints._POINTS.update(failpoints._parse(points))


def _serve(log: str, argv: Sequence[str], points: str, database: str) -> None:
    _enter(log, points)
    os.environ["ISTHMUS_DATABASE"] = database
    os.environ["ISTHMUS_LOG_LEVEL"] = "WARNING"
    from isthmus.server import main

    os._exit(main(argv))


def _agent(log: str, argv: Sequence[str]) -> None:
    _enter(log, "")
    from isthmus.agent.main import main

    os._exit(main(argv))


class Link:
    """The proxy between agent and control plane, on a loop of its own thread."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(port)
        self._run(self._proxy.start())

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def url(self) -> str:
        """Where the agent dials."""
        return self._proxy.url

    def turn(self, weather: Weather) -> None:
        """Change the weather."""
        self._loop.call_soon_threadsafe(self._proxy.turn, weather)

    def stop(self) -> None:
        """Break everything and end the thread."""
        self._run(self._proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Rig:
    """One control plane with its sites. `side` is the file to which the tasks append."""

    def __init__(self, directory: Path, database: str = "") -> None:
        self.directory = directory
        self.state = directory / "state"
        self.side = directory / "side"
        self.side.touch()
        self.side.chmod(0o666)
        self.port = free_port()
        self._external = database
        self.url = database or f"sqlite:///{self.state}/isthmus.db"
        self.server: BaseProcess | None = None
        self.agent: BaseProcess | None = None
        self.link: Link | None = None
        self.http: httpx.Client | None = None
        self._store: sa.Engine | None = None
        self._agent_argv: list[str] = []

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self, points: str = "") -> None:
        """Start the control plane, with failpoints; returns when it answers, or is dead already."""
        argv = ["--state", str(self.state), "--listen", f"127.0.0.1:{self.port}"]
        log = str(self.directory / "server.log")
        self.server = FORK.Process(target=_serve, args=(log, argv, points, self._external), daemon=True)
        self.server.start()
        until = time.monotonic() + 60
        while time.monotonic() < until and self.server.is_alive():
            with suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/v1/health", timeout=5).status_code == 200:
                    break
            time.sleep(0.02)
        if self.http is None:
            token = (self.state / "admin-token").read_text().strip()
            self.http = httpx.Client(
                base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {token}"}, timeout=20
            )

    def kill_server(self) -> None:
        """SIGKILL, if it is not dead already."""
        _kill(self.server)

    def start_agent(self) -> None:
        """Start the agent again."""
        self.agent = FORK.Process(
            target=_agent, args=(str(self.directory / "agent.log"), self._agent_argv), daemon=True
        )
        self.agent.start()

    def kill_agent(self) -> None:
        """SIGKILL."""
        _kill(self.agent)

    def stop(self) -> None:
        """End everything that was started here."""
        for process in (self.agent, self.server):
            _kill(process)
        if self.link is not None:
            self.link.stop()
        if self.http is not None:
            self.http.close()
        if self._store is not None:
            self._store.dispose()

    # --- sites and tasks ------------------------------------------------------------------------------------------------

    def join(self, name: str, kind: str, config: dict[str, Any], *, mode: str = "direct", account: str = "") -> None:
        """Join a site; for one behind an agent, enrol and start the agent too."""
        assert self.http is not None
        body = {"name": name, "kind": kind, "mode": mode, "config": config, "accounts": {"*": account}}
        if mode == "agent":
            body["config"] = {}
        self.http.post("/v1/sites", json=body).raise_for_status()
        if mode == "agent":
            answer = self.http.post(f"/v1/sites/{name}/enrolments")
            answer.raise_for_status()
            token, settings = self.directory / f"{name}.token", self.directory / f"{name}.json"
            token.write_text(answer.json()["token"])
            settings.write_text(json.dumps({"kind": kind, "settings": config}))
            self.link = Link(self.port)
            self._agent_argv = ["--url", self.link.url, "--site-config", str(settings), "--state"]
            self._agent_argv += [str(self.directory / f"{name}-agent"), "--enrol-token-file", str(token)]
            self.start_agent()
        self.until(lambda: self.rows("SELECT 1 FROM sites WHERE name = :n AND description <> ''", n=name), 60)

    def submit(self, site: str, seconds: Sequence[float], key: str) -> list[str]:
        """Hand over tasks that take so long, in one call that may be repeated under its key until it is answered."""
        assert self.http is not None
        tasks = [
            {
                "command": ["/bin/sh", "-c", SCRIPT, str(self.side), str(one)],
                "demand": {"cpus": 1, "memory_bytes": 8 * 1024**2, "walltime_seconds": 600},
                "constraints": {"sites_allow": [site]},
                "max_attempts": 20,
            }
            for one in seconds
        ]
        answer = self.http.post(
            "/v1/tasks:batch",
            params={"project": "default"},
            json={"tasks": tasks},
            headers={"Idempotency-Key": key},
        )
        answer.raise_for_status()
        return sorted(re.findall(r'"([0-7][0-9a-hjkmnp-tv-z]{25})"', answer.text))

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Rows straight from the store; nothing while the store does not answer."""
        if self._store is None:
            self._store = sa.create_engine(self.url)
        with self._store.connect() as connection:
            return list(connection.execute(sa.text(query), values))

    def until(self, condition: Any, seconds: float) -> bool:
        """Wait for a condition; False when it did not come to be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(sa.exc.OperationalError):
                if condition():
                    return True
            time.sleep(0.1)
        return False


def _kill(process: BaseProcess | None) -> None:
    if process is not None and process.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join(10)


def kill_wrapper(roots: Path, keys: set[str]) -> str | None:
    """SIGKILL to the wrapper of one attempt that runs now, of those given; answers its key."""
    places = [*roots.glob("attempts"), *roots.glob("*/attempts")]
    for claim in (place / key / "claim" for place in places for key in sorted(keys)):
        key = claim.parent.name
        if not claim.exists() or (claim.parent / "result").exists():
            continue
        with suppress(OSError):
            found = re.search(r"pid=(\d+)", claim.read_text())
            pid = int(found.group(1)) if found else 0
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if pid and (key.encode() in words or b"job.sh" in words or b"slurm_script" in words):
                os.kill(pid, signal.SIGKILL)
                return key
    return None
