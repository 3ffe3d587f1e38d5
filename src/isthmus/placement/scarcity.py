"""What the scarce resources that a task would hold are worth to others, at the prices of a round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from isthmus.domain.placement import Binding, Candidate, ScarcePrice, WaitingTask
from isthmus.domain.roads import Stretch

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


Scarce = tuple[str, str]  # (resource, link); the link is empty for what a pool has


class Scarcity:
    """The prices of a round by pool and link."""

    def __init__(self, prices: Iterable[ScarcePrice], now: float = 0.0) -> None:
        self._now = now
        self._curves: dict[tuple[str, str], list[_Curve]] = {}
        self._links: dict[str, _Curve] = {}
        for price in prices:
            if any(price.by_bucket):
                sums = tuple(accumulate(price.by_bucket, initial=0.0))
                curve = _Curve(price.resource, price.bucket_seconds, sums)
                if price.link:
                    self._links[price.link] = curve
                else:
                    self._curves.setdefault((price.site, price.pool), []).append(curve)

    def __bool__(self) -> bool:
        return bool(self._curves or self._links)

    def worth(self, task: WaitingTask, candidate: Candidate) -> dict[Scarce, float]:
        """What others would lose by what the plan holds from its start to its end, and by what it moves."""
        if candidate.wait is None or candidate.transfer is None or candidate.run is None:
            return {}
        found: dict[Scarce, float] = {}
        curves = self._curves.get((candidate.site, candidate.pool))
        if curves:
            begin = candidate.wait.seconds + candidate.transfer.seconds
            wanted = held(task)
            for curve in curves:
                span = curve.until(begin + candidate.run.seconds) - curve.until(begin)
                found[curve.resource, ""] = wanted[curve.resource] * span
        if self._links:
            for one in candidate.transfers:
                for link in one.links:
                    worth = self.of_link(link, one.stretches)
                    if worth:
                        found["bytes", link] = found.get(("bytes", link), 0.0) + worth
        return found

    def of_link(self, link: str, stretches: Iterable[Stretch]) -> float:
        """What others would lose by these rates on a link."""
        curve = self._links.get(link)
        if curve is None:
            return 0.0
        return sum(
            one.bytes_per_second
            * curve.bucket_seconds
            * (curve.until(one.ends - self._now) - curve.until(one.begins - self._now))
            for one in stretches
        )

    def binding(self, task: WaitingTask, candidates: Iterable[Candidate]) -> tuple[Binding, ...]:
        """The scarce resources that counted, the dearest first; of a link that several plans would use, the most."""
        found: dict[tuple[str, str, str, str], float] = {}
        for candidate in candidates:
            for (resource, link), worth in self.worth(task, candidate).items():
                key = ("", "", resource, link) if link else (candidate.site, candidate.pool, resource, "")
                found[key] = max(worth, found.get(key, 0.0))
        listed = [
            Binding(site=site, pool=pool, resource=resource, worth=round(worth, 4), link=link)
            for (site, pool, resource, link), worth in found.items()
            if worth >= _NOTICED
        ]
        return tuple(sorted(listed, key=lambda one: (-one.worth, one.site, one.pool, one.resource, one.link)))
