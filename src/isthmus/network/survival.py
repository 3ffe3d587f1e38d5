"""Admission that looks ahead to a failure: whether every deadline is still met when one cable fails, now or later.

Of each failure the lost volume is laid anew, the nearest deadline first, into the earliest room on ways around the cable; only where that
finds no place for something is a plan computed for all that is hit. What a failure would break is not admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from isthmus.network.admission import is_met_without
from isthmus.network.calendar import Booking, Calendar, Route, Transfer
from isthmus.network.topology import Floats

Cable = frozenset[int]
_CRUMB = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """Which failures are to be survived: `cables` are links that fail together, `around` gives a transfer the routes that avoid one of them,
    `capacity` [M] in bits/s is what links have in need, where the calendar promises a share of them. `after_slots`: how long from now the
    failures come that are looked at."""

    cables: Sequence[Cable]
    around: Callable[[Transfer, Cable], Sequence[Route]]
    capacity: Floats
    after_slots: tuple[int, ...] = (0, 6, 18)


def survives(before: Calendar | None, calendar: Calendar, survival: Survival, *, now_slot: int) -> bool:
    """Whether all that is promised is met after any one of the failures. `before`: a calendar that is known to survive, or was taken as it is;
    failures that hit nothing more than in it, and find as much room, are not looked at again."""
    grown = None if before is None else calendar.room < before.room - _CRUMB
    for slot in sorted({now_slot + after for after in survival.after_slots}):
        if slot >= calendar.slots:
            continue
        used = [(booking, _links(booking, slot)) for booking in calendar.bookings.values()]
        for cable in survival.cables:
            hit = [booking for booking, links in used if not cable.isdisjoint(links)]
            if not hit or (grown is not None and not _touches(grown, hit, cable, survival, slot)):
                continue
            if not (_fits(calendar, hit, cable, survival, slot) or _planned(calendar, hit, cable, survival, slot)):
                return False
    return True


def _touches(
    grown: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    hit: Sequence[Booking],
    cable: Cable,
    survival: Survival,
    slot: int,
) -> bool:
    """Whether the cable, or a way around it that is hit, has less room than before."""
    late = np.asarray(grown[:, slot:].any(axis=1))
    if late[list(cable)].any():
        return True
    return any(late[list(route)].any() for booking in hit for route in survival.around(booking.transfer, cable))


def _fits(calendar: Calendar, hit: Sequence[Booking], cable: Cable, survival: Survival, slot: int) -> bool:
    lost = list(cable)
    room = np.maximum(calendar.room[:, slot:] + survival.capacity[:, None] - calendar.capacity[:, slot:], 0.0)
    room[lost] = 0.0
    waiting: list[tuple[int, float, Floats, Booking]] = []
    for booking in hit:
        volume, kept = 0.0, np.zeros(calendar.slots - slot)
        for route, rates in zip(booking.routes, booking.rates[:, slot:], strict=True):
            if cable.isdisjoint(route):
                kept += rates
            else:
                volume += float(rates.sum())
                alive = [link for link in route if link not in cable]
                room[alive] += rates
        if volume > 0:
            window = calendar.window(booking.transfer, slot)
            waiting.append((window.stop - slot, volume, kept, booking))
    for ends, volume, kept, booking in sorted(waiting, key=lambda one: (one[0], -one[1])):
        cap = np.maximum(booking.transfer.rate_cap_bits_per_second - kept[:ends], 0.0)
        left = volume
        for route in survival.around(booking.transfer, cable):
            links = list(route)
            rates = np.minimum(room[links, :ends].min(axis=0), cap)
            total = np.cumsum(rates)
            rates = np.clip(left - (total - rates), 0.0, rates)
            room[links, :ends] -= rates
            cap = cap - rates
            left -= float(rates.sum())
            if left <= _CRUMB * volume:
                break
        if left > _CRUMB * volume:
            return False
    return True


def _planned(calendar: Calendar, hit: Sequence[Booking], cable: Cable, survival: Survival, slot: int) -> bool:
    routes = {booking.transfer.id: survival.around(booking.transfer, cable) for booking in hit}
    return is_met_without(calendar, cable, routes, now_slot=slot, capacity=survival.capacity)


@lru_cache(maxsize=16_384)
def _links(booking: Booking, slot: int) -> frozenset[int]:
    """The links that a promise uses from a slot on."""
    return frozenset(
        link for route, rates in zip(booking.routes, booking.rates, strict=True) if rates[slot:].any() for link in route
    )
