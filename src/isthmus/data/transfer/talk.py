"""One connection of a data server, from its greeting to its end: every request is checked against the limits that lie beside the content."""

from __future__ import annotations

import contextlib
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from isthmus.data.transfer import sockets, tickets, wire
from isthmus.data.transfer.holdings import Holdings, NotYet
from isthmus.data.transfer.pieces import MOST_BYTES
from isthmus.data.transfer.sessions import Contents
from isthmus.data.transfer.tickets import Ticket
from isthmus.data.transfer.wire import Kind
from isthmus.domain.errors import Busy, Forbidden, IsthmusError, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from isthmus.data.transfer.server import Server

_T = TypeVar("_T")
_LAST_WORD_SECONDS: Final = 3.0
_NOT_YET_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02
_PART_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one connection carried: for accounts and for figures of available bandwidth."""

    order: str
    reader: str
    bytes: int
    seconds: float
    round_trip_seconds: float
    retransmitted: int


class Talk:
    """One connection, from its greeting to its end."""

    def __init__(self, server: Server, connection: ssl.SSLSocket, congestion_control: str) -> None:
        self._server = server
        self._connection = connection
        self._used = congestion_control
        self._begun = time.monotonic()
        self._sent = 0
        self._ticket: Ticket | None = None
        self._contents = Contents(b"")
        self._peer = sockets.Peer("", "")
        self._buffer = memoryview(bytearray(0))
        self._is_patient = False
        self._holdings = Holdings(server.keep, "")

    def run(self) -> None:
        """Answer until the other end closes. OSError and Closed when it goes away otherwise."""
        try:
            self._greet()
        except IsthmusError as error:
            if isinstance(error, wire.Closed):
                raise
            self._refuse(error)
            self._listen_out()
            return
        # A bundle and its head fit; a longer range is sent in parts.
        self._buffer = memoryview(bytearray(wire.HEAD.size + wire.MOST_BUNDLE_BYTES))
        while True:
            kind, length = wire.receive_head(self._connection)
            body = wire.receive_body(self._connection, length, 64)
            try:
                assert self._ticket is not None
                tickets.check_time(self._ticket, time.time())
                self._answer(kind, body)
            except wire.Closed:
                raise
            except IsthmusError as error:
                self._refuse(error)

    def _listen_out(self) -> None:
        """Close only when the other end has: what it still sends would reset the connection, and our answer with it."""
        self._connection.settimeout(_LAST_WORD_SECONDS)
        until = time.monotonic() + _LAST_WORD_SECONDS
        with contextlib.suppress(OSError):
            while self._connection.recv(65536) and time.monotonic() < until:
                pass

    def end(self) -> None:
        """Leave the session, and tell what was carried."""
        self._holdings.close()
        if self._ticket is None:
            return
        round_trip, again = sockets.figures(self._connection)
        self._server.sessions.leave(self._ticket, self._connection)
        if self._server.on_served:
            self._server.on_served(
                Served(
                    order=self._ticket.order,
                    reader=self._peer.site,
                    bytes=self._sent,
                    seconds=time.monotonic() - self._begun,
                    round_trip_seconds=round_trip,
                    retransmitted=again,
                )
            )

    def _greet(self) -> None:
        self._peer = sockets.peer_of(self._connection)
        kind, length = wire.receive_head(self._connection)
        if kind is not Kind.HELLO:
            raise wire.Closed("The other end does not greet.")
        hello = wire.read_json(wire.receive_body(self._connection, length, 16384))
        if hello.get("version") != wire.VERSION:
            raise Refused(f"This data server speaks version {wire.VERSION} of the protocol.", code="transfer_version")
        ticket = tickets.verify(str(hello.get("ticket")), self._server.ticket_keys, now=time.time())
        if ticket.reader != self._peer.site or self._server.site not in ticket.sources:
            raise Forbidden(
                f"The ticket is for {ticket.reader} to read at {', '.join(ticket.sources)}; "
                f"this is {self._peer.site} at {self._server.site}.",
                code="ticket_of_another",
            )
        try:
            dscp, apn, rate = int(hello.get("dscp", 0)), int(hello.get("apn", 0)), float(hello.get("rate", 0))
            if not (0 <= dscp < 64 and 0 <= apn < 1 << 32 and 0 <= rate < 1e15):
                raise ValueError
        except (TypeError, ValueError):
            raise wire.Closed("The greeting has fields that are none.") from None
        sockets.mark(self._connection, dscp=dscp, apn=apn)
        if hello.get("flow_label") and not sockets.reflects_flow_labels():
            raise Refused(
                f"The host of {self._server.site} does not answer with the flow label that it is asked with.",
                remedy="Set net.ipv6.flowlabel_reflect to 1 there before the data server starts, or mark by DSCP.",
                code="marks",
            )
        self._is_patient = bool(hello.get("is_receiving"))
        self._contents = self._learn(ticket, shown=bool(hello.get("shows")))
        self._holdings = Holdings(self._server.keep, self._peer.region)
        self._ticket = ticket
        self._server.sessions.pace(ticket, self._connection, rate)
        wire.send_json(self._connection, Kind.READY, {"site": self._server.site, "congestion_control": self._used})

    def _learn(self, ticket: Ticket, *, shown: bool) -> Contents:
        sessions = self._server.sessions
        if shown:
            return self._shown(ticket)
        found = sessions.contents(ticket)
        # Of the connections of an order one shows the list.
        while found is None and not sessions.expect(ticket):
            found = sessions.expected(ticket, wire.WAIT_SECONDS)
            if found is None:
                wire.send(self._connection, Kind.WAIT)
        if found is not None:
            return found
        try:
            wire.send(self._connection, Kind.SHOW)
            return self._shown(ticket)
        finally:
            sessions.forgo(ticket)

    def _shown(self, ticket: Ticket) -> Contents:
        kind, length = wire.receive_head(self._connection)
        if kind is not Kind.LIST:
            raise wire.Closed("The other end does not show its list.")
        body = wire.receive_body(self._connection, length, wire.LONGEST_QUESTION)
        found = self._server.sessions.learn(ticket, body)
        if found is None:
            raise Forbidden("The list of contents is not the one that the ticket names.", code="ticket_of_another")
        return found

    def _answer(self, kind: Kind, body: bytes) -> None:
        try:
            if kind is Kind.RANGE:
                self._send_range(*wire.RANGE.unpack(body))
            elif kind is Kind.BUNDLE:
                self._send_bundle(*wire.BUNDLE.unpack(body))
            elif kind is Kind.PIECES:
                blake3, _size = self._contents[wire.INDEX.unpack(body)[0]]
                self._holdings.limits(blake3)
                listed = self._when_here(blake3, lambda: self._holdings.list_of(blake3))
                if listed is not None:
                    wire.send(self._connection, Kind.ANSWER, listed)
            elif kind is Kind.RATE:
                assert self._ticket is not None
                self._server.sessions.pace(self._ticket, self._connection, float(wire.RATE.unpack(body)[0]))
            else:
                raise wire.Closed(f"The other end asked {kind.name}, which is no question.")
        except struct.error:
            raise wire.Closed("The other end sent a question of another length.") from None

    def _send_range(self, index: int, offset: int, length: int) -> None:
        blake3, size = self._contents[index]
        if not 0 < length <= MOST_BYTES or offset + length > size:
            raise wire.Closed("The other end asked for a range that the content does not have.")
        self._tell_limits({blake3: self._holdings.limits(blake3)})
        head, done = wire.HEAD.size, 0
        wire.HEAD.pack_into(self._buffer, 0, Kind.DATA, length)
        while done < length:
            count = min(_PART_BYTES, length - done)
            # The head goes with the first bytes: one TLS record less.
            begin = head if done == 0 else 0
            part = self._buffer[begin : begin + count]

            def read(at: int = offset + done, part: memoryview = part) -> bool:
                self._holdings.read_range(blake3, size, at, part)
                return True

            if done == 0:
                if self._when_here(blake3, read) is None:
                    return
            else:
                self._go_on(read)
            self._connection.sendall(self._buffer[: begin + count])
            done += count
        self._sent += length

    @staticmethod
    def _go_on(read: Callable[[], bool]) -> None:
        """What fails behind a DATA head ends the connection: there is no place for words in it."""
        try:
            read()
        except (NotYet, IsthmusError) as error:
            raise wire.Closed(f"The content went away while it was sent: {error}.") from None

    def _send_bundle(self, first: int, count: int) -> None:
        if not 0 < count <= wire.MOST_FILES:
            raise wire.Closed("The other end asked for a bundle that is too large.")
        entries = self._contents.some(first, count)
        at = wire.HEAD.size
        if at + sum(size for _blake3, size in entries) > len(self._buffer):
            raise wire.Closed("The other end asked for a bundle that is too large.")
        limits = self._holdings.limits_of([blake3 for blake3, _size in entries])
        for blake3, size in entries:
            part = self._buffer[at : at + size]
            try:
                self._holdings.read_small(blake3, part)
            except NotYet:

                def read(blake3: str = blake3, part: memoryview = part) -> bool:
                    self._holdings.read_small(blake3, part)
                    return True

                if self._when_here(blake3, read) is None:
                    return
            at += size
        self._tell_limits(limits)
        wire.HEAD.pack_into(self._buffer, 0, Kind.DATA, at - wire.HEAD.size)
        self._connection.sendall(self._buffer[:at])
        self._sent += at - wire.HEAD.size

    def _when_here(self, blake3: str, look: Callable[[], _T]) -> _T | None:
        """What `look` finds. While it is not there and may come, the other end is told so; after a while LATER was sent: None."""
        begun = told = time.monotonic()
        while True:
            try:
                return look()
            except NotYet:
                now = time.monotonic()
                if not self._is_patient:
                    raise NotFound(f"The content {blake3} is not at {self._server.site}.") from None
                if now - begun > _NOT_YET_SECONDS:
                    wire.send(self._connection, Kind.LATER)
                    return None
                if now - told > wire.WAIT_SECONDS:
                    wire.send(self._connection, Kind.WAIT)
                    told = now
                time.sleep(_LOOK_SECONDS)

    def _tell_limits(self, limits: dict[str, tuple[str, ...]]) -> None:
        limited = {blake3: list(regions) for blake3, regions in limits.items() if regions}
        if limited:
            wire.send_json(self._connection, Kind.LIMITS, limited)

    def _refuse(self, error: IsthmusError) -> None:
        retry = isinstance(error, Busy | Unavailable)
        fields = {"code": error.code, "cause": error.cause, "remedy": error.remedy, "retry": retry}
        wire.send_json(self._connection, Kind.NO, fields)
