"""The Isthmus unit: one scalar for prices and indexes. Formula, weights and reasons: docs/metering.md.

For a class of work c, units(c) = product over quantities q of (x_q / r_q) ^ w_cq, with x_q what one whole node does, r_q
what one processor of the reference machine does, and the weights w_cq of a class summing to 1. The weighted geometric mean of
ratios is SPEC's and HEPScore's rule: the ratio of two machines does not depend on the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from isthmus.domain.capability import Capability, Quantity, WorkClass

REFERENCE: Final = "reference-1"
# One processor of reference-1 alone, by processor time; of its storage the half (docs/metering.md).
REFERENCE_FIGURES: Final[Mapping[Quantity, float]] = {
    Quantity.FP64: 60e9,
    Quantity.FP32: 120e9,
    Quantity.FP16: 400e9,
    Quantity.INT8: 950e9,
    Quantity.MEMORY: 40e9,
    Quantity.CACHE: 95e9,
    Quantity.LATENCY: 150e-9,
    Quantity.SERIAL: 945.0,
    Quantity.STORAGE_WRITE: 0.55e9,
    Quantity.STORAGE_READ: 1.2e9,
}
WEIGHTS: Final[Mapping[WorkClass, Mapping[Quantity, float]]] = {
    WorkClass.DENSE_FP64: {Quantity.FP64: 0.80, Quantity.MEMORY: 0.20},
    WorkClass.ML_TRAINING: {Quantity.FP16: 0.55, Quantity.FP32: 0.15, Quantity.MEMORY: 0.30},
    WorkClass.ML_INFERENCE: {Quantity.INT8: 0.35, Quantity.FP16: 0.25, Quantity.MEMORY: 0.40},
    WorkClass.MEMORY_BOUND: {Quantity.MEMORY: 0.70, Quantity.CACHE: 0.15, Quantity.LATENCY: 0.15},
    WorkClass.SERIAL: {Quantity.SERIAL: 0.80, Quantity.LATENCY: 0.15, Quantity.CACHE: 0.05},
    WorkClass.IO: {Quantity.STORAGE_READ: 0.50, Quantity.STORAGE_WRITE: 0.50},
}
# What was not measured counts as done in the next wider format, which can always do it: leaving out never helps.
WIDER: Final = {Quantity.INT8: Quantity.FP16, Quantity.FP16: Quantity.FP32, Quantity.FP32: Quantity.FP64}
ON_ACCELERATORS: Final = frozenset({Quantity.FP64, Quantity.FP32, Quantity.FP16, Quantity.INT8, Quantity.MEMORY})
BY_THREAD: Final = frozenset({Quantity.SERIAL, Quantity.LATENCY})


def whole_node(
    processor: Capability, cpus: int, accelerator: Capability | None = None, accelerators: int = 0
) -> dict[Quantity, float]:
    """What a whole node does, as rates (the latency as dependent reads a second over all processors).

    Matrices and memory count on the accelerators or on the processors, whichever do more; a quantity of one thread is
    multiplied by the processors, as many such tasks run beside each other.
    """
    found: dict[Quantity, float] = {}
    for quantity in Quantity:
        here = _or_wider(processor, quantity)
        if here is not None:
            rate = 1.0 / here if quantity is Quantity.LATENCY else here
            found[quantity] = rate * cpus if quantity in BY_THREAD else rate
        there = _or_wider(accelerator, quantity) if accelerator and quantity in ON_ACCELERATORS else None
        if there is not None:
            found[quantity] = max(found.get(quantity, 0.0), there * accelerators)
    return found


def _or_wider(capability: Capability, quantity: Quantity) -> float | None:
    """The figure, or that of the next wider format which was measured; the better of them."""
    best = capability.median(quantity)
    wider = WIDER.get(quantity)
    while wider is not None:
        other = capability.median(wider)
        if other is not None and (best is None or other > best):
            best = other
        wider = WIDER.get(wider)
    return best


def _of_reference(quantity: Quantity) -> float:
    value = REFERENCE_FIGURES[quantity]
    return 1.0 / value if quantity is Quantity.LATENCY else value


def units(node: Mapping[Quantity, float]) -> dict[WorkClass, float]:
    """Isthmus units by class of work, of a node as `whole_node` tells it; classes that lack a figure are left out."""
    found: dict[WorkClass, float] = {}
    for work, weights in WEIGHTS.items():
        if all(quantity in node for quantity in weights):
            logs = (weight * math.log(node[q] / _of_reference(q)) for q, weight in weights.items())
            found[work] = math.exp(math.fsum(logs))
    return found


def general(by_class: Mapping[WorkClass, float]) -> float | None:
    """The one scalar: the geometric mean over all classes; None when a class is lacking."""
    if set(by_class) != set(WEIGHTS):
        return None
    return math.exp(math.fsum(math.log(value) for value in by_class.values()) / len(WEIGHTS))


def grade(units_of_node: float) -> int:
    """The power of two that a node's units reach: grade 4 is 16 to 32 units; below one unit grades are negative."""
    return math.floor(math.log2(units_of_node))
