"""A real Chromium for the tests and the benchmark of the web page, and a door between it and the service that can be shut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from isthmus.lab.packages import find_program

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """The system's Chromium, headless; its processes end with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"), args=[*FLAGS, *more])
        try:
            yield browser
        finally:
            browser.close()


class DoorBetween:
    """Passes bytes from a port of its own to the service; shut, it cuts what is open and lets nothing in."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = True
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def shut(self) -> None:
        """Cut all."""
        self._open = False

    def open(self) -> None:
        """Let in again."""
        self._open = True

    def close(self) -> None:
        """End."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.05):
                found = key.fileobj
                assert isinstance(found, socket.socket)
                if found is self._listener:
                    self._admit()
                elif found in self._pairs:
                    self._pass_on(found)
            if not self._open:
                for one in list(self._pairs):
                    self._drop(one)
        for one in list(self._pairs):
            self._drop(one)
        self._listener.close()
        self._selector.close()

    def _admit(self) -> None:
        inner, _ = self._listener.accept()
        if not self._open:
            inner.close()
            return
        outer = socket.create_connection(("127.0.0.1", self._to))
        for one, other in ((inner, outer), (outer, inner)):
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        content = b""
        with contextlib.suppress(OSError):
            content = one.recv(65536)
        if content:
            with contextlib.suppress(OSError):
                self._pairs[one].sendall(content)
                return
        self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for end in (one, other):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()
