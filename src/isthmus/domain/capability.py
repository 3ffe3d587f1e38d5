"""Capability: the measured vector of what a node or an accelerator does, and what a pool's nodes come to together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from isthmus.domain.errors import Invalid


class Quantity(StrEnum):
    """What is measured; the name ends with its SI unit. An operation is one multiplication or one addition."""

    FP64 = "fp64_ops_per_second"
    FP32 = "fp32_ops_per_second"
    FP16 = "fp16_ops_per_second"  # or bfloat16
    INT8 = "int8_ops_per_second"
    VECTOR = "vector_ops_per_second"  # fp64, element by element, in cache
    MEMORY = "memory_bytes_per_second"
    CACHE = "cache_bytes_per_second"
    LATENCY = "memory_latency_seconds"  # the only one that is better when it is less
    SERIAL = "serial_passes_per_second"  # one thread
    STORAGE_WRITE = "storage_write_bytes_per_second"
    STORAGE_READ = "storage_read_bytes_per_second"
    NETWORK = "network_bytes_per_second"
    HOST_LINK = "host_link_bytes_per_second"  # host's memory to an accelerator's


class WorkClass(StrEnum):
    """What a task mostly does; each class has its own weights in the Isthmus unit."""

    DENSE_FP64 = "dense_fp64"
    ML_TRAINING = "ml_training"
    ML_INFERENCE = "ml_inference"
    MEMORY_BOUND = "memory_bound"
    SERIAL = "serial"
    IO = "io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity with its spread: median, 10th and 90th percentile of the samples that were kept."""

    median: float
    p10: float
    p90: float
    samples: int = 1
    rejected: int = 0
    by: str = ""  # what did the arithmetic, and how

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.median, self.p10, self.p90)):
            raise Invalid("median", "is not a finite number.", remedy="Measure again.")
        if not 0.0 < self.p10 <= self.median <= self.p90:
            raise Invalid("median", f"is {self.median} of {self.p10} to {self.p90}.", remedy="Measure again.")

    @property
    def error(self) -> float:
        """Half the width from p10 to p90, as a part of the median."""
        return (self.p90 - self.p10) / (2.0 * self.median)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """The vector of the given processors of a node (kind `cpu`; with its storage and network), or of one accelerator."""

    name: str  # the maker's name of it
    kind: str
    memory_bytes: int
    figures: Mapping[Quantity, Figure]

    def median(self, quantity: Quantity) -> float | None:
        """The figure's median; None when it was not measured."""
        figure = self.figures.get(quantity)
        return None if figure is None else figure.median


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCapability:
    """One measurement of one node, in seconds since 1970 by the node's clock. `left_out` says what was not measured and why."""

    node: str
    measured_at: float
    seconds: float
    cpus: int
    processor: Capability
    accelerators: tuple[Capability, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What nodes must share to be compared: the processor, how many of them were given, and the accelerators."""
        devices = sorted({(one.name, one.kind) for one in self.accelerators})
        counts = [sum(one.name == name and one.kind == kind for one in self.accelerators) for name, kind in devices]
        shown = [f"{count} x {name}" for count, (name, _) in zip(counts, devices, strict=True)]
        return " + ".join([f"{self.cpus} x {self.processor.name}", *shown])[:255]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowNode:
    """A node that does less than its kind: `ratio` of the kind's median in this quantity (as speed), `score` in robust
    standard deviations below it."""

    node: str
    quantity: Quantity
    ratio: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCapability:
    """What the nodes of one kind in a pool come to: medians over nodes, with the wider of the spreads inside and between them.

    `units` are Isthmus units of one whole node by class of work, `general` their geometric mean, `grade` the power of two
    that it reaches (docs/metering.md); None where figures are lacking. `reference` names the table they are ratios to.
    """

    kind: str
    measured_at: float
    nodes: tuple[str, ...]
    cpus: int
    processor: Capability
    accelerator: Capability | None = None
    accelerators: int = 0
    slow_nodes: tuple[SlowNode, ...] = ()
    units: dict[WorkClass, float] = field(default_factory=dict)
    general: float | None = None
    grade: int | None = None
    error: float = 0.0  # of the general unit, as a part of it
    reference: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
