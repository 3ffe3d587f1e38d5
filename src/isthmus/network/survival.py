"""What one failure would break: admission looks ahead and refuses what would make it too much.

After a failure `admission.replan` finds the best plan there is; what it cannot save was lost when it was admitted. So the question is
asked before: would this failure, now, leave more than a few promises without room?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isthmus.network.calendar import Booking, Calendar, Route, Transfer
from isthmus.network.topology import Floats

Cable = frozenset[int]
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Against the failure of any one of `cables`, each the links that fail together (both directions of a fibre, say).

    `around` gives a transfer the routes that it may use when a cable is gone; `capacity` [M] in bits/s is what links carry in need, for a
    calendar that promises only a share of them. `most` promises may be without room after one failure: 0 is strict and costs
    many admissions; as the count takes no one off a link that lives, it is above what re-planning really loses.
    """

    cables: Sequence[Cable]
    around: Callable[[Transfer, Cable], Sequence[Route]]
    capacity: Floats
    most: int

    def allows(self, before: Calendar, after: Calendar, transfer_id: str, now_slot: int) -> bool:
        """Whether the promise to a transfer, which `after` has and `before` has not, breaks no cable's limit if that fails now.

        Only cables that it uses are looked at. One that was beyond its limit before may stay there, but not get worse.
        """
        fresh = _links(after.bookings[transfer_id], now_slot)
        for cable in self.cables:
            if fresh.isdisjoint(cable):
                continue
            lost = self.broken(after, cable, now_slot)
            if lost > self.most and lost > self.broken(before, cable, now_slot):
                return False
        return True

    def broken(self, calendar: Calendar, cable: Cable, now_slot: int) -> int:
        """How many promises find no room by their deadlines when `cable` fails at a slot and only those it hits are planned again.

        The earliest deadline first, each on its shortest routes first: an upper bound of what the best plan loses.
        """
        hit = [one for one in calendar.bookings.values() if not _links(one, now_slot).isdisjoint(cable)]
        if not hit:
            return 0
        room = calendar.room + np.maximum(self.capacity[:, None] - calendar.capacity, 0.0)
        for booking in hit:
            for route, rates in zip(booking.routes, booking.rates, strict=True):
                room[list(route), now_slot:] += rates[now_slot:]
        room[list(cable)] = 0.0
        lost = 0
        for booking in sorted(hit, key=lambda one: (one.transfer.deadline_seconds, one.transfer.id)):
            window = calendar.window(booking.transfer, now_slot)
            alive = [route for route in booking.routes if cable.isdisjoint(route)]
            routes = dict.fromkeys([*alive, *self.around(booking.transfer, cable)])
            left = float(booking.rates[:, now_slot:].sum())
            lost += not _placed(room[:, window.start : window.stop], booking.transfer, list(routes), left)
        return lost


def _links(booking: Booking, now_slot: int) -> set[int]:
    used = zip(booking.routes, booking.rates, strict=True)
    return {link for route, rates in used if rates[now_slot:].any() for link in route}


def _placed(room: Floats, transfer: Transfer, routes: Sequence[Route], left: float) -> bool:
    """Takes `left` (bits/s, summed over slots) out of `room` [M, slots of the window], or nothing when it does not fit."""
    taken = list[tuple[list[int], Floats]]()
    cap = np.full(room.shape[1], transfer.rate_cap_bits_per_second)
    enough = _NEGLIGIBLE * left
    for route in map(list, sorted(routes, key=len)):
        rates = np.minimum(room[route].min(axis=0), cap)
        rates = np.diff(np.minimum(np.cumsum(rates), left), prepend=0.0)
        room[route] -= rates
        cap -= rates
        left -= float(rates.sum())
        taken.append((route, rates))
        if left <= enough:
            return True
    for route, rates in taken:
        room[route] += rates
    return False
