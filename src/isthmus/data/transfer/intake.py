"""Where what comes from the streams goes: checked against hashes, written, and made visible under its name once it is whole."""

from __future__ import annotations

import errno
import os
import threading
from typing import Final

from blake3 import blake3

from isthmus.data.transfer import pieces, wire
from isthmus.data.transfer.arrival import Arrival, SmallArrivals
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.port import Failure, Order
from isthmus.data.transfer.work import Carrier, Unit, Work, piece
from isthmus.domain.errors import Corrupt, Unavailable

_MOST_FAILURES: Final = 1000
_SPARE_BYTES: Final = 64 * 1024**2
"""Room that is left to the file system besides what is ordered."""


class Full(Unavailable):
    """There is no room at this end."""

    code = "no_space"


class Intake:
    """Of one pull. Methods that begin with `take` are for the streams' threads, the others for the one that leads the pull."""

    def __init__(self, keep: Keep, order: Order) -> None:
        """Find what is here already. Conflict when another pull fetches some of it, Full when there is no room, Unavailable."""
        self.order = order
        self._keep = keep
        self._names = {content.blake3 for content in order.contents}
        self._lock = threading.Lock()
        self._arrivals: dict[int, Arrival] = {}
        self._smalls = SmallArrivals(keep, order.id)
        self._checked: list[tuple[int, Arrival]] = []
        self._list_from: dict[int, str] = {}
        self.failures: list[Failure] = []
        self.received_bytes = 0
        self.resent_bytes = 0
        self.verified_bytes = 0
        self.contents_done = 0
        contents = order.contents
        try:
            present = keep.present(content.blake3 for content in contents)
        except OSError as error:
            self.close()
            raise self._failing(error) from None
        have = {index for index, content in enumerate(contents) if content.blake3 in present}
        self.contents_done = len(have)
        self.verified_bytes = sum(contents[index].size_bytes for index in have)
        try:
            self.resumed_bytes = self._resume(have)
        except OSError as error:
            raise self._failing(error) from None
        verified = {index: arrival.verified for index, arrival in self._arrivals.items()}
        lists = {index for index, arrival in self._arrivals.items() if arrival.listed is not None}
        sites = {source.site for source in order.sources}
        self.work = Work(contents, have, verified, lists, sites, order.size_bytes - self.verified_bytes)

    @property
    def is_done(self) -> bool:
        """Whether every content is visible under its name."""
        return self.contents_done == len(self.order.contents)

    def take_part(self, unit: Unit, offset: int, data: memoryview) -> None:
        """Bytes of a piece; Full, Unavailable."""
        try:
            self._arrival(unit.index).write(unit.number, offset, data)
        except OSError as error:
            raise self._failing(error) from None

    def take_piece(self, carrier: Carrier, digest: bytes) -> None:
        """The first unit asked of a stream is a piece, all written."""
        unit, is_new = self.work.came(carrier)
        arrival = self._arrival(unit.index)
        try:
            counts = is_new and arrival.received(unit.number, digest, carrier.site)
        except Corrupt as error:
            self._wrong(unit, carrier.site, error)
            return
        self._count(unit.bytes, counts)

    def take_list(self, carrier: Carrier, listed: bytes) -> None:
        """The first unit asked of a stream is a list of pieces."""
        unit, is_new = self.work.came(carrier)
        if not is_new:
            return
        try:
            wrong = self._arrival(unit.index).receive_list(listed)
        except Corrupt as error:
            self._wrong(unit, carrier.site, error)
            return
        except OSError as error:
            raise self._failing(error) from None
        self._list_from.setdefault(unit.index, carrier.site)
        size = self.order.contents[unit.index].size_bytes
        for number, site in wrong.items():
            late = piece(unit.index, number, size)
            with self._lock:
                self.verified_bytes -= late.bytes
            self._wrong(late, site, Corrupt(f"Piece {number} is not what the list of {carrier.site} says."))

    def take_bundle(self, carrier: Carrier, data: memoryview) -> None:
        """The first unit asked of a stream is a bundle: its contents end to end. Full, Unavailable."""
        unit, is_new = self.work.came(carrier)
        if not is_new:
            self._count(unit.bytes, False)
            return
        at = 0
        right, names = 0, []
        for index in range(unit.index, unit.index + unit.number):
            content = self.order.contents[index]
            part = data[at : at + content.size_bytes]
            at += content.size_bytes
            if blake3(part).hexdigest() != content.blake3:
                self._wrong(
                    Unit(unit.what, index, 1, content.size_bytes),
                    carrier.site,
                    Corrupt("The content is not what its name says."),
                )
                continue
            try:
                self._smalls.write(content.blake3, part)
            except OSError as error:
                raise self._failing(error) from None
            names.append(content.blake3)
            right += content.size_bytes
        self._smalls.note(names)
        self._count(right, True)

    def take_limits(self, blake3: str, regions: tuple[str, ...]) -> None:
        """A limit that lies beside the sender's replica goes with the content. Refused when it leaves no region; Closed for a content
        that was not asked for, or is here already: what lies here is not the sender's to limit."""
        if blake3 not in self._names or self._keep.has(blake3):
            raise wire.Closed("The source limits what was not asked of it.")
        self._keep.limit(blake3, regions)

    def note(self, index: int, site: str, code: str, cause: str) -> None:
        """A source does not give a content."""
        with self._lock:
            name = self.order.contents[index].blake3
            self._add(Failure(site=site, blake3=name, code=code, cause=cause))

    def wasted(self, size: int) -> None:
        """Bytes of a unit that came and that the end of their stream made useless."""
        with self._lock:
            self.received_bytes += size
            self.resent_bytes += size

    def settle(self, now: float, *, is_last: bool = False) -> None:
        """Let what is whole become visible; hash and flush as far as it has come. Full, Unavailable."""
        try:
            with self._lock:
                arrivals = list(self._arrivals.items())
            for index, arrival in arrivals:
                if arrival.left:
                    arrival.advance()
                    continue
                with self._lock:
                    del self._arrivals[index]
                try:
                    arrival.check()
                except Corrupt as error:
                    self._wholly_wrong(index, error)
                    continue
                self._checked.append((index, arrival))
            if self._checked:
                self._keep.flush()
                for index, arrival in self._checked:
                    self._limit(index)
                    arrival.publish()
                    self.contents_done += 1
                self._checked.clear()
            self.contents_done += self._smalls.publish(now=now, is_last=is_last, before=self._limit_named)
        except OSError as error:
            raise self._failing(error) from None

    def close(self) -> None:
        """Leave what is not whole for a later pull."""
        for arrival in self._arrivals.values():
            arrival.close()
        self._smalls.close()

    def _resume(self, have: set[int]) -> int:
        contents = self.order.contents
        resumed = 0
        try:
            for index, content in enumerate(contents):
                if index in have or pieces.is_small(content.size_bytes):
                    continue
                if (self._keep.incoming / f"{content.blake3}.have").exists():
                    arrival = self._arrivals[index] = Arrival(self._keep, content)
                    resumed += arrival.resumed_bytes
            self.verified_bytes += resumed
            wanted = {
                content.blake3: index
                for index, content in enumerate(contents)
                if index not in have and pieces.is_small(content.size_bytes)
            }
            found = self._smalls.resume(wanted)
            have |= {wanted[name] for name in found}
            resumed += sum(found.values())
            self.verified_bytes += sum(found.values())
            room = os.statvfs(self._keep.path)
            # What arrived before has its room already.
            left = sum(
                content.size_bytes
                for index, content in enumerate(contents)
                if index not in have and index not in self._arrivals
            )
            if left and left + _SPARE_BYTES > room.f_bavail * room.f_frsize:
                raise Full(
                    f"{left:,} bytes are to come, and {self._keep.path} has room for {room.f_bavail * room.f_frsize:,}.",
                    remedy="Make room there.",
                )
        except BaseException:
            self.close()
            raise
        return resumed

    def _arrival(self, index: int) -> Arrival:
        with self._lock:
            found = self._arrivals.get(index)
            if found is None:
                found = self._arrivals[index] = Arrival(self._keep, self.order.contents[index])
            return found

    def _count(self, size: int, counts: bool) -> None:
        with self._lock:
            self.received_bytes += size
            if counts:
                self.verified_bytes += size
            else:
                self.resent_bytes += size

    def _wrong(self, unit: Unit, site: str, error: Corrupt) -> None:
        """A source sent what is not right: it is not asked for that content again."""
        with self._lock:
            self.received_bytes += unit.bytes
            self._fail(unit.index, site, error)
        self.work.was_wrong(unit, site)

    def _wholly_wrong(self, index: int, error: Corrupt) -> None:
        """The pieces fit their list, and the whole is wrong: whoever gave the list lies or is ill."""
        site = self._list_from.pop(index, "")
        size = self.order.contents[index].size_bytes
        with self._lock:
            self.verified_bytes -= size
            self._fail(index, site, error)
        self.work.restart(index, site)

    def _fail(self, index: int, site: str, error: Corrupt) -> None:
        name = self.order.contents[index].blake3
        self._add(Failure(site=site, blake3=name, code="corrupt", cause=error.cause))

    def _add(self, failure: Failure) -> None:
        known = any((old.site, old.blake3) == (failure.site, failure.blake3) for old in self.failures)
        if not known and len(self.failures) < _MOST_FAILURES:
            self.failures.append(failure)

    def _limit(self, index: int) -> None:
        content = self.order.contents[index]
        self._keep.limit(content.blake3, content.regions)

    def _limit_named(self, names: list[str]) -> None:
        wanted = set(names)
        for content in self.order.contents:
            if content.regions and content.blake3 in wanted:
                self._keep.limit(content.blake3, content.regions)

    def _failing(self, error: OSError) -> Unavailable:
        cause = f"{self._keep.path}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return Full(cause, remedy="Make room there.")
        return Unavailable(f"The directory of contents fails: {cause}.")
