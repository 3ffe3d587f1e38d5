"""A port with one thread for each connection, for data servers and relays: how many connections there may be, and how they all end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from isthmus.data.transfer import sockets
from isthmus.domain.errors import Unavailable

_MOST_GREETING: Final = 128
_MOST_GREETING_HOST: Final = 64
_PAUSE_SECONDS: Final = 0.05


class Guest:
    """One connection that was accepted. `connection`: what of it is open now (a wrapped one after its handshake)."""

    def __init__(self, listener: Listener, connection: socket.socket, host: str) -> None:
        self._listener = listener
        self._host = host
        self.connection = connection
        self._others: list[socket.socket] = []
        self._is_known = False

    def became(self, connection: socket.socket) -> None:
        """The connection is wrapped into another."""
        self.connection = connection

    def brings(self, connection: socket.socket) -> None:
        """Another connection that ends with this one."""
        self._others.append(connection)

    def greeted(self) -> None:
        """It is known who it is: it takes no place among strangers any more."""
        if not self._is_known:
            self._is_known = True
            self._listener.forget_stranger(self._host)

    def shut(self) -> None:
        """End it from another thread."""
        for connection in (self.connection, *self._others):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all of it."""
        self.greeted()
        for connection in (self.connection, *self._others):
            connection.close()


class Listener:
    """Accepts from `start` to `stop`; `serve` runs in a thread for each connection, which is closed when it returns.

    Connections beyond `most_connections` are closed at once, and so are those of strangers (who have not greeted yet) beyond
    128 in all or 64 of one address: they take no place from who is known.
    """

    def __init__(
        self, name: str, serve: Callable[[Guest], None], *, host: str, port: int, most_connections: int
    ) -> None:
        """`name` is of the threads; `host` empty: all addresses; `port` 0: a free one."""
        self._name, self._serve = name, serve
        self._host, self._wanted_port, self._most = host, port, most_connections
        self._listening: socket.socket | None = None
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()
        self._strangers: Counter[str] = Counter()
        self._ending = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listening is not None
        number: int = self._listening.getsockname()[1]
        return number

    def start(self, *, multipath: bool = False) -> Self:
        """Listen. Unavailable when the address cannot be had."""
        try:
            self._listening = sockets.listen(self._host, self._wanted_port, multipath=multipath)
        except OSError as error:
            where = f"{self._host or '*'}:{self._wanted_port}"
            raise Unavailable(f"The {self._name} cannot listen on {where}: {error}.") from None
        threading.Thread(
            target=self._accept, args=(self._listening,), name=f"{self._name} accepts", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """End all connections."""
        self._ending = True
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        with self._lock:
            for guest in self._guests:
                guest.shut()

    def forget_stranger(self, host: str) -> None:
        """One of the connections from an address is known now, or gone."""
        with self._lock:
            self._strangers[host] -= 1
            if self._strangers[host] <= 0:
                del self._strangers[host]

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, address = listening.accept()
            except OSError:
                if self._ending:
                    return
                time.sleep(_PAUSE_SECONDS)  # out of descriptors, mostly
                continue
            guest = self._let_in(connection, str(address[0]))
            if guest is None:
                connection.close()
                continue
            threading.Thread(target=self._host_guest, args=(guest,), name=f"{self._name} serves", daemon=True).start()

    def _let_in(self, connection: socket.socket, host: str) -> Guest | None:
        with self._lock:
            full = len(self._guests) >= self._most or self._strangers[host] >= _MOST_GREETING_HOST
            if full or self._strangers.total() >= _MOST_GREETING or self._ending:
                return None
            self._strangers[host] += 1
            guest = Guest(self, connection, host)
            self._guests.add(guest)
            return guest

    def _host_guest(self, guest: Guest) -> None:
        try:
            self._serve(guest)
        finally:
            with self._lock:
                self._guests.discard(guest)
            guest.close()
