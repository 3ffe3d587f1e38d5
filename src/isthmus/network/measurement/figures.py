"""From the packets of a STAMP session to the figures of a path. Pure.

Loss in each direction comes from the reflector's own sequence numbers; delay variation is that of consecutive packets (RFC 3393).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One packet that came back: sent by the sender, received and sent by the reflector, received by the sender; nanoseconds."""

    sequence: int
    reflector_sequence: int
    sent_ns: int
    reflected_in_ns: int
    reflected_out_ns: int
    received_ns: int
    exact: bool
    """Whether all four times are the kernels'."""

    @property
    def two_way_ns(self) -> int:
        """Time on the way there and back, without the reflector's own."""
        return self.received_ns - self.sent_ns - (self.reflected_out_ns - self.reflected_in_ns)

    @property
    def forward_ns(self) -> int:
        """Time there, true as far as the two clocks agree."""
        return self.reflected_in_ns - self.sent_ns

    @property
    def backward_ns(self) -> int:
        """Time back, true as far as the two clocks agree."""
        return self.received_ns - self.reflected_out_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Least, median, 99th percentile and greatest, in seconds."""

    least: float
    p50: float
    p99: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFigures:
    """What a session says of a path. Without an answer there are no times."""

    sent: int
    received: int
    lost_forward: int
    """Packets that did not reach the reflector, as far as later ones tell; those lost after the last answer count as this."""
    lost_backward: int
    two_way: Spread | None = None
    forward: Spread | None = None
    backward: Spread | None = None
    forward_variation_seconds: float | None = None
    """Mean difference of the forward delay between consecutive packets (RFC 3393), free of the clocks' offset."""
    backward_variation_seconds: float | None = None
    clock_error_seconds: float = math.inf
    """How far `forward` and `backward` may be wrong; infinite when a clock is not synchronised."""
    exact: int = 0
    """How many of the samples have the kernels' times throughout."""

    @property
    def loss(self) -> float:
        """The share of packets that did not come back."""
        return 1 - self.received / self.sent if self.sent else 0.0


def figures(sent: int, samples: Sequence[Sample], clock_error_seconds: float) -> PathFigures:
    """The figures of a session in which `sent` packets were sent, numbered from 0."""
    if not samples:
        return PathFigures(sent=sent, received=0, lost_forward=sent, lost_backward=0)
    ordered = sorted(samples, key=lambda sample: sample.sequence)
    reflected = max(sample.reflector_sequence for sample in samples) + 1
    return PathFigures(
        sent=sent,
        received=len(samples),
        lost_forward=max(0, sent - reflected),
        lost_backward=max(0, min(reflected, sent) - len(samples)),
        two_way=_spread([sample.two_way_ns for sample in ordered]),
        forward=_spread([sample.forward_ns for sample in ordered]),
        backward=_spread([sample.backward_ns for sample in ordered]),
        forward_variation_seconds=_variation(ordered, [sample.forward_ns for sample in ordered]),
        backward_variation_seconds=_variation(ordered, [sample.backward_ns for sample in ordered]),
        clock_error_seconds=clock_error_seconds,
        exact=sum(sample.exact for sample in samples),
    )


def _spread(values: list[int]) -> Spread:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(
        least=ordered[0] / 1e9,
        p50=ordered[last // 2] / 1e9,
        p99=ordered[math.ceil(0.99 * last)] / 1e9,
        greatest=ordered[last] / 1e9,
    )


def _variation(ordered: Sequence[Sample], values: Sequence[int]) -> float | None:
    differences = [
        abs(later - earlier)
        for earlier, later, one, other in zip(values, values[1:], ordered, ordered[1:], strict=False)
        if other.sequence == one.sequence + 1
    ]
    return sum(differences) / len(differences) / 1e9 if differences else None
