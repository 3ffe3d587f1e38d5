"""How a task's data gets to a site: for each piece the best source, route and window in what is left of the links.

A link's promises are steps of rate over time. A transfer takes what its route has left from the first moment on until all is
carried, so its promises never exceed a link, and a later transfer sees them. Data that comes to the site for another
task, or is there, moves no second time. Where nothing is known of the way, data goes through the service.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from isthmus.domain.placement import Estimate, PoolView, WaitingTask, Why
from isthmus.domain.roads import HOME, Carriage, Held, Piece, Roads, Route, Stretch, Way
from isthmus.domain.units import show_duration

HORIZON_SECONDS = 7 * 86400.0  # a transfer that would not be done by then finds its path full
UPLOADS = "uploads"
_CRUMB = 0.01  # less than this share of a route's own rate is not worth a promise
_STRETCHES = 64  # a transfer in more parts than this is not promised
_GIGABYTE = 10**9
_TRUST = ("through the service", "declared", "learned", "measured")  # an estimate is as good as its worst part
Prefer = Callable[[float, Decimal, tuple[str, ...], tuple[Stretch, ...]], object]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why data cannot be at a site, with what is wanted and what there is."""

    why: Why
    wanted: str
    offered: str


@dataclass(frozen=True, slots=True)
class Bringing:
    """A task's data at one site: how long until all is there, what moves, what that costs."""

    estimate: Estimate
    carriages: tuple[Carriage, ...] = ()
    price: Decimal = Decimal(0)


class _Use:
    """What is promised of one link: steps of rate, the last for ever."""

    def __init__(self, way: Way, now: float) -> None:
        self.way = way
        self.times = [now]
        self.rates = [0.0]

    def add(self, begins: float, ends: float, rate: float) -> None:
        begins = max(begins, self.times[0])
        if ends <= begins:
            return
        first, last = self._split(begins), self._split(ends)
        for place in range(first, last):
            self.rates[place] += rate

    def _split(self, at: float) -> int:
        place = bisect_right(self.times, at) - 1
        if self.times[place] == at:
            return place
        self.times.insert(place + 1, at)
        self.rates.insert(place + 1, self.rates[place])
        return place + 1

    def left(self, place: int) -> float:
        return self.way.bytes_per_second - self.rates[place]


class Traffic:
    """The links as a round goes on: what is left of them, and what comes to where."""

    def __init__(self, roads: Roads, now: float, held: Iterable[Held] | None = None) -> None:
        self._roads = roads
        self._now = now
        self._places = roads.places
        self._use = {name: _Use(way, now) for name, way in roads.links.items()}
        self._coming = dict(roads.coming)
        for one in roads.held if held is None else held:
            if one.link in self._use:
                self._use[one.link].add(one.begins, one.ends, one.bytes_per_second)

    def bring(self, task: WaitingTask, view: PoolView, prefer: Prefer | None = None) -> Bringing | Blocked:
        """The best way of all that the task needs to the pool's site; `prefer` orders ways by (seconds, price, links,
        stretches), the least first."""
        if not task.data and (not task.input_bytes or (HOME, view.site) not in self._roads.routes):
            return Bringing(self._uploads(task, view))
        pieces = [piece for piece in needed(task) if view.site not in piece.places]
        done: list[Carriage] = []
        parts = [self._uploads(task, view)]
        saved: dict[str, _Use] = {}
        if task.input_bytes and (HOME, view.site) in self._roads.routes:
            parts = []
            pieces.append(Piece(name=UPLOADS, size_bytes=task.input_bytes, places=frozenset({HOME})))
        try:
            for number, piece in enumerate(pieces):
                found = self._one(piece, view, prefer or _soonest)
                if isinstance(found, Blocked):
                    return found
                carriage, estimate = found
                done.append(carriage)
                parts.append(estimate)
                if number + 1 < len(pieces):
                    self._reserve(carriage, saved)
        finally:
            self._use.update(saved)
        whole = _slowest(parts)
        return Bringing(whole, tuple(done), sum((carriage.price for carriage in done), Decimal(0)))

    def take(self, carriages: Iterable[Carriage]) -> None:
        """What was chosen is gone for those that come later, and data that comes is there for them."""
        for one in carriages:
            for stretch in one.stretches:
                for link in one.links:
                    self._use[link].add(stretch.begins, stretch.ends, stretch.bytes_per_second)
            if one.name != UPLOADS and not one.shared:
                self._coming[one.name, one.target] = one.ends

    def free(self, begins: float, seconds: float, count: int) -> Mapping[str, list[float]]:
        """Bytes that each link still carries in each of so many buckets."""
        return {name: _volumes(use, begins, seconds, count) for name, use in self._use.items()}

    def _uploads(self, task: WaitingTask, view: PoolView) -> Estimate:
        seconds = task.input_bytes / view.bandwidth_bytes_per_second if task.input_bytes else 0.0
        return Estimate(seconds=seconds, source=view.bandwidth_source)

    def _one(self, piece: Piece, view: PoolView, prefer: Prefer) -> tuple[Carriage, Estimate] | Blocked:
        site = view.site
        coming = self._coming.get((piece.name, site))
        if coming is not None:
            there = Carriage(
                name=piece.name, size_bytes=piece.size_bytes, source="", target=site, ends=coming, shared=True
            )
            return there, Estimate(seconds=max(0.0, coming - self._now), source="measured")
        if not piece.places:
            return Blocked(Why.NO_REPLICA, piece.name, "no whole copy anywhere")
        best: tuple[object, Carriage, Estimate] | None = None
        full = False
        ways = list(self.ways(piece, site))
        for source, route in ways:
            found = self._over(piece, source, site, route)
            if found is None:
                full = True
                continue
            carriage, estimate = found
            key = (
                prefer(estimate.seconds, carriage.price, route.links, carriage.stretches),
                estimate.seconds,
                carriage.price,
                source,
                route.links,
            )
            if best is None or key < best[0]:  # type: ignore[operator]
                best = (key, carriage, estimate)
        if best is not None:
            return best[1], best[2]
        if full:
            until = f"the path is promised for the next {show_duration(HORIZON_SECONDS)}"
            return Blocked(Why.PATH_FULL, piece.name, until)
        kept_here = HOME in piece.places
        mapped = site in self._places and bool(piece.places & self._places)
        if not kept_here and (mapped or piece.regions):
            return Blocked(Why.NO_PATH, f"{piece.name} from {', '.join(sorted(piece.places))}", f"no path to {site}")
        legs = 1 if kept_here else 2  # to the service and from it
        seconds = legs * piece.size_bytes / view.bandwidth_bytes_per_second
        through = Carriage(
            name=piece.name,
            size_bytes=piece.size_bytes,
            source=HOME if kept_here else min(piece.places),
            target=site,
            begins=self._now,
            ends=self._now + seconds,
        )
        return through, Estimate(seconds=seconds, source="through the service")

    def ways(self, piece: Piece, site: str) -> Iterator[tuple[str, Route]]:
        """Every (source, route) that could bring the piece, sources by name."""
        for source in sorted(piece.places):
            for route in self._roads.routes.get((source, site), ()):
                if all(link in self._use for link in route.links):
                    yield source, route

    def rate(self, route: Route) -> float:
        """Bytes a second of its narrowest link with nothing promised."""
        return min((self._use[link].way.bytes_per_second for link in route.links), default=float("inf"))

    def _over(self, piece: Piece, source: str, site: str, route: Route) -> tuple[Carriage, Estimate] | None:
        use = [self._use[link] for link in route.links]
        own = self.rate(route)
        stretches = _earliest(use, piece.size_bytes, self._now, own)
        if stretches is None:
            return None
        begins, ends = (stretches[0].begins, stretches[-1].ends) if stretches else (self._now, self._now)
        alone = piece.size_bytes / own if own > 0 else 0.0
        arrives = ends + route.latency_seconds
        carriage = Carriage(
            name=piece.name,
            size_bytes=piece.size_bytes,
            source=source,
            target=site,
            links=route.links,
            begins=begins,
            ends=arrives,
            stretches=stretches,
            price=way_price(piece.size_bytes, route),
            programmable=route.programmable,
            held_up=ends - self._now > 1.1 * alone + 1.0,
        )
        return carriage, _estimate(arrives - self._now, ends - begins, [one.way for one in use])

    def _reserve(self, carriage: Carriage, saved: dict[str, _Use]) -> None:
        """Hold the links for the task's next piece; `saved` gets what they were."""
        for link in carriage.links:
            if link not in saved:
                before = saved[link] = self._use[link]
                again = self._use[link] = _Use(before.way, self._now)
                again.times, again.rates = list(before.times), list(before.rates)
            for stretch in carriage.stretches:
                self._use[link].add(stretch.begins, stretch.ends, stretch.bytes_per_second)


def needed(task: WaitingTask) -> Sequence[Piece]:
    """The task's data, the largest first."""
    return sorted(task.data, key=lambda piece: (-piece.size_bytes, piece.name))


def promises(carriages: Iterable[Carriage]) -> Iterator[Held]:
    """What planned transfers hold of links."""
    for one in carriages:
        for stretch in one.stretches:
            for link in one.links:
                yield Held(
                    link=link, begins=stretch.begins, ends=stretch.ends, bytes_per_second=stretch.bytes_per_second
                )


def _soonest(seconds: float, price: Decimal, _links: tuple[str, ...], _stretches: tuple[Stretch, ...]) -> object:
    return seconds, price


def _earliest(use: Sequence[_Use], size: float, now: float, own: float) -> tuple[Stretch, ...] | None:
    """The earliest rates that carry `size` over all links, or None within the horizon."""
    left = float(size)
    if left <= 0 or not use:
        return ()
    found: list[Stretch] = []
    for begins, ends, rate in _steps(use, now):
        if begins - now >= HORIZON_SECONDS:
            return None
        if rate < _CRUMB * own or rate <= 0:
            continue
        last = begins + left / rate
        if found and found[-1].ends == begins and found[-1].bytes_per_second == rate:
            found[-1] = replace(found[-1], ends=min(ends, last))
        else:
            found.append(Stretch(begins=begins, ends=min(ends, last), bytes_per_second=rate))
        if last <= ends:
            return tuple(found) if last - now <= HORIZON_SECONDS else None
        if len(found) >= _STRETCHES:
            return None
        left -= (ends - begins) * rate
    return None


def _steps(use: Sequence[_Use], now: float) -> Iterator[tuple[float, float, float]]:
    """(begin, end, what the narrowest link has left), in order of time."""
    at = now
    places = [0] * len(use)
    while True:
        ends = float("inf")
        rate = float("inf")
        for number, one in enumerate(use):
            place, times = places[number], one.times
            while place + 1 < len(times) and times[place + 1] <= at:
                place += 1
            places[number] = place
            rate = min(rate, one.left(place))
            if place + 1 < len(times):
                ends = min(ends, times[place + 1])
        yield at, ends, rate
        if ends == float("inf"):
            return
        at = ends


def _volumes(use: _Use, begins: float, seconds: float, count: int) -> list[float]:
    edges = [begins + seconds * place for place in range(count + 1)]
    found = [max(0.0, use.way.bytes_per_second) * seconds] * count
    for place, (start, rate) in enumerate(zip(use.times, use.rates, strict=True)):
        if rate <= 0 or start >= edges[-1]:
            continue
        end = use.times[place + 1] if place + 1 < len(use.times) else float("inf")
        for bucket in range(count):
            common = min(end, edges[bucket + 1]) - max(start, edges[bucket])
            if common > 0:
                found[bucket] = max(0.0, found[bucket] - rate * common)
    return found


def _estimate(seconds: float, moving: float, ways: Sequence[Way]) -> Estimate:
    """With the spread of the route's links, where all are known."""
    if not ways:
        return Estimate(seconds=seconds, source="measured")
    source = min((way.source for way in ways), key=_rank)
    slow = [way.bytes_per_second / way.low for way in ways if way.low]
    fast = [way.bytes_per_second / way.high for way in ways if way.high]
    return Estimate(
        seconds=seconds,
        source=source,
        p10=seconds - moving + moving * max(fast) if len(fast) == len(ways) else None,
        p90=seconds - moving + moving * max(slow) if len(slow) == len(ways) else None,
    )


def _slowest(parts: Sequence[Estimate]) -> Estimate:
    """All parts move at once; the whole is as late as the latest, and as good as the worst."""
    if len(parts) == 1:
        return parts[0]
    moving = [part for part in parts if part.seconds > 0] or parts[:1]
    p10s, p90s = [part.p10 for part in moving], [part.p90 for part in moving]
    return Estimate(
        seconds=max(part.seconds for part in moving),
        source=min((part.source for part in moving), key=_rank),
        p10=max(part.seconds if part.p10 is None else part.p10 for part in moving) if any(p10s) else None,
        p90=max(part.late for part in moving) if any(p90s) else None,
    )


def _rank(source: str) -> int:
    return _TRUST.index(source) if source in _TRUST else 1


def way_price(size: int, route: Route) -> Decimal:
    """What moving so many bytes over a route costs."""
    if not route.price_per_gigabyte:
        return Decimal(0)
    return (route.price_per_gigabyte * size / _GIGABYTE).quantize(Decimal("0.000001"))
