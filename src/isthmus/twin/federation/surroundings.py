"""What the brain of the service is told of simulated sites: snapshots as it reads them from its store, with what was promised."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from isthmus.domain.hours import DAY, WEEK, Hours
from isthmus.domain.placement import PoolView, Promise, ScarcePrice, Snapshot
from isthmus.domain.roads import Carriage, Held, Roads
from isthmus.domain.site import Energy, Pool
from isthmus.twin.federation.batches import load

POOL = "main"
MEMORY = 1024**2  # logs do not say how much a job needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What a processor hour costs at a site in each hour, and what it draws and emits; hours are repeated, from the clock's 0 on."""

    price_per_cpu_hour: tuple[Decimal, ...] = (Decimal(0),)
    watts_per_cpu: Decimal = Decimal(0)
    pue: Decimal = Decimal(1)
    carbon_grams_per_kwh: tuple[Decimal, ...] = ()

    def price_hours(self) -> Hours:
        """The price by the hour, as the service keeps a tariff."""
        return _hours(self.price_per_cpu_hour)

    def energy(self) -> Energy:
        """Power, and the grid's intensity by the hour."""
        carbon = self.carbon_grams_per_kwh
        return Energy(watts_per_cpu=self.watts_per_cpu, pue=self.pue, carbon_hours=_hours(carbon) if carbon else None)


def _hours(values: tuple[Decimal, ...]) -> Hours:
    """The same again and again. `Hours` counts a week from Monday, and the clock's 0, as a time, is a Thursday."""
    if len(values) == WEEK:
        return Hours((*values[WEEK - 72 :], *values[: WEEK - 72]))
    if len(values) in (1, DAY):
        return Hours(values)
    return Hours(values * max(1, -(-DAY // len(values))), first_hour=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Sites by number as the brain knows them: names, tariffs, and the network between them."""

    names: tuple[str, ...]
    tariffs: tuple[Tariff, ...] = ()
    roads: Roads = field(default_factory=Roads)


class Promises:
    """What was promised of the sites and the links beside what the sites show themselves, and the snapshot of it all."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._tariffs = [(one.price_hours(), one.energy()) for one in around.tariffs]
        self._load = np.zeros((len(around.names), 6))
        self._sent = [Promise() for _ in around.names]  # to each site, its data still under way
        self._held: list[Held] = []
        self._carried: dict[str, float] = dict.fromkeys(around.roads.links, 0.0)

    @property
    def carried_bytes(self) -> list[float]:
        """By link, so far."""
        return list(self._carried.values())

    def send(self, transfers: tuple[Carriage, ...]) -> None:
        """Hold the windows that were reserved for these."""
        for one in transfers:
            for stretch in one.stretches:
                self._held += [
                    Held(link=link, begins=stretch.begins, ends=stretch.ends, bytes_per_second=stretch.bytes_per_second)
                    for link in one.links
                ]
            for link in one.links:
                self._carried[link] += one.size_bytes

    def promise(self, site: int, width: int, seconds: int, sign: int) -> None:
        """Promise (1) a job whose data is under way, or no longer (-1)."""
        before = self._sent[site]
        self._sent[site] = Promise(
            jobs=before.jobs + sign,
            cpus=before.cpus + sign * width,
            memory_bytes=before.memory_bytes + sign * MEMORY,
            cpu_seconds=before.cpu_seconds + sign * float(width * seconds),
        )

    def snapshot(self, state: Any, now: int, prices: tuple[ScarcePrice, ...]) -> Snapshot:
        """Every pool, as its site would show it now, and the roads."""
        load(state, now, self._load)
        self._held = [one for one in self._held if one.ends > now]
        views = []
        for site, (name, figures) in enumerate(zip(self._around.names, self._load.tolist(), strict=True)):
            free, queued, queued_cpus, queued_seconds, left, running = figures
            size = max(0, int(state.sites[site]["processors"]))
            price, energy = self._tariffs[site] if self._tariffs else (None, Energy())
            sent = self._sent[site]
            used = int(state.sites[site]["used"])
            views.append(
                PoolView(
                    site=name,
                    pool=Pool(
                        name=POOL,
                        cpus_per_node=max(1, size),
                        memory_bytes_per_node=max(1, size) * MEMORY,
                        up=size > 0,
                        free_cpus=max(0, int(free)),
                        queued_jobs=int(queued),
                        queued_cpu_seconds=queued_seconds,
                        running_cpu_seconds_left=left,
                    ),
                    cpu_hours=price,
                    promised=Promise(
                        jobs=int(queued + running) + sent.jobs,
                        cpus=int(queued_cpus) + used + sent.cpus,
                        memory_bytes=int(queued + running) * MEMORY + sent.memory_bytes,
                        cpu_seconds=queued_seconds + left + sent.cpu_seconds,
                    ),
                    promised_unseen=sent,
                    energy=energy,
                )
            )
        roads = self._around.roads
        if roads.links:
            roads = replace(roads, held=tuple(self._held))
        return Snapshot(now=float(now), pools=tuple(views), prices=prices, roads=roads)
