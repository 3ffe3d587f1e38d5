"""A real server as a process of its own, and a client of its TES face."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import tes

PATIENCE_SECONDS = 120
ENDED = {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"}
VENV = Path(sys.prefix)
PYTHON = f"{VENV}:{Path(sys.base_prefix).resolve()}"  # what a container needs to see of the Python that runs the tests


def wait_for(what: Callable[[], Any], why: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `what` answers once it is true; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{why}: not within {seconds} s")
        time.sleep(0.2)


class TesServer:
    """A running server, its address and its administrator's token."""

    def __init__(self, state: Path, files: Path) -> None:
        self.state = state
        self.files = files
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""

    def start(self) -> None:
        """Start and wait until it says where it is."""
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        arguments = ["--state", str(self.state), "--listen", "127.0.0.1:0", "--tes-files", str(self.files)]
        with (self.state.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "isthmus.server", *arguments], env=environment, stdout=log, stderr=log
            )
        place = self.state / "service.json"

        def ready() -> Any:
            if self.process is not None and self.process.poll() is not None:
                pytest.fail((self.state.parent / "server.log").read_text()[-4000:])
            return place.exists()

        wait_for(ready, "the server starts")
        self.url = json.loads(place.read_bytes())["url"]
        self.token = (self.state / "admin-token").read_text().strip()

    def stop(self) -> None:
        """Stop by pid, with force if it must be."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    @property
    def base(self) -> str:
        """The address of the TES face as compliance suites take it."""
        return f"{self.url}/ga4gh/tes/v1"

    @property
    def client(self) -> tes.HTTPClient:
        """py-tes, unchanged."""
        return tes.HTTPClient(f"{self.url}/ga4gh/tes", token=self.token, timeout=60)


class Http:
    """Plain HTTP to the TES face."""

    def __init__(self, server: TesServer, client: httpx.Client) -> None:
        self.server = server
        self.client = client

    def get(self, path: str, params: Any = None) -> httpx.Response:
        """GET below the base."""
        return self.client.get(self.server.base + path, params=params)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """POST JSON below the base."""
        return self.client.post(self.server.base + path, json=body)

    def create(self, body: Any) -> str:
        """Create a task that must be accepted; its id."""
        answer = self.post("/tasks", body)
        assert answer.status_code == 200, answer.text
        task_id: str = answer.json()["id"]
        return task_id

    def task(self, task_id: str, view: str = "FULL") -> dict[str, Any]:
        """A task in a view."""
        answer = self.get(f"/tasks/{task_id}", {"view": view})
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def ended(self, task_id: str, state: str | None = None) -> dict[str, Any]:
        """The task in the view FULL once it has ended (in this state)."""
        wait_for(lambda: self.task(task_id, "MINIMAL")["state"] in ENDED, f"task {task_id} ends")
        shown = self.task(task_id)
        assert state in (None, shown["state"]), json.dumps(shown, indent=1)
        return shown

    def run(self, body: Any, state: str = "COMPLETE") -> dict[str, Any]:
        """Create a task and wait until it ended as it should."""
        return self.ended(self.create(body), state)


def join_site(server: TesServer, root: Path, **more: Any) -> None:
    """Join this host as a site whose images are its own system in a sandbox."""
    site = {
        "name": "here",
        "kind": "local",
        "config": {
            "root": str(root),
            "cpus": 4,
            "images": {"absent*": "/nowhere/image.tar", "*": "host"},
            "binds": PYTHON,
            "env": {"PATH": f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin"},
            **more,
        },
        "accounts": {"*": ""},
    }
    with httpx.Client(headers={"Authorization": f"Bearer {server.token}"}, trust_env=False) as client:
        answer = client.post(f"{server.url}/v1/sites", json=site)
        assert answer.status_code == 201, answer.text

        def reachable() -> bool:
            return bool(client.get(f"{server.url}/v1/sites/here").json()["pools"])

        wait_for(reachable, "the site describes itself")
