"""Node measurements of a pool, kind by kind: medians, spread, the units, and the nodes that do less than their kind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from isthmus.domain.capability import Capability, Figure, NodeCapability, PoolCapability, Quantity, SlowNode
from isthmus.metering import unit

SLOW_SCORE = 3.5  # robust standard deviations below the kind's median (Iglewicz and Hoaglin 1993)
SLOW_PART = 0.95  # and at most this part of it: what costs less than 5 % is named by nobody
LEAST_NODES = 3  # of two that differ nobody can say which is wrong
_SIGMA = 1.4826  # MAD to standard deviation of a normal distribution
_DECILES = 2.563  # p90 - p10 of a normal distribution, in standard deviations


def by_kind(measurements: Iterable[NodeCapability]) -> list[PoolCapability]:
    """The capability of each kind of node, by name of the kind; the newest measurement of each node counts."""
    newest: dict[str, NodeCapability] = {}
    for one in measurements:
        known = newest.get(one.node)
        if known is None or one.measured_at >= known.measured_at:
            newest[one.node] = one
    kinds: dict[str, list[NodeCapability]] = {}
    for one in sorted(newest.values(), key=lambda one: one.node):
        kinds.setdefault(one.kind, []).append(one)
    return [_aggregate(kind, nodes) for kind, nodes in sorted(kinds.items())]


def _aggregate(kind: str, nodes: Sequence[NodeCapability]) -> PoolCapability:
    processor = _together([one.processor for one in nodes])
    devices = [device for one in nodes for device in one.accelerators]
    accelerator = _together(devices) if devices else None
    count = len(nodes[0].accelerators)
    cpus = nodes[0].cpus
    by_class = unit.units(unit.whole_node(processor, cpus, accelerator, count))
    general = unit.general(by_class)
    return PoolCapability(
        kind=kind,
        measured_at=max(one.measured_at for one in nodes),
        nodes=tuple(one.node for one in nodes),
        cpus=cpus,
        processor=processor,
        accelerator=accelerator,
        accelerators=count,
        slow_nodes=slow_nodes(nodes),
        units=by_class,
        general=general,
        grade=None if general is None else unit.grade(general),
        error=_error(processor, accelerator),
        reference=unit.REFERENCE,
        left_out={name: reason for one in nodes for name, reason in one.left_out.items()},
    )


def _together(capabilities: Sequence[Capability]) -> Capability:
    """Medians over nodes or devices; a quantity that some lack is told by those that have it."""
    figures: dict[Quantity, Figure] = {}
    for quantity in Quantity:
        found = [one.figures[quantity] for one in capabilities if quantity in one.figures]
        if found:
            figures[quantity] = _middle(found)
    return Capability(
        name=capabilities[0].name,
        kind=capabilities[0].kind,
        memory_bytes=min(one.memory_bytes for one in capabilities),
        figures=figures,
    )


def _middle(found: Sequence[Figure]) -> Figure:
    if len(found) == 1:
        return found[0]
    median = statistics.median(one.median for one in found)
    inside_low = statistics.median(one.p10 / one.median for one in found)
    inside_high = statistics.median(one.p90 / one.median for one in found)
    tenths = statistics.quantiles([one.median for one in found], n=10, method="inclusive")
    return Figure(
        median=median,
        p10=min(median * inside_low, tenths[0]),
        p90=max(median * inside_high, tenths[-1]),
        samples=sum(one.samples for one in found),
        rejected=sum(one.rejected for one in found),
        by=found[0].by,
    )


def _error(processor: Capability, accelerator: Capability | None) -> float:
    """Of the general unit: errors of the figures, taken as independent, through the geometric mean (first order)."""
    total = 0.0
    for quantity, weight in _general_weights().items():
        on_device = accelerator is not None and quantity in unit.ON_ACCELERATORS
        figure = (accelerator if on_device and accelerator else processor).figures.get(quantity)
        if figure is not None:
            total += (weight * figure.error) ** 2
    return math.sqrt(total)


def _general_weights() -> dict[Quantity, float]:
    found: dict[Quantity, float] = {}
    for weights in unit.WEIGHTS.values():
        for quantity, weight in weights.items():
            found[quantity] = found.get(quantity, 0.0) + weight / len(unit.WEIGHTS)
    return found


def slow_nodes(nodes: Sequence[NodeCapability]) -> tuple[SlowNode, ...]:
    """Nodes of one kind that do less than the kind, worst first; the worst quantity of each.

    The score is the distance from the median in logarithms over the larger of 1.4826 MAD and the median spread inside a
    node, so that very even nodes are not accused for a difference below what one measurement can tell.
    """
    if len(nodes) < LEAST_NODES:
        return ()
    worst: dict[str, SlowNode] = {}
    for quantity in Quantity:
        speeds: list[tuple[str, float, float]] = []  # node, log of speed, its spread
        for one in nodes:
            holders = one.accelerators if quantity is Quantity.HOST_LINK else (one.processor, *one.accelerators)
            for holder in holders:
                figure = holder.figures.get(quantity)
                if figure is not None:
                    sign = -1.0 if quantity is Quantity.LATENCY else 1.0
                    spread = math.log(figure.p90 / figure.p10) / _DECILES
                    speeds.append((f"{holder.kind} {one.node}", sign * math.log(figure.median), spread))
        for kind in sorted({who.partition(" ")[0] for who, _, _ in speeds}):
            same = [one for one in speeds if one[0].partition(" ")[0] == kind]
            for who, ratio, score in _below(same):
                node = who.partition(" ")[2]
                if node not in worst or score > worst[node].score:
                    worst[node] = SlowNode(node=node, quantity=quantity, ratio=ratio, score=score)
    return tuple(sorted(worst.values(), key=lambda one: (-one.score, one.node)))


def _below(speeds: Sequence[tuple[str, float, float]]) -> Iterable[tuple[str, float, float]]:
    if len(speeds) < LEAST_NODES:
        return
    middle = statistics.median(speed for _, speed, _ in speeds)
    between = _SIGMA * statistics.median(abs(speed - middle) for _, speed, _ in speeds)
    scale = max(between, statistics.median(spread for _, _, spread in speeds), 1e-6)
    for who, speed, _ in speeds:
        ratio, score = math.exp(speed - middle), (middle - speed) / scale
        if score > SLOW_SCORE and ratio < SLOW_PART:
            yield who, ratio, score
