"""Figures of the calendar on generated streams: admission against fixed rates, one link failure, one to many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.te_bound import fewest_missed
from benchmarks.te_requests import SLOT_SECONDS, SLOTS, Stream, admit_fixed_rate, transfers
from isthmus.network.admission import admit, replan
from isthmus.network.calendar import Calendar, Route, Transfer
from isthmus.network.ecmp import distances
from isthmus.network.paths import Constraints, shortest_paths
from isthmus.network.survival import Guard
from isthmus.network.topology import Topology
from isthmus.network.trees import distribution_trees

ROUTES = 4
PROMISED = 0.93  # of each link; the rest is for the day when one fails, and fixed rates get all of it
MOST = 3  # promises that a failure may break, as far as admission sees


@dataclass(frozen=True)
class Outcome:
    """Counts of transfers and bytes over all streams."""

    asked: int = 0
    admitted: int = 0
    fixed: int = 0
    admitted_bytes: float = 0.0
    fixed_bytes: float = 0.0
    missed: int = 0
    before_failure: int = 0
    missed_one_failure: int = 0
    unavoidable: int = 0
    moved_bytes: float = 0.0
    lost_bytes: float = 0.0

    def plus(self, other: Outcome) -> Outcome:
        """The sum."""
        names = self.__dataclass_fields__
        return Outcome(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Network:
    """A topology with its routes by pair, found once."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.lengths = np.ones(topology.link_count)
        hops = distances(topology, self.lengths)
        self.hops = hops
        self.mean_hops = float(hops.sum() / (hops > 0).sum())
        self._known: dict[tuple[int, int, frozenset[int]], list[Route]] = {}

    def paths(self, transfer: Transfer, avoid: frozenset[int] = frozenset()) -> list[Route]:
        """The first paths of one pair by hops."""
        key = (transfer.source, transfer.targets[0], avoid)
        if key not in self._known:
            count = 2 * ROUTES if avoid else ROUTES
            found = shortest_paths(self.topology, *key[:2], self.lengths, count, Constraints(avoid_links=avoid))
            self._known[key] = [path.links for path in found]
        return self._known[key]

    def guard(self, most: int) -> Guard:
        """Admission that lets a failure break `most` promises."""
        return Guard(
            cables=self.cables(), around=self.paths, capacity=self.topology.capacity_bits_per_second, most=most
        )

    def cables(self) -> list[frozenset[int]]:
        """Both directions of each pair of neighbours without which all nodes still reach each other."""
        ends = [
            frozenset(pair) for pair in zip(self.topology.source.tolist(), self.topology.target.tolist(), strict=True)
        ]
        found = []
        for pair in sorted(set(ends), key=sorted):
            links = frozenset(link for link, both in enumerate(ends) if both == pair)
            cut = self.lengths.copy()
            cut[list(links)] = np.inf
            if np.isfinite(distances(self.topology, cut)).all():
                found.append(links)
        return found


def stream_outcome(network: Network, stream: Stream, *, promised: float = PROMISED, most: int = MOST) -> Outcome:
    """One stream: admitted by plan and at fixed rate; then again with one cable failing half-way, to the end."""
    asked = transfers(network.topology, stream, network.mean_hops)
    planned = Calendar.empty(network.topology, slot_seconds=SLOT_SECONDS, slots=SLOTS, share=promised)
    fixed = Calendar.empty(network.topology, slot_seconds=SLOT_SECONDS, slots=SLOTS)
    half, guard = SLOTS // 2, network.guard(most)
    at_half: Calendar | None = None
    for transfer in asked:
        now = int(transfer.release_seconds // SLOT_SECONDS)
        if now >= half and at_half is None:
            at_half = planned
        routes = network.paths(transfer)
        planned = admit(planned, transfer, routes, now_slot=now, guard=guard) or planned
        fixed = admit_fixed_rate(fixed, transfer, routes) or fixed
    missed = sum(not _met(planned, key) for key in planned.bookings)
    before = at_half or planned
    cables = network.cables()
    failed = cables[int(np.random.default_rng(stream.seed).integers(len(cables)))]
    again = {key: network.paths(booking.transfer, failed) for key, booking in before.bookings.items()}
    whole = network.topology.capacity_bits_per_second
    after = replan(before, failed, again, now_slot=half, capacity=whole)
    lost = list(failed)
    assert not any(b.use(network.topology.link_count)[lost, half:].any() for b in after.calendar.bookings.values())
    late = sum(not _met(after.calendar, key) for key in after.calendar.bookings)
    volume = {transfer.id: transfer.volume_bytes for transfer in asked}
    return Outcome(
        asked=len(asked),
        admitted=len(planned.bookings),
        fixed=len(fixed.bookings),
        admitted_bytes=sum(volume[key] for key in planned.bookings),
        fixed_bytes=sum(volume[key] for key in fixed.bookings),
        missed=missed,
        before_failure=len(before.bookings),
        missed_one_failure=late,
        unavoidable=fewest_missed(before, failed, again, half, whole) if late else 0,
        moved_bytes=after.moved_bytes,
        lost_bytes=after.lost_bytes,
    )


def one_to_many(network: Network, stream: Stream) -> tuple[int, int, float, float]:
    """Asked, admitted, bytes on all links over trees, and the least that one path to each target would put on them."""
    planned = Calendar.empty(network.topology, slot_seconds=SLOT_SECONDS, slots=SLOTS)
    asked = transfers(network.topology, stream, network.mean_hops)
    for transfer in asked:
        trees = distribution_trees(network.topology, transfer.source, transfer.targets, network.lengths, 3)
        now = int(transfer.release_seconds // SLOT_SECONDS)
        smallest = admit(planned, transfer, trees[:1], now_slot=now)
        planned = smallest or admit(planned, transfer, trees, now_slot=now) or planned
    tree_bytes = unicast_bytes = 0.0
    for booking in planned.bookings.values():
        hops = sum(float(network.hops[booking.transfer.source, target]) for target in booking.transfer.targets)
        unicast_bytes += hops * booking.transfer.volume_bytes
        tree_bytes += float(booking.use(network.topology.link_count).sum()) * SLOT_SECONDS / 8
    return len(asked), len(planned.bookings), tree_bytes, unicast_bytes


def _met(calendar: Calendar, key: str) -> bool:
    """Whether all bytes are carried inside the window, from the rates alone."""
    booking = calendar.bookings[key]
    window = calendar.window(booking.transfer)
    inside = float(booking.rates[:, window.start : window.stop].sum()) * calendar.slot_seconds / 8
    return inside >= booking.transfer.volume_bytes * (1 - 1e-6)
