"""Fetches the contents of one order into a keep, from one or several sites at once, until all are there or it cannot go on."""

from __future__ import annotations

import threading
import time
from typing import Final

from isthmus.data.transfer import sockets, tickets
from isthmus.data.transfer.forecast import Forecast
from isthmus.data.transfer.intake import Full, Intake
from isthmus.data.transfer.keep import Keep
from isthmus.data.transfer.lanes import Lane, failures_of, lanes_of
from isthmus.data.transfer.port import Credentials, End, OnProgress, Order, Outcome, Progress, Source, Way
from isthmus.data.transfer.stream import Stream
from isthmus.domain.errors import Conflict, IsthmusError, Refused, Unavailable

_TICK_SECONDS: Final = 0.02
_LAST_TICK_SECONDS: Final = 0.004
"""When nothing is to come any more."""
_TELL_SECONDS: Final = 0.5
_STOPPING_SECONDS: Final = 10.0


def pull(
    order: Order,
    keep: Keep,
    credentials: Credentials,
    *,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Carry out an order; blocks until it ends, in a thread of the caller's. `stop` ends it early; what is verified stays for the next pull.

    Whatever goes wrong on the network or the disk is told by the outcome. Refused when the credentials do not load.
    """
    return Pull(order, keep, credentials, on_progress, stop or threading.Event()).run()


class Pull:
    """One order while it is carried out."""

    def __init__(
        self, order: Order, keep: Keep, credentials: Credentials, on_progress: OnProgress | None, stop: threading.Event
    ) -> None:
        self._order, self._keep = order, keep
        self._client = sockets.client_context(credentials)
        self._on_progress = on_progress
        self._stop = stop
        self._shown = tickets.encode_list(order.contents)
        self._intake: Intake | None = None
        self._lanes: list[Lane] = []
        self._forecast = Forecast(
            [way.windows for source in order.sources for way in source.ways], order.bytes_per_second
        )
        self._begun = time.monotonic()
        self._heard = self._begun
        self._recent: list[tuple[float, int]] = []

    def run(self) -> Outcome:
        """Carry it out."""
        if self._order.not_before is not None and not self._await(self._order.not_before):
            return self._outcome(End.STOPPED, "The caller stopped it.")
        try:
            self._intake = Intake(self._keep, self._order)
        except Full as error:
            return self._outcome(End.NO_SPACE, error.cause)
        except (Conflict, Unavailable) as error:
            return self._outcome(End.UNAVAILABLE, error.cause)
        self._begun = self._heard = time.monotonic()
        self._lanes = lanes_of(self._order, self._stream)
        try:
            end, cause = self._lead(self._intake)
        except Full as error:
            end, cause = End.NO_SPACE, error.cause
        except Refused as error:
            end, cause = End.REFUSED, error.cause
        except Unavailable as error:
            end, cause = End.UNAVAILABLE, error.cause
        finally:
            self._end_streams()
        if end is not End.DONE:
            end, cause = self._settle_last(self._intake, end, cause)
        self._intake.close()
        return self._outcome(end, cause)

    def _lead(self, intake: Intake) -> tuple[End, str]:
        sampled = told = time.monotonic()
        while True:
            clock, now = time.monotonic(), time.time()
            intake.settle(clock, is_last=intake.work.is_idle)
            if intake.is_done:
                self._tell(intake)
                return End.DONE, ""
            ended = self._why_end(intake, now, clock)
            if ended is not None:
                return ended
            bounded = [lane for lane in self._lanes if not lane.is_refused]
            limit = self._order.bytes_per_second
            for lane in self._lanes:
                lane.tend(now, limit / len(bounded) if limit and bounded else None, clock)
            if clock - sampled >= _TELL_SECONDS / 2:
                self._sample(intake, clock, clock - sampled)
                sampled = clock
            if clock - told >= _TELL_SECONDS:
                self._tell(intake)
                told = clock
            self._stop.wait(_LAST_TICK_SECONDS if intake.work.is_idle else _TICK_SECONDS)

    def _why_end(self, intake: Intake, now: float, clock: float) -> tuple[End, str] | None:
        order = self._order
        if self._stop.is_set():
            return End.STOPPED, "The caller stopped it."
        for lane in self._lanes:
            if isinstance(lane.fatal, Full):
                return End.NO_SPACE, lane.fatal.cause
            if lane.fatal is not None:
                return (End.UNAVAILABLE if isinstance(lane.fatal, Conflict) else End.REFUSED), lane.fatal.cause
        if order.not_after is not None and now >= order.not_after:
            return End.WINDOW_OVER, "Its time is over."
        if self._lanes and all(lane.is_over(now) for lane in self._lanes):
            return End.WINDOW_OVER, "The last promised window is over."
        if all(lane.is_refused for lane in self._lanes):
            return End.REFUSED, self._last_cause()
        if intake.work.hopeless and intake.work.is_idle:
            codes = set(intake.work.hopeless.values())
            causes = "; ".join(failure.cause for failure in intake.failures[:3])
            return (End.CORRUPT if "corrupt" in codes else End.NOT_FOUND), causes
        if any(lane.window(now) or not lane.way.windows for lane in self._lanes):
            if clock - self._heard > order.patience_seconds:
                return End.UNAVAILABLE, self._last_cause() or f"Nothing came for {order.patience_seconds:.0f} s."
        else:
            self._heard = clock
        return None

    def _sample(self, intake: Intake, clock: float, seconds: float) -> None:
        if sum(lane.sample(clock, seconds) for lane in self._lanes):
            self._heard = clock
        done = intake.verified_bytes
        if self._recent:
            before, had = self._recent[-1]
            wall = time.time()
            self._forecast.observe(wall - (clock - before), wall, max(0, done - had))
        self._recent = [*self._recent[-8:], (clock, done)]

    def _tell(self, intake: Intake) -> None:
        if self._on_progress is None:
            return
        total = self._order.size_bytes
        self._on_progress(
            Progress(
                done_bytes=intake.verified_bytes,
                total_bytes=total,
                contents_done=intake.contents_done,
                bytes_per_second=self._speed(),
                predicted_end=self._forecast.predict(time.time(), total - intake.verified_bytes),
                resent_bytes=intake.resent_bytes,
                streams=sum(len(lane.streams) for lane in self._lanes),
                stalled=sum(lane.stalled for lane in self._lanes),
                multipath=any(lane.multipath for lane in self._lanes),
            )
        )

    def _speed(self) -> float:
        if len(self._recent) < 2:
            return 0.0
        (first, had), (last, have) = self._recent[0], self._recent[-1]
        return max(0.0, (have - had) / (last - first)) if last > first else 0.0

    def _stream(self, source: Source, way: Way, rate: float) -> Stream:
        assert self._intake is not None
        return Stream(intake=self._intake, client=self._client, shown=self._shown, source=source, way=way, rate=rate)

    def _await(self, moment: float) -> bool:
        while (left := moment - time.time()) > 0:
            if self._stop.wait(min(left, 5.0)):
                return False
        return True

    def _end_streams(self) -> None:
        for lane in self._lanes:
            lane.leave()
        deadline = time.monotonic() + _STOPPING_SECONDS
        for lane in self._lanes:
            for stream in lane.streams:
                stream.join(max(0.0, deadline - time.monotonic()))

    @staticmethod
    def _settle_last(intake: Intake, end: End, cause: str) -> tuple[End, str]:
        """What came whole is made visible also when the pull ends early."""
        try:
            intake.settle(time.monotonic(), is_last=True)
        except IsthmusError as error:
            return end, f"{cause} {error.cause}" if error.cause != cause else cause
        return (End.DONE, "") if intake.is_done else (end, cause)

    def _last_cause(self) -> str:
        return "; ".join(sorted({lane.error.cause for lane in self._lanes if lane.error is not None}))

    def _outcome(self, end: End, cause: str) -> Outcome:
        seconds = time.monotonic() - self._begun
        intake = self._intake
        received = intake.received_bytes if intake else 0
        return Outcome(
            end=end,
            cause=cause,
            failures=(*(intake.failures if intake else ()), *failures_of(self._lanes)),
            contents_done=intake.contents_done if intake else 0,
            received_bytes=received,
            resumed_bytes=intake.resumed_bytes if intake else 0,
            resent_bytes=intake.resent_bytes if intake else 0,
            seconds=seconds,
            bytes_per_second=received / seconds if seconds > 0 else 0.0,
            stalled=sum(lane.stalled for lane in self._lanes),
            ways=tuple(lane.use() for lane in self._lanes),
        )
