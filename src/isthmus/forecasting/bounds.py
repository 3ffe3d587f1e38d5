"""A bound that a given share of outcomes keeps: a learned quantile, corrected by what happened lately.

Conformalized quantile regression (Romano, Patterson, Candes, NeurIPS 2019) on the last outcomes, at a level that adapts
(Gibbs and Candes, NeurIPS 2021). Everything is in log(1 + seconds), so that a correction is a factor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.forecasting.choosing import Chooser, Training
from isthmus.forecasting.conformal import AdaptiveLevel
from isthmus.forecasting.packing import pack, unpack

REMEMBERED = 500
BEYOND = 10.0  # a level of 1.1 asks for a factor e more than the largest miss of late
FEW = 20  # misses that say nothing yet of a quantile


class Bound:
    """A quantile of the outcome, from features, that keeps its level over time.

    Outcomes fall into two groups that miss unlike: `group` 0, where a wait of nothing is expected, and 1, the others.
    A target above 0.9 is kept over all outcomes; a lower one over those of group 1.
    """

    def __init__(self, features: int, target: float, training: Training) -> None:
        """`target` is the share of outcomes at or below the bound; `features` the width of a row."""
        self._level = AdaptiveLevel(target=target)
        self._chooser = Chooser(features, replace(training, objective="quantile", alpha=target))
        self._misses = [np.zeros(0), np.zeros(0)]

    def base(self, row: NDArray[np.float32], unlearned: float) -> float:
        """The quantile before correction, in log(1 + seconds): of the trees, or `unlearned` while there are none."""
        return float(self._chooser.scores(row[None, :])[0]) if self._chooser.trained else unlearned

    def corrected(self, base: float, group: int) -> float:
        """The bound in log(1 + seconds): the base, plus the quantile of the last misses at the level needed now."""
        misses = self._misses[group]
        if len(misses) < FEW:
            return base
        level = self._level.value
        beyond = BEYOND * max(0.0, level - 1)
        return base + float(np.quantile(misses, min(1.0, max(0.0, level)))) + beyond

    def observe(self, row: NDArray[np.float32], group: int, base: float, bound: float, outcome: float) -> None:
        """One outcome, with the base and the bound given for it; all in log(1 + seconds)."""
        if self._level.target > 0.9 or group == 1:
            self._level = self._level.after(outcome <= bound)
        self._misses[group] = np.append(self._misses[group], outcome - base)[-REMEMBERED:]
        self._chooser.add(row[None, :], np.array([outcome]))

    def train(self) -> None:
        """Grow new trees; what missed before the first ones says nothing of them."""
        if not self._chooser.trained:
            self._misses = [np.zeros(0), np.zeros(0)]
        self._chooser.train()

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON values."""
        misses = [pack(group) for group in self._misses]
        return {"level": self._level.level, "misses": misses, "chooser": self._chooser.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state given by `state`."""
        self._level = replace(self._level, level=state["level"])
        self._misses = [unpack(group) for group in state["misses"]]
        self._chooser.restore(state["chooser"])
