"""The calendar: bandwidth of every link over time, and what was promised of it.

Time is cut into slots of equal length from the calendar's start. A transfer is promised a rate on each of its routes in each
slot; a route is a set of links that carry its data once each: a path, or a distribution tree. Promises use whole slots only,
so a promise that the calendar holds is met by its deadline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from isthmus.domain.errors import Conflict, Invalid, NotFound
from isthmus.network.topology import Floats, Topology

Route = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """`volume_bytes` from `source` to every one of `targets` (node numbers), between two times in seconds from the start.

    Its whole rate, over all routes, never exceeds `rate_cap_bits_per_second`.
    """

    id: str
    source: int
    targets: tuple[int, ...]
    volume_bytes: float
    release_seconds: float
    deadline_seconds: float
    rate_cap_bits_per_second: float = math.inf

    def __post_init__(self) -> None:
        if not self.volume_bytes > 0:
            raise Invalid("volume_bytes", "is not positive.")
        if not 0 <= self.release_seconds < self.deadline_seconds:
            raise Invalid("deadline_seconds", "is not after the release, or the release is before the calendar.")
        if not self.targets or self.source in self.targets:
            raise Invalid("targets", "are none, or the source is among them.")
        if not self.rate_cap_bits_per_second > 0:
            raise Invalid("rate_cap_bits_per_second", "is not positive.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Booking:
    """A promise: `rates` [routes, slots] in bits/s, zero outside the transfer's window."""

    transfer: Transfer
    routes: tuple[Route, ...]
    rates: Floats

    def use(self, link_count: int) -> Floats:
        """Bits/s [M, slots] that it takes of each link."""
        taken = np.zeros((link_count, self.rates.shape[1]))
        for route, rates in zip(self.routes, self.rates, strict=True):
            taken[list(route)] += rates
        return taken


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calendar:
    """Capacity [M, slots] in bits/s, and the promises made of it by the ids of their transfers. Never over-booked.

    Changes give a new calendar; the old one stays as it was.
    """

    topology: Topology
    slot_seconds: float
    capacity: Floats
    bookings: Mapping[str, Booking]
    room: Floats

    @classmethod
    def empty(cls, topology: Topology, *, slot_seconds: float, slots: int, share: float = 1.0) -> Calendar:
        """A calendar without promises that may promise up to `share` of each link."""
        if slot_seconds <= 0 or slots <= 0 or not 0 < share <= 1:
            raise Invalid("calendar", "needs slots that have a length, and a share in (0, 1].")
        capacity = np.repeat(topology.capacity_bits_per_second[:, None] * share, slots, axis=1)
        return cls(topology=topology, slot_seconds=slot_seconds, capacity=capacity, bookings={}, room=capacity.copy())

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return int(self.capacity.shape[1])

    def window(self, transfer: Transfer, now_slot: int = 0) -> range:
        """Slots that lie wholly between release and deadline, not before `now_slot`."""
        first = max(math.ceil(transfer.release_seconds / self.slot_seconds - 1e-9), now_slot)
        last = min(math.floor(transfer.deadline_seconds / self.slot_seconds + 1e-9), self.slots)
        return range(first, max(first, last))

    def sent_bytes(self, booking: Booking, before_slot: int | None = None) -> float:
        """Bytes that the promise carries in all slots, or in those before one."""
        return float(booking.rates[:, :before_slot].sum()) * self.slot_seconds / 8

    def finish_seconds(self, booking: Booking) -> float:
        """The end of the last slot in which the promise carries anything: no later than the deadline."""
        used = np.flatnonzero(booking.rates.any(axis=0))
        return float(used[-1] + 1) * self.slot_seconds if len(used) else booking.transfer.release_seconds

    def book(self, bookings: Collection[Booking]) -> Calendar:
        """With these promises, each in place of an earlier one of its id. Conflict when a link would be over-booked."""
        room, held = self.room.copy(), dict(self.bookings)
        for booking in bookings:
            before = held.get(booking.transfer.id)
            if before is not None:
                room += before.use(self.topology.link_count)
            room -= booking.use(self.topology.link_count)
            held[booking.transfer.id] = booking
        if (room < -1e-6 * self.topology.capacity_bits_per_second[:, None]).any():
            raise Conflict("A link would be promised more than it has.")
        return replace(self, bookings=held, room=np.maximum(room, 0.0))

    def release(self, transfer_id: str, from_slot: int = 0) -> Calendar:
        """Without what was promised to a transfer from a slot on; NotFound."""
        booking = self.bookings.get(transfer_id)
        if booking is None:
            raise NotFound(f"The calendar holds nothing for {transfer_id}.")
        rates = booking.rates.copy()
        rates[:, from_slot:] = 0.0
        shorter = self.book([replace(booking, rates=rates)])
        if rates.any():
            return shorter
        return replace(shorter, bookings={key: other for key, other in self.bookings.items() if key != transfer_id})
