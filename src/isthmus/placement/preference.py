"""What a task prefers among plans: by its goal, or by weights relative to its best plan; and what lost by it.

The score of a plan is 1 for the best there could be and grows with how many times worse a plan is, as bounded slowdown
does: finish over the earliest finish without waiting (of at least `SHORTEST`), price over the lowest, carbon over the lowest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isthmus.domain.placement import Candidate, WaitingTask, Why
from isthmus.domain.roads import Stretch
from isthmus.domain.task import Goal, Weights
from isthmus.placement.carrying import Preference

SHORTEST = 60.0  # a task that could end sooner counts as one of this many seconds
_UNKNOWN = 10.0  # a plan whose carbon nobody knows counts as so many times the lowest
_GOALS = {
    Goal.SOONEST: Weights(time=1.0),
    Goal.CHEAPEST: Weights(money=1.0, time=0.01),
    Goal.GREENEST: Weights(carbon=1.0, time=0.01),
}
_LOST = {Goal.SOONEST: Why.LATER_FINISH, Goal.CHEAPEST: Why.DEARER, Goal.GREENEST: Why.MORE_CARBON}


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """The best figures that a task could have: what its plans are measured by."""

    weights: Weights
    seconds: float
    price: float
    carbon: float

    def score(self, candidate: Candidate) -> float:
        """How many times worse than the best a plan is, by the task's weights."""
        w = self.weights
        value = w.time * (candidate.finish_seconds or 0.0) / self.seconds
        if w.money and self.price > 0:
            value += w.money * float(candidate.price or 0) / self.price
        if w.carbon:
            grams = candidate.carbon_grams
            value += w.carbon * (_UNKNOWN if grams is None else float(grams) / self.carbon)
        return value / (w.time + w.money + w.carbon)

    @property
    def per_second(self) -> float:
        """What a second of waiting adds to the score."""
        w = self.weights
        return w.time / self.seconds / (w.time + w.money + w.carbon)


def yardstick(task: WaitingTask, candidates: Sequence[Candidate]) -> Yardstick:
    """The best figures over the plans that were estimated."""
    plans = [c for c in candidates if c.run is not None and c.transfer is not None]
    seconds = [c.run.seconds + c.transfer.seconds for c in plans if c.run is not None and c.transfer is not None]
    prices = [float(c.price) for c in plans if c.price]
    grams = [float(c.carbon_grams) for c in plans if c.carbon_grams]
    return Yardstick(
        weights=task.objective.weights or _GOALS[task.objective.goal],
        seconds=max(SHORTEST, min(seconds, default=SHORTEST)),
        price=min(prices, default=0.0),
        carbon=min(grams, default=1.0),
    )


def order(task: WaitingTask, candidate: Candidate, by: Yardstick) -> tuple[float, ...]:
    """The key of a plan without scarcity: the goal's own figure first, then the others; or the score of the weights."""
    finish, price = candidate.finish_seconds or 0.0, float(candidate.price or 0)
    grams = float("inf") if candidate.carbon_grams is None else float(candidate.carbon_grams)
    if task.objective.weights is not None:
        return by.score(candidate), finish, price
    match task.objective.goal:
        case Goal.CHEAPEST:
            return price, finish, grams
        case Goal.GREENEST:
            return grams, finish, price
        case Goal.SOONEST:
            return finish, price, grams


def way_preference(
    task: WaitingTask,
    by: Yardstick | None,
    run_seconds: float,
    worth: Callable[[str, tuple[Stretch, ...]], float] | None = None,
) -> Preference:
    """What a way for the task's data adds to its plan's score."""
    w = task.objective.weights or _GOALS[task.objective.goal]
    whole = w.time + w.money + w.carbon
    seconds = by.seconds if by is not None else max(SHORTEST, run_seconds)
    price = by.price if by is not None and by.price > 0 else 1.0
    tie = 1e-9 if not w.time else 0.0
    return Preference(w.time / seconds / whole + tie, w.money / price / whole, worth)


def lost(task: WaitingTask) -> Why:
    """Why a plan lost to a better one."""
    return Why.WORSE_BY_WEIGHTS if task.objective.weights is not None else _LOST[task.objective.goal]
