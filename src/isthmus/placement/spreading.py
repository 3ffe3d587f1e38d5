"""The interval of a predicted end: the spread of its parts, stretched so that it holds as often as it says.

Split conformal prediction with a normalised score (Lei et al., JASA 2018): an end that came is so many widths of its own prediction
above or below it, and the quantiles of those figures at a site are the next interval. They are weighted (Barber et al., "Conformal
prediction beyond exchangeability", Ann. Stat. 2023): what ended last counts most, since a burst is another world than the calm before it;
other sites count less than a site's own; and a few figures are there from the start, which say that the parts' own quantiles are about right. Which
quantiles are asked for adapts to how often the last bounds held (`forecasting.conformal`). Tasks that have not ended yet count as far
as they are known: they are censored (Kaplan and Meier, JASA 1958), else a burst would look as quick as the first of it that are done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from isthmus.domain.placement import Candidate, Estimate, Spread

LEAST_SECONDS, LEAST_PART = 1.0, 0.1  # of a prediction: no interval of its parts is narrower
_BEYOND = 1.5  # further out than all that was seen, where the share asked for is rarer than that


@dataclass(frozen=True, slots=True)
class Seen:
    """How far one task came: widths above (negative: below) its prediction, whether it ended there, else it is still growing."""

    figure: float
    ended: bool = True
    weight: float = 1.0


AT_FIRST = tuple(Seen(figure) for figure in (-1.6, -1.0, -0.5, 0.0, 0.5, 1.0, 1.8))
"""Counts before anything ended, and less and less after that."""
AT_FIRST_DECLARED = tuple(Seen(figure) for figure in (-10.0, -9.5, -9.0, -8.0, -6.0, -3.0, 2.0))
"""The same where only the limit is known: a task may end at any time before it, and most end long before."""
ENOUGH = 5.0  # the weight of what ended from which on an interval counts as learned


def widths(parts: Sequence[Estimate]) -> tuple[float, float, float]:
    """The sum of independent parts, and how far its 10 % quantile is below and its 90 % above."""
    middle = sum(part.seconds for part in parts)
    below = math.hypot(*(0.0 if part.p10 is None else max(0.0, part.seconds - part.p10) for part in parts))
    above = math.hypot(*(part.late - part.seconds for part in parts))
    least = LEAST_SECONDS + LEAST_PART * middle
    return middle, max(least, below), max(least, above)


def parts_of(one: Candidate) -> dict[str, Estimate]:
    """The parts of a candidate's end that were estimated, by name."""
    named = {"wait": one.wait, "transfer": one.transfer, "run": one.run, "handling": one.handling}
    return {name: part for name, part in named.items() if part is not None}


def spread_over(one: Candidate, spread: Spread) -> Estimate:
    """The end of a candidate, with quantiles."""
    middle, below, above = widths(list(parts_of(one).values()))

    def at(figure: float) -> float:
        return max(0.0, middle + figure * (above if figure > 0 else below))

    return Estimate(
        seconds=middle,
        source=spread.source,
        p10=at(spread.low),
        p50=at(spread.middle),
        p90=at(spread.high),
    )


def score(actual: float, middle: float, below: float, above: float) -> float:
    """How many widths an end is above (or, negative, below) its prediction."""
    off = actual - middle
    return off / (above if off > 0 else below)


def quantile(known: Sequence[Seen], level: float) -> float:
    """The figure below which a share `level` stays. At least one ended."""
    ordered = sorted(known, key=lambda one: (one.figure, not one.ended))
    ended = [one for one in ordered if one.ended]
    if level <= 0:
        return _further(ended[0].figure, -1)
    left, share = sum(one.weight for one in ordered), 1.0
    alike = sum(one.weight for one in ended) ** 2 / sum(
        one.weight**2 for one in ended
    )  # ends of one weight that say as much
    fair = alike / (alike + 1)  # the next one is as likely between any two of so many, or beyond them
    before, reached = ended[0].figure, 0.0
    for one in ordered:
        if one.ended:
            share *= max(0.0, 1.0 - one.weight / left)
            here = fair * (1.0 - share)
            if here >= level:
                return before + (one.figure - before) * (level - reached) / (here - reached)
            before, reached = one.figure, here
        left -= one.weight
    return _further(max(one.figure for one in ordered), 1)


def spread_of(
    known: Sequence[Seen], *, declared: bool, first: float = 1.0, low: float = 0.1, high: float = 0.9
) -> Spread:
    """The next interval after what was seen, at these levels. `declared`: of tasks of which only the limit is known; `first`: what
    each of the figures that are there from the start still weighs."""
    weight = sum(one.weight for one in known if one.ended)
    known = [*(replace(one, weight=first) for one in (AT_FIRST_DECLARED if declared else AT_FIRST)), *known]
    middle = quantile(known, 0.5)
    return Spread(
        low=min(middle, quantile(known, low)),
        middle=middle,
        high=max(middle, quantile(known, high)),
        source="learned" if weight >= ENOUGH else "declared",
    )


def _further(figure: float, way: int) -> float:
    """Beyond the outermost, `way` up (1) or down (-1)."""
    return figure * _BEYOND if figure * way > 0 else figure + 0.5 * way
