"""What is known of each link or path in one direction: figures with their error and time, whether it is alive, and what has changed. Pure.

A figure is never older or better than it says. Loss is that of the last ten sessions or so, since one session has too few packets to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isthmus.domain.network import Figure, Source
from isthmus.network.measurement.change import Change, Sensitivity, Watched, observe
from isthmus.network.measurement.figures import PathFigures
from isthmus.network.measurement.probing import Told, told

_Z95 = 1.959964
_DELAY, _LOSS = "delay", "loss"
_MEMORY = 0.9
"""Weight of the packets of earlier sessions in the loss, once more for each session."""
SILENT_SESSIONS, ANSWERED_SESSIONS = 2, 2
"""So many sessions in a row without an answer, or with one, change the word on whether the path is up."""
SENSITIVITIES: Mapping[str, Sensitivity] = {
    _DELAY: Sensitivity(least_deviation=20e-6),
    _LOSS: Sensitivity(least_deviation=0.002),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """One link or path in one direction; what was never measured is None."""

    up: bool | None = None
    up_since: float | None = None
    delay_seconds: Figure | None = None
    two_way_seconds: Figure | None = None
    variation_seconds: Figure | None = None
    loss: Figure | None = None
    sent: float = 0.0
    lost: float = 0.0
    """Packets of the sessions so far, older ones counting less."""
    in_a_row: int = 0
    """Sessions that say the same: with an answer when positive, without when negative."""
    watched: Mapping[str, Watched] = field(default_factory=dict)

    def with_up(self, up: bool, at: float) -> LinkState:
        """The state after a word on whether it carries packets."""
        return self if up == self.up else replace(self, up=up, up_since=at)

    def with_session(self, found: PathFigures, at: float) -> tuple[LinkState, dict[str, Change]]:
        """The state after a STAMP session that was carried out here; see `with_told`."""
        return self.with_told(told("", found), at)

    def with_told(self, found: Told, at: float) -> tuple[LinkState, dict[str, Change]]:
        """The state after a STAMP session, and which of `delay` and `loss` this says to have changed.

        One way, the median delay is that of the packets there when the clocks are good; else half of both ways, which may be wrong by as much.
        Loss has the Wilson interval of its count. Without an answer the loss is that of this session.
        """
        watched, changes = dict(self.watched), {}
        answered = found.received > 0
        state = self._counted(found, answered, at)
        values = {_LOSS: found.lost_forward / max(1, found.sent)}
        if found.two_way is not None and found.forward is not None:
            half = found.two_way / 2
            one_way = found.clock_error is not None and found.clock_error < half
            delay = found.forward if one_way else half
            wrong = found.clock_error if one_way and found.clock_error is not None else half
            spread = (found.two_way_p99 or found.two_way) - (found.two_way_low or found.two_way)
            values[_DELAY] = delay
            state = replace(
                state,
                delay_seconds=_figure(delay, wrong, at),
                two_way_seconds=_figure(found.two_way, spread / math.sqrt(found.received), at),
            )
            if found.jitter is not None:
                pairs = max(1, found.received - 1)
                state = replace(
                    state, variation_seconds=_figure(found.jitter, _Z95 * found.jitter / math.sqrt(pairs), at)
                )
        for name, value in values.items():
            watched[name], change = observe(watched.get(name, Watched()), value, SENSITIVITIES[name])
            if change is not None:
                changes[name] = change
        return replace(state, watched=watched), changes

    def _counted(self, found: Told, answered: bool, at: float) -> LinkState:
        row = max(1, self.in_a_row + 1) if answered else min(-1, self.in_a_row - 1)
        state = replace(self, in_a_row=row)
        if row >= ANSWERED_SESSIONS or (answered and self.up is None):
            state = state.with_up(True, at)
        elif row <= -SILENT_SESSIONS:
            state = state.with_up(False, at)
        if not answered:
            return replace(state, loss=_loss(found.lost_forward, found.sent, at))
        sent, lost = self.sent * _MEMORY + found.sent, self.lost * _MEMORY + found.lost_forward
        return replace(state, sent=sent, lost=lost, loss=_loss(lost, sent, at))


def _figure(value: float, error: float, at: float) -> Figure:
    return Figure(value=value, error=error, measured_at=at, source=Source.STAMP)


def _loss(lost: float, sent: float, at: float) -> Figure:
    """The share of packets lost on the way there, as the middle of its Wilson interval with half its width as the error."""
    count = max(1.0, sent)
    share = lost / count
    spread = _Z95 * math.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2)) / (1 + _Z95**2 / count)
    return _figure(share, spread + abs(_middle(share, count) - share), at)


def _middle(share: float, count: float) -> float:
    return (share + _Z95**2 / (2 * count)) / (1 + _Z95**2 / count)
