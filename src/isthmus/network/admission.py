"""Admission by deadline, and re-planning after a failure. What is admitted is met, as long as the links that carry it live."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isthmus.domain.errors import Conflict, Invalid
from isthmus.network.calendar import Booking, Calendar, Route, Transfer
from isthmus.network.planning import Wish, plan
from isthmus.network.topology import Floats

_NEGLIGIBLE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Replanned:
    """The calendar after a failure. `lost_bytes` had a route that failed; `moved_bytes` had one that did not, and moved all the same.

    `missed` are the transfers that no plan brings to all their targets by the deadline; what still fits stays planned.
    """

    calendar: Calendar
    lost_bytes: float
    moved_bytes: float
    missed: tuple[str, ...]


def admit(
    calendar: Calendar, transfer: Transfer, routes: Sequence[Route], *, now_slot: int = 0, move_others: bool = True
) -> Calendar | None:
    """The calendar with a promise for `transfer` over `routes`, or None when its deadline cannot be promised.

    First the earliest room that nobody was promised; where that is too little and `move_others`, one plan for it and all
    that is promised from `now_slot` on: promises change their rates and routes, never their deadlines.
    Conflict when the calendar knows its id; Invalid when a route is not within the topology.
    """
    if transfer.id in calendar.bookings:
        raise Conflict(f"The calendar holds a promise for {transfer.id}.")
    if not routes or any(not route or not 0 <= min(route) <= max(route) < len(calendar.room) for route in routes):
        raise Invalid("routes", "are none, or name links that are not there.")
    window = calendar.window(transfer, now_slot)
    if len(window) * calendar.slot_seconds * transfer.rate_cap_bits_per_second < transfer.volume_bytes * 8:
        return None
    rates = _earliest(calendar, transfer, routes, window)
    if rates is not None:
        return calendar.book([Booking(transfer=transfer, routes=tuple(routes), rates=rates)])
    if not move_others:
        return None
    fresh = Wish(
        transfer=transfer,
        volume=transfer.volume_bytes * 8,
        window=window,
        routes=tuple(routes),
        before=np.zeros((len(routes), calendar.slots)),
    )
    others = [booking for booking in calendar.bookings.values() if booking.rates[:, now_slot:].any()]
    planned, _, short = _together(calendar, others, [fresh], now_slot)
    return None if short else planned


def replan(
    calendar: Calendar, failed: Collection[int], routes: dict[str, Sequence[Route]], *, now_slot: int
) -> Replanned:
    """Promises after the links `failed` carry nothing from `now_slot` on, moving as little volume as possible.

    `routes` gives each transfer that loses one (`affected`) the routes it may use now. Only these transfers move, if that
    is enough; else one plan for all that is promised from then on.
    """
    lost = set(failed)
    hit = affected(calendar, failed, now_slot=now_slot)
    capacity = calendar.capacity.copy()
    capacity[list(lost), now_slot:] = 0.0
    held, remaining = dict(calendar.bookings), list[Wish]()
    for booking in hit:
        key = booking.transfer.id
        known = [route for route in booking.routes if lost.isdisjoint(route)]
        fresh = (route for route in map(tuple, routes.get(key, ())) if route not in known and lost.isdisjoint(route))
        usable = (*known, *fresh)
        before = np.zeros((len(usable), calendar.slots))
        for place, route in enumerate(known):
            before[place, now_slot:] = booking.rates[booking.routes.index(route), now_slot:]
        remaining.append(
            Wish(
                transfer=booking.transfer,
                volume=float(booking.rates[:, now_slot:].sum()) * calendar.slot_seconds,
                window=calendar.window(booking.transfer, now_slot),
                routes=usable,
                before=before,
            )
        )
        past = booking.rates.copy()
        past[:, now_slot:] = 0.0
        held[key] = replace(booking, rates=past)
    used = sum((booking.use(len(capacity)) for booking in held.values()), np.zeros_like(capacity))
    bare = replace(calendar, capacity=capacity, bookings=held, room=np.maximum(capacity - used, 0.0))
    after, moved, short = _together(bare, [], remaining, now_slot)
    if short:
        hit_ids = {booking.transfer.id for booking in hit}
        others = [
            booking
            for key, booking in bare.bookings.items()
            if key not in hit_ids and booking.rates[:, now_slot:].any()
        ]
        after, moved, short = _together(bare, others, remaining, now_slot)
    lost_bytes = sum(wish.volume - float(wish.before.sum()) * calendar.slot_seconds for wish in remaining) / 8
    return Replanned(calendar=after, lost_bytes=lost_bytes, moved_bytes=moved, missed=tuple(short))


def affected(calendar: Calendar, failed: Collection[int], *, now_slot: int) -> list[Booking]:
    """Promises that would use one of the links `failed` from `now_slot` on."""
    lost = set(failed)
    return [
        booking
        for booking in calendar.bookings.values()
        if any(
            rates[now_slot:].any() and not lost.isdisjoint(route)
            for route, rates in zip(booking.routes, booking.rates, strict=True)
        )
    ]


def _earliest(calendar: Calendar, transfer: Transfer, routes: Sequence[Route], window: range) -> Floats | None:
    left = transfer.volume_bytes * 8 / calendar.slot_seconds
    rates = np.zeros((len(routes), calendar.slots))
    links = [list(route) for route in routes]
    enough = left * (1 - 1e-12)
    for slot in window:
        room, cap = calendar.room[:, slot].copy(), transfer.rate_cap_bits_per_second
        for place, route in enumerate(links):
            rate = min(float(room[route].min()), cap, left)
            if rate > 0:
                rates[place, slot] = rate
                room[route] -= rate
                cap, left, enough = cap - rate, left - rate, enough - rate
        if enough <= 0:
            return rates
    return None


def _together(
    calendar: Calendar, movable: Sequence[Booking], fresh: Sequence[Wish], now_slot: int
) -> tuple[Calendar, float, list[str]]:
    """Plans `fresh` and what `movable` still get; bytes moved, and the ids for which the volume does not fit."""
    wishes, links = list(fresh), calendar.topology.link_count
    room = calendar.room.copy()
    for booking in movable:
        before = booking.rates.copy()
        before[:, :now_slot] = 0.0
        room += replace(booking, rates=before).use(links)
        wishes.append(
            Wish(
                transfer=booking.transfer,
                volume=float(before.sum()) * calendar.slot_seconds,
                window=calendar.window(booking.transfer, now_slot),
                routes=booking.routes,
                before=before,
            )
        )
    if not wishes:
        return calendar, 0.0, []
    found = plan(wishes, room, calendar.slot_seconds)
    changed, moved, short = list[Booking](), 0.0, list[str]()
    for wish, rates, missing in zip(wishes, found.rates, found.short, strict=True):
        key = wish.transfer.id
        moved += float(np.maximum(wish.before - rates, 0.0).sum())
        if missing > _NEGLIGIBLE * wish.volume:
            short.append(key)
        held = calendar.bookings.get(key)
        changed.append(_joined(held, wish, rates, now_slot))
    return calendar.book(changed), moved * calendar.slot_seconds / 8, short


def _joined(held: Booking | None, wish: Wish, rates: Floats, now_slot: int) -> Booking:
    """The past of a promise with its new future; routes that never carry anything are left out."""
    table = {route: np.array(row) for route, row in zip(wish.routes, rates, strict=True)}
    if held is not None:
        for route, row in zip(held.routes, held.rates, strict=True):
            past = row.copy()
            past[now_slot:] = 0.0
            table[route] = table[route] + past if route in table else past
    used = tuple(route for route, row in table.items() if row.any() or route in wish.routes)
    return Booking(transfer=wish.transfer, routes=used, rates=np.array([table[route] for route in used]))
