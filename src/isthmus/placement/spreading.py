"""The interval of a predicted end: the spread of its parts, stretched so that it holds as often as it says.

Split conformal prediction with a normalised score (Lei et al., JASA 2018): an end that came is so many widths of its own prediction
above or below it, and the quantiles of those figures at a site are the next interval. Which quantiles are asked for adapts to
how often the last bounds held (`forecasting.conformal`). Tasks that have not ended yet count as far as they are known: they
are censored (Kaplan and Meier, JASA 1958), else a burst would look as quick as the first of it that are done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from isthmus.domain.placement import Candidate, Estimate, Spread

LEAST_SECONDS, LEAST_PART = 1.0, 0.1  # of a prediction: no interval of its parts is narrower
COLD = Spread(low=-4.0, middle=0.0, high=9.0, source="declared")  # before anything is known of a site
COLD_DECLARED = Spread(
    low=-9.0, middle=0.0, high=3.0, source="declared"
)  # where only the limit is known: it may end at any time before
FEW = 10  # ends before a site's own spread counts
_BEYOND = 1.5  # further out than all that was seen, where the share asked for is rarer than that


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


def quantile(known: Sequence[tuple[float, bool]], level: float) -> float:
    """The figure below which a share `level` of scores stay, from (score, whether it ended there; else it is still growing).
    At least one ended."""
    ordered = sorted(known, key=lambda one: (one[0], not one[1]))
    ended = [figure for figure, there in ordered if there]
    if level <= 0:
        return _further(ended[0], -1)
    left, share = len(ordered), 1.0
    fair = len(ended) / (len(ended) + 1)  # the next one is as likely between any two of so many, or beyond them
    before, reached = ended[0], 0.0
    for figure, there in ordered:
        if there:
            share *= 1.0 - 1.0 / left
            here = fair * (1.0 - share)
            if here >= level:
                return before + (figure - before) * (level - reached) / (here - reached)
            before, reached = figure, here
        left -= 1
    return _further(max(figure for figure, _ in ordered), 1)


def _further(figure: float, way: int) -> float:
    """Beyond the outermost, `way` up (1) or down (-1)."""
    return figure * _BEYOND if figure * way > 0 else figure + 0.5 * way
