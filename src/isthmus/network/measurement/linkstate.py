"""What is known of each link: figures with their error and the time at which they were measured, and what has changed. Pure.

One place for all sources: link events of routers, STAMP sessions, transfers as they run. A figure is never older or better than it says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isthmus.network.measurement.change import Change, Sensitivity, Watched, observe
from isthmus.network.measurement.figures import PathFigures

_Z95 = 1.959964
_DELAY, _LOSS = "delay", "loss"
SENSITIVITIES: Mapping[str, Sensitivity] = {
    _DELAY: Sensitivity(least_deviation=20e-6),
    _LOSS: Sensitivity(least_deviation=0.002),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured value: `error` is half of the interval in which the true one lies (95 %), `source` who measured it."""

    value: float
    error: float
    measured_at: float
    source: str

    def age_seconds(self, now: float) -> float:
        """How old it is; never negative."""
        return max(0.0, now - self.measured_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """One link in one direction; what was never measured is None."""

    up: bool | None = None
    up_since: float | None = None
    delay_seconds: Figure | None = None
    variation_seconds: Figure | None = None
    loss: Figure | None = None
    watched: Mapping[str, Watched] = field(default_factory=dict)

    def with_up(self, up: bool, at: float) -> LinkState:
        """The state after a link event."""
        return self if up == self.up else replace(self, up=up, up_since=at)

    def with_session(self, found: PathFigures, at: float, source: str = "stamp") -> tuple[LinkState, dict[str, Change]]:
        """The state after a STAMP session over the link, and which of `delay` and `loss` this says to have changed.

        One way, the median delay is that of the packets there when the clocks are good; else half of both ways, which may be wrong by as much.
        Loss has the Wilson interval of its count. Without an answer only the loss is known.
        """
        watched, changes = dict(self.watched), {}
        loss = _loss(found, at, source)
        state = replace(self, loss=loss)
        values = {_LOSS: loss.value}
        if found.two_way is not None and found.forward is not None:
            half = found.two_way.p50 / 2
            one_way = found.clock_error_seconds < half
            delay = Figure(
                value=found.forward.p50 if one_way else half,
                error=found.clock_error_seconds if one_way else half,
                measured_at=at,
                source=source,
            )
            values[_DELAY] = delay.value
            state = replace(state, delay_seconds=delay)
            if found.forward_variation_seconds is not None:
                variation = found.forward_variation_seconds
                pairs = max(1, found.received - 1)
                state = replace(
                    state,
                    variation_seconds=Figure(
                        value=variation, error=_Z95 * variation / math.sqrt(pairs), measured_at=at, source=source
                    ),
                )
        for name, value in values.items():
            watched[name], change = observe(watched.get(name, Watched()), value, SENSITIVITIES[name])
            if change is not None:
                changes[name] = change
        return replace(state, watched=watched), changes


def _loss(found: PathFigures, at: float, source: str) -> Figure:
    """The share of packets lost on the way there, as the middle of its Wilson interval with half its width as the error."""
    count = max(1, found.sent)
    share = found.lost_forward / count
    spread = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2)) / (1 + _Z95**2 / count)
    return Figure(value=share, error=spread + abs(_middle(share, count) - share), measured_at=at, source=source)


def _middle(share: float, count: int) -> float:
    return (share + _Z95**2 / (2 * count)) / (1 + _Z95**2 / count)
