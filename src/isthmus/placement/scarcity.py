"""What the scarce resources that a task would hold are worth to others, at the prices of a round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from isthmus.domain.placement import Binding, Candidate, ScarcePrice, WaitingTask

_NOTICED = 0.01  # a scarce resource counts in a receipt from this share of the task's best plan on


def held(task: WaitingTask) -> dict[str, float]:
    """What a task holds of each resource while it runs, of all its nodes."""
    demand = task.demand
    return {
        "cpus": float(demand.cpus_per_node * demand.nodes),
        "memory_bytes": float(demand.memory_bytes * demand.nodes),
        "accelerators": float(demand.accelerators.count * demand.nodes),
    }


@dataclass(frozen=True, slots=True)
class _Curve:
    """A price summed over time, so that an interval costs two look-ups."""

    resource: str
    bucket_seconds: float
    sums: tuple[float, ...]

    def until(self, seconds: float) -> float:
        buckets = min(max(seconds / self.bucket_seconds, 0.0), len(self.sums) - 1.0)
        whole = min(int(buckets), len(self.sums) - 2)
        return self.sums[whole] + (buckets - whole) * (self.sums[whole + 1] - self.sums[whole])


class Scarcity:
    """The prices of a round by pool."""

    def __init__(self, prices: Iterable[ScarcePrice]) -> None:
        self._curves: dict[tuple[str, str], list[_Curve]] = {}
        for price in prices:
            if any(price.by_bucket):
                sums = tuple(accumulate(price.by_bucket, initial=0.0))
                curve = _Curve(price.resource, price.bucket_seconds, sums)
                self._curves.setdefault((price.site, price.pool), []).append(curve)

    def __bool__(self) -> bool:
        return bool(self._curves)

    def worth(self, task: WaitingTask, candidate: Candidate) -> dict[str, float]:
        """By resource, what others would lose by what the plan holds from its start to its end."""
        curves = self._curves.get((candidate.site, candidate.pool))
        if not curves or candidate.wait is None or candidate.transfer is None or candidate.run is None:
            return {}
        begin = candidate.wait.seconds + candidate.transfer.seconds
        wanted = held(task)
        return {
            curve.resource: wanted[curve.resource] * (curve.until(begin + candidate.run.seconds) - curve.until(begin))
            for curve in curves
        }

    def binding(self, task: WaitingTask, candidates: Iterable[Candidate]) -> tuple[Binding, ...]:
        """The scarce resources that counted, the dearest first."""
        found = [
            Binding(site=candidate.site, pool=candidate.pool, resource=resource, worth=round(worth, 4))
            for candidate in candidates
            for resource, worth in self.worth(task, candidate).items()
            if worth >= _NOTICED
        ]
        return tuple(sorted(found, key=lambda one: (-one.worth, one.site, one.pool, one.resource)))
