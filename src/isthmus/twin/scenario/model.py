"""What a scenario holds: frozen, with each figure's source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.task import Goal
from isthmus.twin.federation import Router, SitePolicy, Workload
from isthmus.twin.schedulers.outages import Outage

MICROSECONDS_PER_KM = {"solid": 4.9, "hollow": 3.46}  # one way, in glass (index 1.47) and in air (hollow core)
Hourly = NDArray[np.float64]
Brain = Literal["fast", "production"]  # compiled rules that `router` names, or `isthmus.placement.decide`


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One site; `tariff` (money per kWh) and `intensity` (g CO2 per kWh) by the hour, repeated: 24 or more values.

    `price_per_processor` is what one more would cost (any unit, over the time that is simulated); None: not known.
    """

    name: str
    processors: int
    policy: SitePolicy = "easy"
    region: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    pue: float = 1.0
    watts_per_processor: float = 0.0
    tariff: Hourly = field(default_factory=lambda: np.zeros(24))
    intensity: Hourly = field(default_factory=lambda: np.zeros(24))
    price_per_processor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link that both directions share, between two sites by name; one-way latency."""

    ends: tuple[str, str]
    bytes_per_second: float
    latency_seconds: float
    km: float = 0.0
    fibre: str = "solid"
    price_per_gbit: float | None = None  # of one more Gbit/s, in the unit of the processors' price


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a figure of a scenario comes from: its dotted path, and a source or "assumed"."""

    path: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """Jobs to draw from, one entry each, and arrivals in each hour of the week against their mean (168 values)."""

    name: str
    processors: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]
    hourly: Hourly

    def __len__(self) -> int:
        return len(self.processors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """A seeded workload of one home (see `synthetic`); with `like`, the figures of run times are not used."""

    home: str
    jobs_per_day: float
    days: float
    mean_run_seconds: float = 3600.0
    run_spread: float = 1.5
    most_processors: int = 64
    mean_input_bytes: float = 0.0
    overestimate: float = 3.0
    like: Shapes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Sites, links and what runs on them; `arrivals` divides the times between submissions."""

    name: str
    sites: tuple[Site, ...]
    links: tuple[Link, ...] = ()
    outages: tuple[tuple[str, Outage], ...] = ()  # by the site's name
    router: Router = "holes"
    rational: bool = True
    brain: Brain = "fast"
    goal: Goal = Goal.SOONEST  # of every task, for the brain of production
    round_seconds: int = 1
    arrivals: float = 1.0
    seed: int = 0
    synthetic: tuple[Synthetic, ...] = ()
    traced: Workload | None = None  # jobs from logs
    sources: tuple[Source, ...] = ()
    left_out: tuple[str, ...] = ()  # what of the logs was left out, in words
