"""A learned choice: each candidate's score is predicted from what describes it, and the best one is taken.

Gradient-boosted trees by LightGBM, retrained in batches on the past only, in a bounded window of rows. Deterministic:
one thread, a seed. The state is LightGBM's own text and plain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.forecasting.packing import pack, unpack

if TYPE_CHECKING:
    from lightgbm import Booster


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How trees are grown and when: first after `first` cases, then after a third more, at most `step` cases apart."""

    first: int = 400
    step: int = 3000
    rows: int = 300_000  # the window; its memory is rows * features * 4 bytes
    trees: int = 160
    leaves: int = 47
    learning_rate: float = 0.06
    least_in_leaf: int = 100
    objective: str = "cross_entropy"  # of a score within [0, 1]
    alpha: float = 0.5  # of the objective "quantile"
    seed: int = 1


class Chooser:
    """Learns to predict a score from features. A case is one decision with all its candidates, one row each."""

    def __init__(self, features: int, training: Training) -> None:
        """`features` is the width of a row."""
        self.training = training
        self.cases = 0
        self._features = features
        self._rows = np.empty((1024, features), np.float32)
        self._scores = np.empty(1024, np.float32)
        self._count = 0
        self._trained_at = 0
        self._booster: Booster | None = None

    @property
    def due(self) -> bool:
        """Whether enough cases came since the last training."""
        wait = max(self.training.first, min(self.training.step, self._trained_at // 3))
        return self.cases - self._trained_at >= wait

    @property
    def trained(self) -> bool:
        """Whether there is a model."""
        return self._booster is not None

    def add(self, rows: NDArray[np.float32], scores: NDArray[np.float64]) -> None:
        """One more case, its outcome known; `rows` is (candidates, features), `scores` one a candidate."""
        more = len(rows)
        if self._count + more > self.training.rows:  # forget the older half at once: moving rows is dear
            keep = self.training.rows // 2
            self._rows[:keep] = self._rows[self._count - keep : self._count].copy()
            self._scores[:keep] = self._scores[self._count - keep : self._count].copy()
            self._count = keep
        while self._count + more > len(self._rows):
            size = min(2 * len(self._rows), self.training.rows)
            self._rows, rows_before = np.empty((size, self._features), np.float32), self._rows
            self._scores, scores_before = np.empty(size, np.float32), self._scores
            self._rows[: self._count] = rows_before[: self._count]
            self._scores[: self._count] = scores_before[: self._count]
        self._rows[self._count : self._count + more] = rows
        self._scores[self._count : self._count + more] = scores
        self._count += more
        self.cases += 1

    def train(self) -> None:
        """Grow new trees from the window: seconds of one processor when it is full; not to be run in an event loop."""
        import lightgbm

        plan = self.training
        parameters: dict[str, Any] = {
            "objective": plan.objective,
            "alpha": plan.alpha,
            "learning_rate": plan.learning_rate,
            "num_leaves": plan.leaves,
            "min_data_in_leaf": plan.least_in_leaf,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "max_bin": 127,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": plan.seed,
            "verbose": -1,
        }
        data = lightgbm.Dataset(self._rows[: self._count], self._scores[: self._count], params=parameters)
        self._booster = lightgbm.train(parameters, data, plan.trees)
        self._trained_at = self.cases

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The predicted score of each row; the model must be trained."""
        assert self._booster is not None
        return np.asarray(self._booster.predict(rows, num_threads=1), dtype=np.float64)

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON values."""
        return {
            "model": None if self._booster is None else self._booster.model_to_string(),
            "rows": pack(self._rows[: self._count]),
            "scores": pack(self._scores[: self._count]),
            "cases": self.cases,
            "trained_at": self._trained_at,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state given by `state` of a chooser with the same features."""
        if state["model"] is not None:
            import lightgbm

            self._booster = lightgbm.Booster(model_str=state["model"])
        scores = unpack(state["scores"])
        size = max(1024, len(scores))
        self._count = len(scores)
        self._rows = np.empty((size, self._features), np.float32)
        self._scores = np.empty(size, np.float32)
        self._rows[: self._count] = unpack(state["rows"])
        self._scores[: self._count] = scores
        self.cases = state["cases"]
        self._trained_at = state["trained_at"]
