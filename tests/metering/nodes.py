"""Nodes with given figures, for the tests of what is made of measurements."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.domain.capability import Capability, Figure, NodeCapability, Quantity
from isthmus.metering.unit import BY_THREAD, REFERENCE_FIGURES


def figure(median: float, spread: float = 0.02) -> Figure:
    """A figure whose p10 and p90 are `spread` below and above."""
    return Figure(median=median, p10=median * (1 - spread), p90=median * (1 + spread), samples=10)


def reference_node(name: str = "n1", cpus: int = 2, scale: Mapping[Quantity, float] | None = None) -> NodeCapability:
    """A node that is `cpus` processors of the reference machine, but for `scale` in some quantities."""
    figures = {
        quantity: figure(value * (1 if quantity in BY_THREAD else cpus) * (scale or {}).get(quantity, 1.0))
        for quantity, value in REFERENCE_FIGURES.items()
    }
    figures[Quantity.VECTOR] = figure(2.5e9 * cpus * (scale or {}).get(Quantity.VECTOR, 1.0))
    return NodeCapability(
        node=name,
        measured_at=1_800_000_000.0,
        seconds=60.0,
        cpus=cpus,
        processor=Capability(name="Reference", kind="cpu", memory_bytes=8 * 1024**3, figures=figures),
    )


def device(name: str = "Fast", **scale: float) -> Capability:
    """An accelerator with ten times the matrices and memory of a reference processor."""
    kinds = (Quantity.FP64, Quantity.FP32, Quantity.FP16, Quantity.INT8, Quantity.MEMORY)
    figures = {kind: figure(10 * REFERENCE_FIGURES[kind] * scale.get(kind.name.lower(), 1.0)) for kind in kinds}
    return Capability(name=name, kind="nvidia", memory_bytes=80 * 1024**3, figures=figures)
