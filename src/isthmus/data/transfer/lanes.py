"""The ways of an order as lanes: each keeps its number of streams, replaces those that stall or fail, and holds to its promised rate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from isthmus.data.transfer.forecast import PAYLOAD_SHARE
from isthmus.data.transfer.intake import Full
from isthmus.data.transfer.port import MAX_STREAMS, Failure, Order, Source, Way, WayUse, Window
from isthmus.data.transfer.stream import Stream
from isthmus.domain.errors import Conflict, IsthmusError, Refused

STREAMS: Final = 8
"""Of all ways together whose senders have BBR; measured in benchmarks.transfer. More of them have the kernel send smaller trains."""
STREAMS_OF_WAY: Final = 3
"""At least, where there are several ways."""
STREAMS_WITHOUT_BBR: Final = 16
_LEAST_RATE: Final = 64 * 1024
_SLOW: Final = 0.1
_SLOW_SECONDS: Final = 6.0
_LAST_PAUSE: Final = 8.0

MakeStream = Callable[[Source, Way, float], Stream]


class Lane:
    """One way from one source."""

    def __init__(self, source: Source, number: int, streams: int, make: MakeStream) -> None:
        self.source, self.number = source, number
        self.way = source.ways[number]
        self.streams: list[Stream] = []
        self.bytes = 0
        self.most_streams = 0
        self.best = 0.0
        self.congestion_control = ""
        self.stalled = 0
        self.round_trip = 0.0
        self.multipath = False
        self._wanted = streams
        self._is_chosen = False
        self._make = make
        self._pause = 0.25
        self._again_at = 0.0
        self._seen: dict[Stream, int] = {}
        self._slow_since: dict[Stream, float] = {}
        self.error: IsthmusError | None = None
        self.is_refused = False
        self.fatal: IsthmusError | None = None
        """What ends the whole pull."""

    def choose(self) -> None:
        """Let the lane have more streams where the sender's congestion control is not BBR."""
        self._is_chosen = True

    def window(self, now: float) -> Window | None:
        """The promise that holds now."""
        return next((window for window in self.way.windows if window.start <= now < window.end), None)

    def is_over(self, now: float) -> bool:
        """Whether it had promises and the last one has ended."""
        return bool(self.way.windows) and self.way.windows[-1].end <= now

    def tend(self, now: float, limit: float | None, clock: float) -> None:
        """Start, stop and pace streams. `limit`: the share of the order's bound for this lane, headers included."""
        self._bury(clock)
        window = self.window(now)
        is_open = window is not None or not self.way.windows
        rates = [rate for rate in (window.bytes_per_second if window else None, limit) if rate is not None]
        rate = min(rates) * PAYLOAD_SHARE if rates else 0.0
        wanted = self._count(rate) if is_open and not self.is_refused else 0
        each = rate / wanted if wanted and rate else 0.0
        for stream in self.streams:
            stream.is_allowed = is_open
            stream.wanted_rate = float(int(each))
        if clock < self._again_at:
            return
        for _ in range(wanted - len(self.streams)):
            stream = self._make(self.source, self.way, float(int(each)))
            self.streams.append(stream)
            self._seen[stream] = 0
            stream.start()
        self.most_streams = max(self.most_streams, len(self.streams))

    def sample(self, clock: float, seconds: float) -> int:
        """Read the streams' figures; bytes since the last time. A stream far slower than its neighbours is given up."""
        total = 0
        for stream in self.streams:
            got = self._read(stream)
            total += got
            speed = got / seconds
            carrier = stream.carrier
            if carrier.bytes_per_second is not None:
                carrier.bytes_per_second = 0.5 * carrier.bytes_per_second + 0.5 * speed
            elif got:
                carrier.bytes_per_second = speed
        self.best = max(self.best, total / seconds)
        self._weed(clock)
        return total

    def leave(self) -> None:
        """End all streams."""
        for stream in self.streams:
            stream.leave()

    @property
    def is_multipath(self) -> bool:
        """Whether some stream of it speaks, or spoke, MPTCP."""
        return self.multipath or any(stream.figures.multipath for stream in self.streams)

    def use(self) -> WayUse:
        """What it carried."""
        for stream in self.streams:
            self._read(stream)
        return WayUse(
            site=self.source.site,
            way=self.number,
            bytes=self.bytes,
            streams=self.most_streams,
            bytes_per_second=self.best,
            round_trip_seconds=self.round_trip or None,
            congestion_control=self.congestion_control,
            multipath=self.multipath,
        )

    def _read(self, stream: Stream) -> int:
        """Bytes since the last time."""
        figures = stream.figures
        got = figures.bytes - self._seen[stream]
        self._seen[stream] += got
        self.bytes += got
        self.congestion_control = figures.congestion_control or self.congestion_control
        self.round_trip = figures.round_trip or self.round_trip
        self.multipath = self.multipath or figures.multipath
        return got

    def _count(self, rate: float) -> int:
        count = self._wanted
        if self._is_chosen and self.congestion_control not in ("", "bbr"):
            count = max(count, STREAMS_WITHOUT_BBR)
        if rate:
            count = min(count, max(1, int(rate / _LEAST_RATE)))
        return min(count, MAX_STREAMS)

    def _bury(self, clock: float) -> None:
        for stream in [stream for stream in self.streams if not stream.is_alive()]:
            self.streams.remove(stream)
            self._read(stream)
            del self._seen[stream]
            self._slow_since.pop(stream, None)
            if stream.is_stalled:
                self.stalled += 1
            error = stream.error
            if error is None:
                continue
            if self.is_refused:
                continue
            self.error = error
            if isinstance(error, Full | Conflict) or error.code == "region_limit":
                self.fatal = error
            if isinstance(error, Refused) or error.status == 403:
                self.is_refused = True
            # A stream that worked is replaced at once; a way that does not answer is tried less and less often.
            self._pause = 0.25 if stream.figures.bytes else min(_LAST_PAUSE, 2 * self._pause)
            self._again_at = max(self._again_at, clock + (0.0 if stream.figures.bytes else self._pause))

    def _weed(self, clock: float) -> None:
        busy = [(stream, stream.carrier.bytes_per_second or 0.0) for stream in self.streams if stream.carrier.asked]
        if len(busy) < 3:
            self._slow_since.clear()
            return
        median = statistics.median(speed for _stream, speed in busy)
        for stream, speed in busy:
            if speed >= _SLOW * median:
                self._slow_since.pop(stream, None)
                continue
            since = self._slow_since.setdefault(stream, clock)
            if clock - since > _SLOW_SECONDS:
                stream.is_stalled = True
                stream.leave()


def lanes_of(order: Order, make: MakeStream) -> list[Lane]:
    """A lane for each way of each source, with its number of streams."""
    found = [(source, number) for source in order.sources for number in range(len(source.ways))]
    total = order.streams or min(MAX_STREAMS, max(STREAMS, STREAMS_OF_WAY * len(found)))
    shares = [source.ways[number].share for source, number in found]
    lanes = []
    for (source, number), share in zip(found, shares, strict=True):
        lane = Lane(source, number, max(1, round(total * share / sum(shares))), make)
        if not order.streams:
            lane.choose()
        lanes.append(lane)
    return lanes


def failures_of(lanes: Sequence[Lane]) -> list[Failure]:
    """The last error of each lane that has one."""
    return [
        Failure(site=lane.source.site, blake3="", code=lane.error.code, cause=lane.error.cause)
        for lane in lanes
        if lane.error is not None
    ]
