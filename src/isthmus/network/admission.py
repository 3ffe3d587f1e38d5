"""Admission by deadline, and re-planning after a failure. What is admitted is met, as long as the links that carry it live."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isthmus.domain.errors import Conflict, Invalid
from isthmus.network.calendar import Booking, Calendar, Route, Transfer
from isthmus.network.planning import Wish, plan
from isthmus.network.survival import Guard
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
    calendar: Calendar,
    transfer: Transfer,
    routes: Sequence[Route],
    *,
    now_slot: int = 0,
    move_others: bool = True,
    guard: Guard | None = None,
) -> Calendar | None:
    """The calendar with a promise for `transfer` over `routes`, or None when its deadline cannot be promised.

    First the earliest room that nobody was promised; where that is too little and `move_others`, one plan for it and all
    that is promised from `now_slot` on: promises change their rates and routes, never their deadlines.
    With a `guard` it is promised only what one failure would not break. Conflict when the calendar knows its id; Invalid when a
    route is not within the topology.
    """
    if transfer.id in calendar.bookings:
        raise Conflict(f"The calendar holds a promise for {transfer.id}.")
    if not routes or any(not route or not 0 <= min(route) <= max(route) < len(calendar.room) for route in routes):
        raise Invalid("routes", "are none, or name links that are not there.")
    found = _admitted(calendar, transfer, routes, now_slot, move_others)
    if found is None or guard is None or guard.allows(calendar, found, transfer.id, now_slot):
        return found
    return None


def _admitted(
    calendar: Calendar, transfer: Transfer, routes: Sequence[Route], now_slot: int, move_others: bool
) -> Calendar | None:
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
    bare, others = _aside(calendar, [b for b in calendar.bookings.values() if b.rates[:, now_slot:].any()], now_slot)
    planned = _together(bare, [fresh, *others], now_slot)
    return None if planned.missing else planned.calendar


def replan(
    calendar: Calendar,
    failed: Collection[int],
    routes: Mapping[str, Sequence[Route]],
    *,
    now_slot: int,
    capacity: Floats | None = None,
) -> Replanned:
    """Promises after the links `failed` carry nothing from `now_slot` on, moving as little volume as possible.

    `routes` gives transfers the routes they may use now, besides those they have. Only the `affected` move, if that
    is enough; else one plan for all that is promised from then on. If that is not enough either, the transfer that lacks
    most is given up until the others fit, and gets what they leave. `capacity` [M] in bits/s of links from `now_slot` on is
    for a calendar that promises only a share of them: in need the rest is used too.
    """
    lost, room_then = sorted(set(failed)), calendar.capacity.copy()
    if capacity is not None:
        room_then[:, now_slot:] = capacity[:, None]
    room_then[lost, now_slot:] = 0.0
    hit = affected(calendar, failed, now_slot=now_slot)
    bare, wishes = _aside(calendar, hit, now_slot)
    bare = replace(bare, capacity=room_then, room=np.maximum(bare.room + room_then - calendar.capacity, 0.0))
    wishes = [_rerouted(wish, failed, routes.get(wish.transfer.id, ())) for wish in wishes]
    lost_bytes = sum(wish.volume - float(wish.before.sum()) * calendar.slot_seconds for wish in wishes) / 8
    found = _together(bare, wishes, now_slot)
    given_up = list[Wish]()
    if found.missing:
        hit_ids = {booking.transfer.id for booking in hit}
        others = [b for key, b in bare.bookings.items() if key not in hit_ids and b.rates[:, now_slot:].any()]
        bare, more = _aside(bare, others, now_slot)
        wishes += [_rerouted(wish, failed, routes.get(wish.transfer.id, ())) for wish in more]
        found = _together(bare, wishes, now_slot)
        while found.missing:
            worst = max(found.missing, key=lambda key: (found.missing[key], key))
            given_up += [wish for wish in wishes if wish.transfer.id == worst]
            wishes = [wish for wish in wishes if wish.transfer.id != worst]
            found = _together(bare, wishes, now_slot)
        for wish in sorted(given_up, key=lambda wish: wish.volume):  # one given up early may fit without the later ones
            trial = _together(bare, [*wishes, wish], now_slot)
            if not trial.missing:
                found, wishes = trial, [*wishes, wish]
                given_up = [other for other in given_up if other is not wish]
    rest = _together(found.calendar, given_up, now_slot)
    moved = (found.moved + rest.moved) * calendar.slot_seconds / 8
    return Replanned(calendar=rest.calendar, lost_bytes=lost_bytes, moved_bytes=moved, missed=tuple(rest.missing))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Together:
    calendar: Calendar
    moved: float  # bits/s, summed over slots
    missing: dict[str, float]  # bits that found no place


def _aside(calendar: Calendar, bookings: Sequence[Booking], now_slot: int) -> tuple[Calendar, list[Wish]]:
    """The calendar with only the past of these promises, and what they still need."""
    wishes, pasts = list[Wish](), list[Booking]()
    for booking in bookings:
        past, before = booking.rates.copy(), booking.rates.copy()
        past[:, now_slot:], before[:, :now_slot] = 0.0, 0.0
        pasts.append(replace(booking, rates=past))
        wishes.append(
            Wish(
                transfer=booking.transfer,
                volume=float(before.sum()) * calendar.slot_seconds,
                window=calendar.window(booking.transfer, now_slot),
                routes=booking.routes,
                before=before,
            )
        )
    return calendar.book(pasts), wishes


def _rerouted(wish: Wish, failed: Collection[int], routes: Sequence[Route]) -> Wish:
    """The wish on those of its routes that live, and on the new ones."""
    lost = set(failed)
    alive = [place for place, route in enumerate(wish.routes) if lost.isdisjoint(route)]
    known = tuple(wish.routes[place] for place in alive)
    fresh = tuple(route for route in map(tuple, routes) if lost.isdisjoint(route) and route not in known)
    before = np.vstack([wish.before[alive], np.zeros((len(fresh), wish.before.shape[1]))])
    return replace(wish, routes=known + fresh, before=before)


def _together(calendar: Calendar, wishes: Sequence[Wish], now_slot: int) -> _Together:
    """Plans `wishes` in the room there is."""
    if not wishes:
        return _Together(calendar=calendar, moved=0.0, missing={})
    found = plan(wishes, calendar.room, calendar.slot_seconds)
    changed, moved, missing = list[Booking](), 0.0, dict[str, float]()
    for wish, rates, short in zip(wishes, found.rates, found.short, strict=True):
        key = wish.transfer.id
        moved += float(np.maximum(wish.before - rates, 0.0).sum())
        if short > _NEGLIGIBLE * wish.transfer.volume_bytes * 8:
            missing[key] = float(short)
        changed.append(_joined(calendar.bookings.get(key), wish, rates, now_slot))
    return _Together(calendar=calendar.book(changed), moved=moved, missing=missing)


def _joined(held: Booking | None, wish: Wish, rates: Floats, now_slot: int) -> Booking:
    """The past of a promise with its new future; routes that never carry anything are left out."""
    table = {route: np.array(row) for route, row in zip(wish.routes, rates, strict=True)}
    if held is not None:
        for route, row in zip(held.routes, held.rates, strict=True):
            past = row.copy()
            past[now_slot:] = 0.0
            table[route] = table[route] + past if route in table else past
    used = tuple(route for route, row in table.items() if row.any() or route in wish.routes)
    left = np.array([table[route] for route in used]).reshape(len(used), rates.shape[1])  # none when no route is left
    return Booking(transfer=wish.transfer, routes=used, rates=left)
