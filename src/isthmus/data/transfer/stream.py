"""One connection of a pull: asks ahead as much as its way holds, checks what comes, and ends when it stalls."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from isthmus.data.transfer import pieces, relay, sockets, wire
from isthmus.data.transfer.intake import Intake
from isthmus.data.transfer.port import Source, Way
from isthmus.data.transfer.wire import Kind
from isthmus.data.transfer.work import Carrier, Unit, What
from isthmus.domain.errors import Forbidden, IsthmusError, Refused, Unavailable

STALL_SECONDS: Final = 4.0
_AHEAD_BYTES: Final = 1024**2
"""Asked for at first; later as much as comes in a time."""
_AHEAD_SECONDS: Final = 0.15
_MOST_AHEAD_BYTES: Final = 64 * 1024**2
_SHORT_LIST_BYTES: Final = 64 * 1024
_PART_BYTES: Final = 256 * 1024
_GATHERED_BYTES: Final = 96 * 1024
_FOLLOWING_BYTES: Final = 4 * _GATHERED_BYTES
"""Of what is to come from where on each arrival wakes: the last bytes are fewer than what is gathered."""
_IDLE_SECONDS: Final = 0.02
_SHORTEST_RATE: Final = 16 * 1024
"""Bytes that a paced stream may take `STALL_SECONDS` for, at least: one TLS record."""


@dataclass(eq=False, slots=True)
class Figures:
    """What a stream has to tell, read by the thread that leads the pull."""

    bytes: int = 0
    waited_at: float = field(default_factory=time.monotonic)
    round_trip: float = 0.0
    congestion_control: str = ""
    multipath: bool = False


class Stream(threading.Thread):
    """Runs from `start` until there is nothing more to do, `leave` is called, or it fails: then `error` says why."""

    def __init__(
        self,
        *,
        intake: Intake,
        client: ssl.SSLContext,
        shown: bytes,
        source: Source,
        way: Way,
        rate: float,
    ) -> None:
        """`shown`: the encoded list of contents; `rate`: what the sender may send on this stream, payload, 0: no bound."""
        super().__init__(name=f"transfer-{source.site}", daemon=True)
        self.source, self.way = source, way
        self.carrier = Carrier(source.site)
        self.figures = Figures()
        self.error: IsthmusError | None = None
        self.is_stalled = False
        self.is_allowed = True
        """Whether it may ask for more now."""
        self.wanted_rate = rate
        self._rate = rate
        self._intake = intake
        self._client = client
        self._shown = shown
        self._leaving = False
        self._is_ready = False
        self._gathers = False
        self._head = memoryview(bytearray(wire.HEAD.size))
        self._connection: socket.socket | None = None
        self._buffer = memoryview(bytearray(wire.MOST_BUNDLE_BYTES))

    def leave(self) -> None:
        """End it from another thread, whatever it waits for."""
        self._leaving = True
        connection = self._connection
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def run(self) -> None:
        """Connect and work."""
        work = self._intake.work
        work.join(self.carrier)
        try:
            with self._connect() as connection:
                self._connection = connection
                self._work(connection)
        except TimeoutError:
            self.is_stalled = True
            self.error = Unavailable(f"{self.source.site} sent nothing for {STALL_SECONDS:.0f} s.", code="stalled")
        except ssl.SSLCertVerificationError as error:
            cause = f"The certificate of {self.source.site} is not one of a trusted authority: {error.verify_message}."
            self.error = Forbidden(cause, code="certificate")
        except ssl.SSLError as error:
            # TLS 1.3: the server's refusal of our certificate comes after the handshake.
            refused = "ALERT" in str(error.reason)
            cause = f"TLS with {self.source.site} failed: {error.reason or error}."
            self.error = Forbidden(cause, code="certificate") if refused else Unavailable(cause)
        except OSError as error:
            self.error = Unavailable(f"{self.source.site} does not answer: {error.strerror or error}.")
        except IsthmusError as error:
            self.error = error
        except Exception as error:
            self.error = Unavailable(f"A stream ended by a defect: {error!r}.", code="defect")
        finally:
            if self.carrier.got and not self._leaving:
                self._intake.wasted(self.carrier.got)
            work.leave(self.carrier)
            self._connection = None

    def _connect(self) -> ssl.SSLSocket:
        begun = time.monotonic()
        plain = sockets.connect(self.source.endpoint, self.way)
        self._connection = plain
        try:
            if self.way.relay:
                relay.ask(plain, self._intake.order.ticket, self.way.remote or self.source.endpoint)
            self.figures.round_trip = time.monotonic() - begun
            self.figures.multipath = self.way.multipath and sockets.is_multipath(plain)
            plain.settimeout(self._patience())
            secured = self._client.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        peer = sockets.peer_of(secured)
        if peer.site != self.source.site:
            secured.close()
            raise Forbidden(f"The site that answers is {peer.site}, not {self.source.site}.", code="certificate")
        return secured

    def _patience(self) -> float:
        return max(STALL_SECONDS, 3 * _SHORTEST_RATE / self._rate if self._rate else 0.0)

    def _work(self, connection: ssl.SSLSocket) -> None:
        shows = len(self._shown) <= _SHORT_LIST_BYTES
        hello = {
            "version": wire.VERSION,
            "ticket": self._intake.order.ticket,
            "rate": self._rate,
            "dscp": self.way.dscp,
            "apn": self.way.apn,
            "flow_label": self.way.flow_label,
            "is_receiving": self.source.is_receiving,
            "shows": shows,
        }
        wire.send_json(connection, Kind.HELLO, hello)
        if shows:
            wire.send(connection, Kind.LIST, self._shown)
        while not shows and not self._is_ready:
            self._receive(connection)
        while not self._leaving:
            self._ask(connection)
            if not self.carrier.asked:
                if self._intake.is_done:
                    return
                self.figures.waited_at = time.monotonic()
                time.sleep(_IDLE_SECONDS)
                continue
            self._receive(connection)

    def _ask(self, connection: ssl.SSLSocket) -> None:
        if self.wanted_rate != self._rate:
            self._rate = self.wanted_rate
            wire.send(connection, Kind.RATE, wire.RATE.pack(int(self._rate)))
            connection.settimeout(self._patience())
        if not self.is_allowed:
            return
        seconds = _AHEAD_SECONDS + 1.5 * self.figures.round_trip
        ahead = min(_MOST_AHEAD_BYTES, max(_AHEAD_BYTES, int((self.carrier.bytes_per_second or 0) * seconds)))
        if self._rate:
            ahead = min(ahead, max(2 * pieces.LEAST_BYTES, int(self._rate * seconds)))
        owed = self.carrier.asked_bytes
        questions = bytearray()
        while owed < ahead:
            unit = self._intake.work.take(self.carrier)
            if unit is None:
                break
            owed += unit.bytes
            questions += self._question(unit)
        if questions:
            connection.sendall(questions)

    def _question(self, unit: Unit) -> bytes:
        if unit.what is What.PIECE:
            begin, length = pieces.span(self._intake.order.contents[unit.index].size_bytes, unit.number)
            kind, body = Kind.RANGE, wire.RANGE.pack(unit.index, begin, length)
        elif unit.what is What.BUNDLE:
            kind, body = Kind.BUNDLE, wire.BUNDLE.pack(unit.index, unit.number)
        else:
            kind, body = Kind.PIECES, wire.INDEX.pack(unit.index)
        return wire.HEAD.pack(kind, len(body)) + body

    def _receive(self, connection: ssl.SSLSocket) -> None:
        done = 0
        while done < len(self._head):
            done += self._some(connection, self._head[done:])
        kind, length = wire.read_head(self._head)
        if kind is Kind.DATA:
            self._receive_data(connection, length)
        elif kind is Kind.ANSWER:
            self._intake.take_list(self.carrier, wire.receive_body(connection, length, wire.LONGEST_ANSWER))
        elif kind is Kind.READY:
            told = wire.read_json(wire.receive_body(connection, length, 4096))
            self.figures.congestion_control = str(told.get("congestion_control", ""))[:16]
            self._is_ready = True
        elif kind is Kind.SHOW:
            wire.send(connection, Kind.LIST, self._shown)
        elif kind is Kind.WAIT:
            self.figures.waited_at = time.monotonic()
        elif kind is Kind.LATER:
            self._intake.work.put_back(self.carrier)
            time.sleep(_IDLE_SECONDS)
        elif kind is Kind.LIMITS:
            limits = wire.read_json(wire.receive_body(connection, length, 256 * 1024))
            for name, regions in limits.items():
                if not isinstance(regions, list):
                    raise wire.Closed(f"{self.source.site} sent limits that are no lists.")
                self._intake.take_limits(name, tuple(str(region) for region in regions))
        elif kind is Kind.NO:
            self._refused(wire.read_json(wire.receive_body(connection, length, 16384)))
        else:
            raise wire.Closed(f"{self.source.site} sent {kind.name}, which is no answer.")

    def _receive_data(self, connection: ssl.SSLSocket, length: int) -> None:
        if not self.carrier.asked or length != self.carrier.asked[0].bytes:
            raise wire.Closed(f"{self.source.site} sent {length} bytes that nobody asked for.")
        unit = self.carrier.asked[0]
        self._gather(connection, wanted=not self.source.is_receiving and self.carrier.asked_bytes > _FOLLOWING_BYTES)
        if unit.what is What.BUNDLE:
            self._fill(connection, self._buffer[:length], 0)
            self._intake.take_bundle(self.carrier, self._buffer[:length])
            return
        hasher = blake3()
        done = 0
        while done < length:
            part = self._buffer[: min(_PART_BYTES, length - done)]
            self._fill(connection, part, done)
            hasher.update(part)
            self._intake.take_part(unit, done, part)
            done += len(part)
        self._intake.take_piece(self.carrier, hasher.digest())

    def _fill(self, connection: ssl.SSLSocket, buffer: memoryview, before: int) -> None:
        done, figures, carrier = 0, self.figures, self.carrier
        rest = carrier.asked_bytes
        while done < len(buffer):
            if self._gathers and rest - done < _FOLLOWING_BYTES:
                self._gather(connection, wanted=False)
            got = self._some(connection, buffer[done:])
            done += got
            figures.bytes += got
            carrier.got = before + done

    def _some(self, connection: ssl.SSLSocket, buffer: memoryview) -> int:
        """What has come, at least one byte. TimeoutError when the stream is silent, Closed."""
        try:
            got = connection.recv_into(buffer)
        except TimeoutError:
            if not self._gathers:
                raise
            # What it waited for together may be more than there is.
            self._gather(connection, wanted=False)
            got = connection.recv_into(buffer)
        if got == 0:
            raise wire.Closed
        return got

    def _gather(self, connection: ssl.SSLSocket, *, wanted: bool) -> None:
        """Wake for many bytes at once, or for each: to wake for each packet takes more of the processor than all else."""
        if wanted != self._gathers:
            self._gathers = wanted
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _GATHERED_BYTES if wanted else 1)

    def _refused(self, told: dict[str, object]) -> None:
        code, cause = str(told.get("code", "refused"))[:64], str(told.get("cause", ""))[:500]
        if not self._is_ready or not self.carrier.asked:
            kind = Unavailable if told.get("retry") else Refused
            raise kind(f"{self.source.site}: {cause}", remedy=str(told.get("remedy", ""))[:500], code=code)
        if code == "region_limit":
            raise Refused(f"{self.source.site}: {cause}", code="region_limit")
        unit = self.carrier.asked[0]
        if told.get("retry"):
            self._intake.work.put_back(self.carrier)
            time.sleep(_IDLE_SECONDS)
            return
        self._intake.work.lacks(self.carrier, code)
        if unit.what is not What.BUNDLE or unit.number == 1:
            self._intake.note(unit.index, self.source.site, code, cause)
