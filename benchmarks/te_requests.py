"""Seeded streams of transfers for the calendar's figures, and the reservation of constant rate that they are set against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.network.calendar import Booking, Calendar, Route, Transfer
from isthmus.network.topology import Topology

SLOT_SECONDS, SLOTS = 300.0, 96


@dataclass(frozen=True)
class Stream:
    """What is asked of a network: how many transfers, to how many targets, how much of the network's capacity in all."""

    seed: int
    count: int
    load: float
    targets: tuple[int, int] = (1, 1)


def transfers(topology: Topology, stream: Stream, hops: float) -> list[Transfer]:
    """Transfers in the order of their arrival, which is their release.

    Releases uniform over the first 80 % of eight hours; windows of 20 minutes to 3 hours, log-uniform; volumes log-normal
    (sigma 1), scaled so that volume times `hops` (the mean length of shortest paths) is `load` of all capacity over time; rate
    caps uniform in 0.2 to 1 of the mean link, and at least 1.2 times what the window needs; ends uniform without repetition.
    """
    draw = np.random.default_rng(stream.seed)
    span = SLOT_SECONDS * SLOTS
    release = np.sort(draw.uniform(0, 0.8 * span, stream.count))
    window = np.exp(draw.uniform(np.log(1200), np.log(10800), stream.count))
    size = draw.lognormal(0, 1, stream.count)
    size *= stream.load * topology.capacity_bits_per_second.sum() * span / 8 / hops / size.sum()
    link = float(topology.capacity_bits_per_second.mean())
    size = np.minimum(size, 0.5 * link * window / 8)
    cap = np.maximum(draw.uniform(0.2, 1.0, stream.count) * link, 1.2 * size * 8 / np.maximum(window - 600, 300))
    made = []
    for number in range(stream.count):
        receivers = int(draw.integers(stream.targets[0], stream.targets[1] + 1))
        ends = draw.choice(topology.node_count, receivers + 1, replace=False)
        made.append(
            Transfer(
                id=f"{number}",
                source=int(ends[0]),
                targets=tuple(int(end) for end in ends[1:]),
                volume_bytes=float(size[number]),
                release_seconds=float(release[number]),
                deadline_seconds=float(min(release[number] + window[number], span)),
                rate_cap_bits_per_second=float(cap[number]),
            )
        )
    return made


def admit_fixed_rate(calendar: Calendar, transfer: Transfer, routes: list[Route]) -> Calendar | None:
    """One route at one constant rate without a break: the earliest start that fits, over all `routes` and six rates.

    More than a classical reservation service does, which is given its rate and start by the user.
    """
    window = calendar.window(transfer)
    slots_left = len(window)
    bits = transfer.volume_bytes * 8
    best: tuple[int, int, int, Route] | None = None
    lengths = (
        sorted({max(1, round(slots_left * part)) for part in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)}) if slots_left else []
    )
    for length in lengths:
        rate = bits / (length * calendar.slot_seconds)
        if rate > transfer.rate_cap_bits_per_second:
            continue
        for route in routes:
            fits = calendar.room[list(route), window.start : window.stop].min(axis=0) >= rate
            run = np.convolve(fits, np.ones(length, dtype=int), "valid") == length
            if run.any():
                start = window.start + int(np.argmax(run))
                if best is None or start + length < best[0]:
                    best = (start + length, start, length, route)
    if best is None:
        return None
    _, start, length, route = best
    rates = np.zeros((1, calendar.slots))
    rates[0, start : start + length] = bits / (length * calendar.slot_seconds)
    return calendar.book([Booking(transfer=transfer, routes=(route,), rates=rates)])
