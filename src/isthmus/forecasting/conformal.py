"""Levels that keep their promise: adaptive conformal inference.

Gibbs and Candes, "Adaptive conformal inference under distribution shift", NeurIPS 2021, equation 2: the level moves
against the last outcome, so that over time the share of outcomes below the bound is the target, whatever the data do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from isthmus.domain.errors import Invalid

HIGHEST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveLevel:
    """The level at which a quantile must be asked for, so that `target` of the outcomes fall at or below it.

    At or below 0 ask for the least possible value. Above 1 ask for more than was ever needed, the more the higher: that
    is how a bound keeps up with a world that grows worse. (The paper lets the level fall further below 0, which delays
    the way back where every bound is kept; that is cut here.) While the bounds asked for can be given, the share over T
    outcomes is off the target by at most (1 + 2 * rate) / (rate * T).
    """

    target: float
    rate: float = 0.01
    level: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.target < 1 or self.rate <= 0:
            raise Invalid("target", f"{self.target} at rate {self.rate}.", remedy="Give 0 < target < 1 and a rate > 0.")

    @property
    def value(self) -> float:
        """The level to ask for now."""
        return self.target if self.level is None else self.level

    def after(self, covered: bool) -> AdaptiveLevel:
        """The level after one more outcome: `covered` says whether it was at or below the bound."""
        moved = self.value + self.rate * (self.target - covered)
        return replace(self, level=min(HIGHEST, max(-self.rate, moved)))
