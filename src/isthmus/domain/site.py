"""Sites and pools as the brain sees them: what a site has, what it can do, how busy it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from isthmus.domain.errors import Invalid
from isthmus.domain.hours import Hours
from isthmus.domain.ids import is_name
from isthmus.domain.queue import SiteQueue


class SiteState(StrEnum):
    """What the operator wants of a site."""

    ACTIVE = "active"
    DRAINING = "draining"  # nothing new; what is there ends in peace
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnShare:
    """What of a pool's load is of this system's own jobs: processors of those that run, those that wait, and the processor seconds
    that all of them may still take by their limits."""

    running_cpus: int = 0
    queued_jobs: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A set of alike nodes that one queue serves; memory, disk and accelerators are for each node.

    `free_*` are what the site itself saw idle at the last look, before promises of this system that it
    had not seen yet. `immediate` pools have no queue of their own: what does not fit must wait here.
    """

    name: str
    nodes: int = 1
    cpus_per_node: int = 1
    memory_bytes_per_node: int = 1024**3
    disk_bytes_per_node: int = 0
    accelerators_per_node: int = 0
    accelerator_kind: str = ""
    accelerator_memory_bytes: int = 0
    max_walltime_seconds: int | None = None
    licences: dict[str, int] = field(default_factory=dict)
    immediate: bool = False
    up: bool = True
    free_cpus: int | None = None
    free_nodes: int | None = None
    queued_jobs: int = 0
    queued_cpu_seconds: float = 0.0
    running_cpu_seconds_left: float = 0.0
    own: OwnShare | None = None  # None: the site does not show whose jobs they are
    price_per_cpu_hour: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 255:
            raise Invalid("name", f"{self.name!r} is not a pool name.", remedy="Give 1 to 255 characters.")

    @property
    def cpus(self) -> int:
        """Processors of all nodes."""
        return self.nodes * self.cpus_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What running draws at a pool, and what that emits: watts of a busy processor and device, power usage effectiveness of the
    building (ISO/IEC 30134-2), grams of CO2 equivalent for each kWh from the grid."""

    watts_per_cpu: Decimal = Decimal(0)
    watts_per_accelerator: Decimal = Decimal(0)
    pue: Decimal = Decimal(1)
    carbon_grams_per_kwh: Decimal | None = None
    carbon_hours: Hours | None = None  # where the grid's intensity is known by the hour

    @property
    def known(self) -> bool:
        """Whether a power was declared."""
        return bool(self.watts_per_cpu or self.watts_per_accelerator)

    def kwh(self, cpu_seconds: int, accelerator_seconds: int) -> Decimal | None:
        """What processors and devices that were set apart for so long draw, with the building's share; None where no power was
        declared."""
        if not self.known:
            return None
        joules = self.watts_per_cpu * cpu_seconds + self.watts_per_accelerator * accelerator_seconds
        return (joules * self.pue / 3_600_000).quantize(Decimal("0.000001"))

    def grams(self, kwh: Decimal | None, begin: float = 0.0, seconds: float = 0.0) -> Decimal | None:
        """What the energy emits when it is drawn from `begin` (seconds since 1970) on for so long, in grams of CO2 equivalent;
        None where either is not known."""
        hours = self.carbon_hours
        intensity = self.carbon_grams_per_kwh if hours is None else hours.mean(begin, seconds)
        if kwh is None or intensity is None:
            return None
        return (kwh * intensity).quantize(Decimal("0.001"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDescription:
    """What an adapter found at its site; `queue` where it has one that can be seen."""

    kind: str
    version: str = ""
    pools: tuple[Pool, ...] = ()
    features: frozenset[str] = frozenset()  # e.g. "containers:podman", "arrays", "fetch:https", "accounting"
    notes: tuple[str, ...] = ()
    queue: SiteQueue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteIdentity:
    """What the operator declares of a site when it joins."""

    name: str
    kind: str
    region: str = ""
    trust: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise Invalid(
                "name",
                f"{self.name!r} is not a site name.",
                remedy="Use a-z, 0-9, . _ -, at most 63 characters.",
            )
