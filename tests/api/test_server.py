"""The process: it starts once per state, listens safely, runs a task on its own machine, and stops in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from isthmus.domain.errors import Invalid
from isthmus.server import parse

PATIENCE = 60.0
SOURCE = Path(__file__).parents[2] / "src"


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait with a deadline until it is so, or the process ends."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        if process is not None:
            assert process.poll() is None, "the process ended"
        time.sleep(0.05)


def launch(state: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start the server; its log goes to STATE.log."""
    with state.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "isthmus.server", "--state", str(state), "--listen", "127.0.0.1:0", *more],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdout=log,
            stderr=log,
        )


@contextmanager
def running(state: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server that serves, and a client of it as administrator."""
    process = launch(state, *more)
    try:
        wait_for((state / "service.json").exists, process)
        service = json.loads((state / "service.json").read_text())
        assert service["pid"] == process.pid
        token = (state / "admin-token").read_text().strip()
        with httpx.Client(base_url=service["url"], headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_task_runs_on_the_machine_itself(tmp_path: Path) -> None:
    """With --join-local a fresh state runs a task to its end, its log is read, and the stop is orderly."""
    state = tmp_path / "state"
    with running(state, "--join-local", "--local-images", "none") as (process, client):
        made = client.post("/v1/tasks", json={"command": ["echo", "hello"]})
        assert made.status_code == 201
        path = f"/v1/tasks/{made.json()['id']}"
        wait_for(lambda: client.get(path).json()["ended_at"] is not None, process)
        task = client.get(path).json()
        assert (task["state"], task["exit_code"], task["site"]) == ("succeeded", 0, "local")
        log = client.get(f"{path}/logs")
        assert (log.content, log.headers["x-log-complete"]) == (b"hello\n", "true")
        receipt = client.get(f"{path}/receipts").json()["items"][0]
        assert receipt["chosen_site"] == "local"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not (state / "service.json").exists()
    for name in ("admin-token", "key", "lock"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    text = state.with_suffix(".log").read_text()
    assert (state / "admin-token").read_text().strip() not in text


def test_an_open_stream_does_not_delay_the_stop(tmp_path: Path) -> None:
    """A reader of events is told, and the process ends."""
    with running(tmp_path / "state") as (process, client), client.stream("GET", "/v1/events") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        process.send_signal(signal.SIGTERM)
        assert any("stopping" in line for line in lines)
        assert process.wait(PATIENCE) == 0


def test_one_process_for_one_state(tmp_path: Path) -> None:
    """A second process on the same state ends at once and says why; after a kill the state is free again."""
    state = tmp_path / "state"
    with running(state) as (first, client):
        second = launch(state)
        assert second.wait(PATIENCE) == 1
        assert "Another process serves" in state.with_suffix(".log").read_text()
        assert client.get("/v1/health").status_code == 200
        first.kill()
        first.wait()
        (state / "service.json").unlink()
    with running(state) as (_, client):
        assert client.get("/v1/me").json()["user"] == "admin"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """The process ends with a sentence, not a traceback."""
    with running(tmp_path / "one") as (_, client):
        other = launch(tmp_path / "two", "--listen", f"127.0.0.1:{client.base_url.port}")
        assert other.wait(PATIENCE) == 1
        text = (tmp_path / "two.log").read_text()
        assert "Cannot listen" in text
        assert "Traceback" not in text


@pytest.mark.parametrize("address", ["0.0.0.0:8800", "[::]:8800", "10.0.0.1:1", "example.org:8800"])
def test_beyond_this_machine_only_with_tls(address: str) -> None:
    """Tokens do not travel readable unless the operator insists."""
    with pytest.raises(Invalid, match="TLS"):
        parse(["--state", "s", "--listen", address])
    assert parse(["--state", "s", "--listen", address, "--insecure"]).insecure
    assert parse(["--state", "s", "--listen", address, "--tls-cert", "c", "--tls-key", "k"]).url.startswith("https://")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:8800", "[::1]:1", "127.9.9.9:2"])
def test_on_this_machine_without_tls(address: str) -> None:
    """Loopback addresses need nothing."""
    assert parse(["--state", "s", "--listen", address]).url.startswith("http://")


@pytest.mark.parametrize("address", ["8800", ":8800", "localhost", "localhost:x", "localhost:70000"])
def test_nonsense_is_no_address(address: str) -> None:
    """What is no address is refused with how to write one."""
    with pytest.raises(Invalid, match="--listen"):
        parse(["--state", "s", "--listen", address])


def test_it_serves_at_a_socket_that_it_was_given_and_at_one_of_its_own(tmp_path: Path) -> None:
    """The first address is the service's own; a descriptor that is no bound socket is refused by name."""
    with socket.create_server(("127.0.0.1", 0)) as given, socket.create_server(("127.0.0.1", 0)) as free:
        ports = given.getsockname()[1], free.getsockname()[1]
        free.close()
        words = [sys.executable, "-m", "isthmus.server", "--state", str(tmp_path / "s")]
        words += ["--listen", f"fd:{given.fileno()}", "--listen", f"127.0.0.1:{ports[1]}"]
        process = subprocess.Popen(words, pass_fds=[given.fileno()], stderr=subprocess.PIPE, text=True)
    try:
        file = tmp_path / "s" / "service.json"
        deadline = time.monotonic() + 60
        while not file.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(file.read_text())["url"] == f"http://127.0.0.1:{ports[0]}"
        for port in ports:
            assert httpx.get(f"http://127.0.0.1:{port}/v1/health").status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)
    with pytest.raises(Invalid, match="no socket at descriptor"):
        parse(["--state", "s", "--listen", "fd:999"])
