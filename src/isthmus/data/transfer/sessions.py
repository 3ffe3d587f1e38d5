"""What a server knows of the orders that it serves: the list of contents behind a ticket, and the rate that all its connections share."""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict
from typing import Final

from blake3 import blake3

from isthmus.data.transfer import sockets
from isthmus.data.transfer.port import MAX_CONTENTS
from isthmus.data.transfer.tickets import Ticket
from isthmus.data.transfer.wire import Closed

_ENTRY: Final = 40
_REMEMBERED_BYTES: Final = 64 * 1024**2


class Contents:
    """A list of contents as it came over the wire: 40 bytes for each."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded) // _ENTRY

    def __getitem__(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise Closed(f"The reader asked for content {index} of {len(self)}.")
        entry = self.encoded[index * _ENTRY : (index + 1) * _ENTRY]
        return entry[:32].hex(), int.from_bytes(entry[32:], "big")

    def some(self, first: int, count: int) -> list[tuple[str, int]]:
        """Contents that follow one another."""
        if not 0 <= first <= first + count <= len(self):
            raise Closed(f"The reader asked for contents {first} to {first + count} of {len(self)}.")
        text = self.encoded[first * _ENTRY : (first + count) * _ENTRY].hex()
        width = 2 * _ENTRY
        return [(text[at : at + 64], int(text[at + 64 : at + width], 16)) for at in range(0, len(text), width)]


class Sessions:
    """Lists and rates by ticket; lists of orders that nobody reads are forgotten when they fill the memory that they may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._learned = threading.Condition(self._lock)
        self._expected: set[tuple[str, str]] = set()
        self._lists: OrderedDict[str, Contents] = OrderedDict()
        self._members: dict[str, dict[socket.socket, float]] = {}

    def contents(self, ticket: Ticket) -> Contents | None:
        """The list behind a ticket, where it is known."""
        with self._lock:
            found = self._lists.get(ticket.contents)
            if found is not None:
                self._lists.move_to_end(ticket.contents)
            return found

    def expect(self, ticket: Ticket) -> bool:
        """Whether the caller is to ask for the list behind a ticket: not while another does. It calls `forgo` when it is done."""
        with self._lock:
            if (ticket.order, ticket.contents) in self._expected:
                return False
            self._expected.add((ticket.order, ticket.contents))
            return True

    def forgo(self, ticket: Ticket) -> None:
        """The list that was asked for is here, or does not come."""
        with self._lock:
            self._expected.discard((ticket.order, ticket.contents))
            self._learned.notify_all()

    def expected(self, ticket: Ticket, seconds: float) -> Contents | None:
        """Wait for a list that another connection asks for; None when it is not here by then."""
        with self._lock:
            self._learned.wait_for(lambda: (ticket.order, ticket.contents) not in self._expected, seconds)
            return self._lists.get(ticket.contents)

    def learn(self, ticket: Ticket, encoded: bytes) -> Contents | None:
        """Take a list in; None when it is not the one that the ticket names."""
        if (
            len(encoded) % _ENTRY
            or len(encoded) > MAX_CONTENTS * _ENTRY
            or blake3(encoded).hexdigest() != ticket.contents
        ):
            return None
        with self._lock:
            found = self._lists[ticket.contents] = Contents(encoded)
            while sum(len(item.encoded) for item in self._lists.values()) > _REMEMBERED_BYTES and len(self._lists) > 1:
                self._lists.popitem(last=False)
            return found

    def pace(self, ticket: Ticket, connection: socket.socket, asked: float) -> None:
        """Let a connection have the rate that it asks for (0: no bound), as far as the ticket lets all of its order together."""
        with self._lock:
            members = self._members.setdefault(ticket.order, {})
            members[connection] = asked
            self._share(ticket, members)

    def leave(self, ticket: Ticket, connection: socket.socket) -> None:
        """The connection is over; the others share its rate."""
        with self._lock:
            members = self._members.get(ticket.order, {})
            members.pop(connection, None)
            if members:
                self._share(ticket, members)
            else:
                self._members.pop(ticket.order, None)

    @staticmethod
    def _share(ticket: Ticket, members: dict[socket.socket, float]) -> None:
        limit = ticket.bytes_per_second
        even = 0.0 if limit is None else limit / len(members)
        wanted = {member: asked or even for member, asked in members.items()}
        total = sum(wanted.values())
        scale = 1.0 if limit is None or total <= limit else limit / total
        for member, rate in wanted.items():
            try:
                sockets.pace(member, rate * scale)
            except OSError:  # it is being closed
                continue
