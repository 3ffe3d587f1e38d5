"""How a task's data gets to a site: for each piece the best source, route and window in what is left of the links.

A link's promises are steps of rate over time. A transfer takes what its route has left from the first moment on until all is
carried, so its promises never exceed a link, and a later transfer sees them. Data that comes to the site for another
task, or is there, moves no second time. Where nothing is known of the way, data goes through the service.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from isthmus.domain.placement import Estimate, PoolView, WaitingTask, Why
from isthmus.domain.roads import HOME, Carriage, Held, Piece, Roads, Route, Stretch, Way
from isthmus.domain.units import show_duration

HORIZON_SECONDS = 7 * 86400.0  # a transfer that would not be done by then finds its path full
UPLOADS = "uploads"
SLICE_FIRST = 1.5
"""Times as long as over any other way data may take in its project's slice, which it takes then: the rest stays for others."""
_CRUMB = 0.01  # less than this share of a route's own rate is not worth a promise
_STRETCHES = 16  # a transfer in more parts than this begins after all that is promised
_STEPS = 128  # and so does one that would have to look at more than so many changes of what is left
_SAME = 1 + 1e-9
_GIGABYTE = 10**9
_NOTHING = Decimal(0)
_TRUST = ("through the service", "declared", "learned", "measured")  # an estimate is as good as its worst part


class Preference(NamedTuple):
    """What a task's way costs it: for each second until all is there, for each unit of money, and by `worth` what others would
    lose by a link's rates."""

    per_second: float = 1.0
    per_money: float = 0.0
    worth: Callable[[str, tuple[Stretch, ...]], float] | None = None


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
    """What is promised of one link: steps of rate, the last for ever. Before `open_at` nothing worth a promise is left."""

    __slots__ = ("open_at", "rates", "times", "way")

    def __init__(self, way: Way, now: float) -> None:
        self.way = way
        self.times = [now]
        self.rates = [0.0]
        self.open_at = now

    def copy(self) -> _Use:
        again = _Use(self.way, self.times[0])
        again.times, again.rates, again.open_at = list(self.times), list(self.rates), self.open_at
        return again

    def add(self, begins: float, ends: float, rate: float) -> None:
        begins = max(begins, self.times[0])
        if ends <= begins:
            return
        first, last = self._split(begins), self._split(ends)
        for place in range(first, last):
            self.rates[place] += rate
        if begins <= self.open_at:
            full = (1 - _CRUMB) * self.way.bytes_per_second
            place = bisect_right(self.times, self.open_at) - 1
            while place + 1 < len(self.times) and self.rates[place] > full:
                place += 1
            self.open_at = self.times[place]

    def _split(self, at: float) -> int:
        place = bisect_right(self.times, at) - 1
        if self.times[place] == at:
            return place
        self.times.insert(place + 1, at)
        self.rates.insert(place + 1, self.rates[place])
        return place + 1


class _Choice(NamedTuple):
    """One way of data to a site, with nothing promised: seconds and money for each byte."""

    source: str
    use: tuple[str, ...]
    alone_per_byte: float
    price_per_byte: float
    latency: float
    route: Route


class _Best(NamedTuple):
    """A choice with what it costs, its rates over time, and when all is there."""

    cost: float
    choice: _Choice
    stretches: tuple[Stretch, ...]
    arrives: float


_SOONEST = Preference()


class Traffic:
    """The links as a round goes on: what is left of them, and what comes to where."""

    def __init__(self, roads: Roads, now: float, held: Iterable[Held] | None = None) -> None:
        self._roads = roads
        self._now = now
        self._use = {name: _Use(way, now) for name, way in roads.links.items()}
        self._coming = dict(roads.coming)
        self._promised = False
        for one in roads.held if held is None else held:
            if one.link in self._use:
                self._promised = True
                self._use[one.link].add(one.begins, one.ends, one.bytes_per_second)

    def bring(self, task: WaitingTask, view: PoolView, prefer: Preference = _SOONEST) -> Bringing | Blocked:
        """The best way of all that the task needs to the pool's site."""
        if not task.data and (not task.input_bytes or (HOME, view.site) not in self._roads.routes):
            return Bringing(self._uploads(task, view))
        pieces = [piece for piece in needed(task) if view.site not in piece.places]
        done: list[Carriage] = []
        parts: list[Estimate] = []
        saved: dict[str, _Use] = {}
        if task.input_bytes and (HOME, view.site) in self._roads.routes:
            pieces.append(Piece(name=UPLOADS, size_bytes=task.input_bytes, places=frozenset({HOME})))
        elif task.input_bytes or not pieces:
            parts.append(self._uploads(task, view))
        try:
            for number, piece in enumerate(pieces):
                found = self._one(piece, view, prefer)
                if isinstance(found, Blocked):
                    return found
                carriage, estimate = found
                done.append(carriage)
                parts.append(estimate)
                if number + 1 < len(pieces):
                    self._reserve(carriage, saved)
        finally:
            self._use.update(saved)
        price = done[0].price if len(done) == 1 else sum((carriage.price for carriage in done), _NOTHING)
        return Bringing(_slowest(parts), tuple(done), price)

    def take(self, carriages: Iterable[Carriage]) -> None:
        """What was chosen is gone for those that come later, and data that comes is there for them."""
        for one in carriages:
            for stretch in one.stretches:
                self._promised = True
                for link in one.links:
                    self._use[link].add(stretch.begins, stretch.ends, stretch.bytes_per_second)
            if one.name != UPLOADS and not one.shared:
                self._coming[one.name, one.target] = one.ends

    @contextmanager
    def reserved(self, carriages: Iterable[Carriage]) -> Iterator[None]:
        """For a while as if these were taken."""
        saved: dict[str, _Use] = {}
        try:
            for one in carriages:
                self._reserve(one, saved)
            yield
        finally:
            self._use.update(saved)

    def free(self, begins: float, seconds: float, count: int) -> Mapping[str, list[float]]:
        """Bytes that each link still carries in each of so many buckets."""
        return {name: _volumes(use, begins, seconds, count) for name, use in self._use.items()}

    def _uploads(self, task: WaitingTask, view: PoolView) -> Estimate:
        seconds = task.input_bytes / view.bandwidth_bytes_per_second if task.input_bytes else 0.0
        return Estimate(seconds=seconds, source=view.bandwidth_source)

    def _one(self, piece: Piece, view: PoolView, prefer: Preference) -> tuple[Carriage, Estimate] | Blocked:
        site = view.site
        coming = self._coming.get((piece.name, site))
        if coming is not None:
            there = Carriage(
                name=piece.name, size_bytes=piece.size_bytes, source="", target=site, ends=coming, shared=True
            )
            return there, Estimate(seconds=max(0.0, coming - self._now), source="measured")
        if not piece.places:
            return Blocked(Why.NO_REPLICA, piece.name, "no whole copy anywhere")
        planned = self.over_links(piece, site, prefer)
        if planned is not None:
            return planned
        kept_here = HOME in piece.places
        if not kept_here and piece.regions and self._roads.home_region not in piece.regions:
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

    def over_links(
        self, piece: Piece, site: str, prefer: Preference = _SOONEST, *, slice_first: float = SLICE_FIRST
    ) -> tuple[Carriage, Estimate] | Blocked | None:
        """The best way of one piece over links, with nothing taken yet; None where no way is known. A way in its project's slice goes
        first when it takes at most `slice_first` times as long."""
        best, full = self._best(piece, self._ways(piece, site), prefer)
        if sliced := self._sliced(piece, site):
            own, own_full = self._best(piece, sliced, prefer)
            full = full or own_full
            if own is not None and (best is None or self._goes_first(own, best, prefer, slice_first)):
                best = own
        if best is not None:
            return self._as_carriage(piece, site, best.choice, best.stretches, best.arrives)
        if full:
            until = f"the path is promised for the next {show_duration(HORIZON_SECONDS)}"
            return Blocked(Why.PATH_FULL, piece.name, until)
        return None

    def _best(self, piece: Piece, ways: Sequence[tuple[str, Route]], prefer: Preference) -> tuple[_Best | None, bool]:
        """The best of some ways, and whether one of them is full."""
        best: _Best | None = None
        full = False
        for bound, choice in self._by_bound(piece, ways, prefer):
            if best is not None and best.cost <= bound * _SAME:
                break
            money = prefer.per_money * piece.size_bytes * choice.price_per_byte
            before = self._now + HORIZON_SECONDS
            if best is not None and prefer.per_second > 0:  # what cannot be better any more is not looked at further
                before = min(before, self._now + (best.cost - money) / prefer.per_second - choice.latency)
            stretches = self._earliest(piece.size_bytes, choice, before)
            if stretches is None:
                full = True
                continue
            ends = (stretches[-1].ends if stretches else self._now) + choice.latency
            cost = prefer.per_second * (ends - self._now) + money
            if prefer.worth is not None:
                cost += sum(prefer.worth(link, stretches) for link in choice.use)
            if best is None or cost < best.cost:
                best = _Best(cost, choice, stretches, ends)
            if cost <= bound * _SAME:
                break
        return best, full

    def _goes_first(self, own: _Best, other: _Best, prefer: Preference, slice_first: float) -> bool:
        """Whether a way in a slice is taken before the best one beside it."""
        dearer = prefer.per_money > 0 and own.choice.price_per_byte > other.choice.price_per_byte
        return not dearer and own.arrives - self._now <= slice_first * (other.arrives - self._now)

    def ways(self, piece: Piece, site: str) -> list[Route]:
        """Every route that could bring the piece, those in its project's slice first."""
        return [route for _, route in (*self._sliced(piece, site), *self._ways(piece, site))]

    def rate(self, route: Route) -> float:
        """Bytes a second of its narrowest link with nothing promised."""
        if route.bytes_per_second:
            return route.bytes_per_second
        return min((self._use[link].way.bytes_per_second for link in route.links), default=float("inf"))

    def _ways(self, piece: Piece, site: str) -> list[tuple[str, Route]]:
        """Where each way begins, and the way."""
        routes = self._roads.routes
        sources: Iterable[str] = sorted(piece.places) if len(piece.places) > 1 else piece.places
        return [(source, one) for source in sources for one in routes.get((source, site), ()) if _may_take(piece, one)]

    def _sliced(self, piece: Piece, site: str) -> list[tuple[str, Route]]:
        """Where ways in the slice of the piece's project begin, and the ways."""
        slices = self._roads.sliced
        if not slices:
            return []
        project = piece.name.partition("/")[0]
        found = [(source, one) for source in sorted(piece.places) for one in slices.get((project, source, site), ())]
        return [(source, one) for source, one in found if _may_take(piece, one)]

    def _by_bound(
        self, piece: Piece, ways: Sequence[tuple[str, Route]], prefer: Preference
    ) -> Iterator[tuple[float, _Choice]]:
        """The ways, each with the least that it can cost, in that order."""
        size, per_second = piece.size_bytes, prefer.per_second
        per_money = size * prefer.per_money / _GIGABYTE
        if not ways:
            return
        costs = [
            per_second * (size / (route.bytes_per_second or self.rate(route)) + route.latency_seconds)
            for _, route in ways
        ]
        if per_money:
            costs = [
                cost + per_money * float(route.price_per_gigabyte) for cost, (_, route) in zip(costs, ways, strict=True)
            ]
        if self._promised:  # nothing begins before its links are open
            use, now = self._use, self._now
            for number, (_, route) in enumerate(ways):
                opens = max([use[link].open_at for link in route.links], default=now)
                costs[number] += per_second * (opens - now)
        least = min(costs)
        first = costs.index(least)
        yield least, self._choice(*ways[first])
        for number in sorted(range(len(ways)), key=costs.__getitem__):
            if number != first:
                yield costs[number], self._choice(*ways[number])

    def _choice(self, source: str, route: Route) -> _Choice:
        price = float(route.price_per_gigabyte) / _GIGABYTE if route.price_per_gigabyte else 0.0
        return _Choice(source, route.links, 1.0 / self.rate(route), price, route.latency_seconds, route)

    def _as_carriage(
        self, piece: Piece, site: str, choice: _Choice, stretches: tuple[Stretch, ...], arrives: float
    ) -> tuple[Carriage, Estimate]:
        route = choice.route
        begins = stretches[0].begins if stretches else self._now
        carriage = Carriage(
            name=piece.name,
            size_bytes=piece.size_bytes,
            source=choice.source,
            target=site,
            links=route.links,
            begins=begins,
            ends=arrives,
            stretches=stretches,
            price=way_price(piece.size_bytes, route),
            programmable=route.programmable,
            held_up=arrives - self._now > 1.1 * piece.size_bytes * choice.alone_per_byte + choice.latency + 1.0,
        )
        moving = arrives - choice.latency - begins
        return carriage, _estimate(arrives - self._now, moving, [self._use[link].way for link in route.links])

    def _earliest(self, size: float, choice: _Choice, before: float) -> tuple[Stretch, ...] | None:
        """The earliest rates that carry `size` over all links, or None when that is not done `before`."""
        use = [self._use[link] for link in choice.use]
        if size <= 0 or not use:
            return ()
        begins = max(one.open_at for one in use)
        found = _fill(use, float(size), begins, 1.0 / choice.alone_per_byte, before)
        if found == ():  # too much in pieces: after all that is promised
            begins = max(begins, *(one.times[-1] for one in use))
            found = _fill(use, float(size), begins, 1.0 / choice.alone_per_byte, before)
        return found

    def _reserve(self, carriage: Carriage, saved: dict[str, _Use]) -> None:
        """Hold the links for the task's next piece; `saved` gets what they were."""
        for link in carriage.links:
            if link not in saved:
                saved[link] = self._use[link]
                self._use[link] = saved[link].copy()
            for stretch in carriage.stretches:
                self._use[link].add(stretch.begins, stretch.ends, stretch.bytes_per_second)


def _may_take(piece: Piece, route: Route) -> bool:
    """Bound data is passed on by no site outside of its regions."""
    return not piece.regions or route.relays <= piece.regions


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


def _fill(use: Sequence[_Use], left: float, at: float, own: float, before: float) -> tuple[Stretch, ...] | None:
    """The earliest rates from `at` on that carry `left` bytes over all links; None when that is not done `before`, nothing
    when it takes too many steps."""
    crumb = _CRUMB * own
    never = float("inf")
    found: list[Stretch] = []
    times, rates = [one.times for one in use], [one.rates for one in use]
    most = [one.way.bytes_per_second for one in use]
    following = [bisect_right(of, at) for of in times]  # the next change of each link
    free = [all_of - of[place - 1] for all_of, of, place in zip(most, rates, following, strict=True)]
    changes = [of[place] if place < len(of) else never for of, place in zip(times, following, strict=True)]
    for _ in range(_STEPS):
        if at + left / own > before:
            return None
        ends, rate = min(changes), min(free)
        if rate > crumb:
            last = at + left / rate
            if last <= ends:
                found.append(Stretch(begins=at, ends=last, bytes_per_second=rate))
                return tuple(found) if last <= before else None
            found.append(Stretch(begins=at, ends=ends, bytes_per_second=rate))
            left -= (ends - at) * rate
            if len(found) >= _STRETCHES:
                return ()
        else:  # nothing can go before the link that is full has room again
            full = free.index(rate)
            place, of, least = following[full], rates[full], most[full] - crumb
            while place < len(of) and of[place] >= least:
                place += 1
            ends = times[full][place] if place < len(of) else never
        if ends == never:
            return None
        at = ends
        for number, change in enumerate(changes):
            if change <= at:
                of, place = times[number], following[number] + 1
                if place < len(of) and of[place] <= at:
                    place = bisect_right(of, at, place)
                free[number] = most[number] - rates[number][place - 1]
                changes[number] = of[place] if place < len(of) else never
                following[number] = place
    return ()


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
    source, slow, fast, all_slow, all_fast = "measured", 0.0, 0.0, True, True
    for way in ways:
        if way.source != source and _rank(way.source) < _rank(source):
            source = way.source
        if way.low:
            slow = max(slow, way.bytes_per_second / way.low)
        else:
            all_slow = False
        if way.high:
            fast = max(fast, way.bytes_per_second / way.high)
        else:
            all_fast = False
    still = seconds - moving
    return Estimate(
        seconds=seconds,
        source=source,
        p10=still + moving * fast if all_fast else None,
        p90=still + moving * slow if all_slow else None,
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
        return _NOTHING
    return (route.price_per_gigabyte * size / _GIGABYTE).quantize(Decimal("0.000001"))
