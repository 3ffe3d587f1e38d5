"""The reconciler and daemons that talk nonsense: one of them does not keep the others from being followed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.network import Control, DeclaredNetwork, NetNode, NodeKind
from isthmus.engine import routers
from isthmus.engine.clock import SystemClock
from isthmus.engine.declaring import declare
from isthmus.engine.fleet import Fleet
from isthmus.engine.routers import Routers
from isthmus.engine.routerstates import RouterStates
from isthmus.store.database import Database

GOOD = {"links": b'{"links": {}}', "state": b'{"state": {}}', "apply": b'{"made": 1, "removed": 0}'}


@contextlib.contextmanager
def _daemon(path: Path, answers: dict[str, bytes]) -> Iterator[None]:
    """A daemon at a socket that says just this; whoever watches hears nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(answers.get(json.loads(line)["do"], b"[]") + b"\n")

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"links": b"no json", "state": b"no json"},
        {"links": b"[1]", "state": b"[1]"},
        {"links": b'{"links": 3}', "state": b'{"state": 3}', "apply": b'{"made": "many"}'},
        {"links": b"{}", "state": b"{}", "apply": b'{"made": null}'},
        {"links": b'{"error": 3}', "state": b'{"error": {"code": "x"}}'},
    ],
)
@pytest.mark.parametrize("given_up", [False, True])
async def test_one_daemon_that_talks_nonsense_holds_up_no_other(
    sqlite_store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: dict[str, bytes], given_up: bool
) -> None:
    """The others are corrected, and the error is told of the one whose it is, also when a router was given up during the look."""
    names = ("r1", "r2", "r3")
    sockets = {name: tmp_path / f"{name}.socket" for name in names}
    nodes = tuple(
        NetNode(
            name=name,
            kind=NodeKind.ROUTER,
            locator=f"fd00:0:{index}::/48",
            control=Control(socket=str(sockets[name])),
        )
        for index, name in enumerate(names, 1)
    )
    sqlite_store.write_now(declare, DeclaredNetwork(nodes=nodes, links=()), by="ada", now=1.0)
    told: dict[str, str] = {}
    monkeypatch.setattr(routers, "_note", lambda _connection, _now, _wanted, errors: told.update(errors))
    if given_up:
        states = RouterStates()
        monkeypatch.setattr(
            routers, "RouterStates", lambda: lambda *of: {k: one for k, one in states(*of).items() if k != "r1"}
        )
    fleet = Fleet(sqlite_store, DirectoryBlobStore(tmp_path / "blobs"), None)
    reconciler = Routers(sqlite_store, fleet, SystemClock(), list(sockets.values()))
    with contextlib.ExitStack() as stack:
        for name in names:
            answers: dict[str, Any] = {**GOOD, **nonsense} if name == "r2" else GOOD
            stack.enter_context(_daemon(sockets[name], answers))
        changed = await reconciler.reconcile()
    assert changed == (1 if given_up else 2)
    assert list(told) == ["r2"]
