"""The audit of a contested round: an LP over its task classes says what the best answer could be, and anchors the prices anew.

It takes seconds, so it runs beside the rounds, in a process of its own: `python -m isthmus.placement.anchoring` reads an `Asked`
and writes an `Anchor`, both pickled; only the service that starts it writes to it.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from isthmus.domain.placement import ScarcePrice, Snapshot, WaitingTask

FLAPPING = 0.005  # a gap this small leaves the prices as they are
STEP = 0.5  # how far the standing prices go towards the LP's


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A round to audit."""

    snapshot: Snapshot
    tasks: tuple[WaitingTask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the LP found: its prices, how far the round's answer was above what any answer could cost (`gap`), how far the bound
    at the standing prices was below the LP's (`drift`), task classes, and whether the LP was solved to its end."""

    prices: tuple[ScarcePrice, ...]
    gap: float
    drift: float
    classes: int
    exact: bool


def anchor(asked: Asked) -> Anchor:
    """Audit one round."""
    from isthmus.placement.candidates import wishes
    from isthmus.placement.joint.audit import audit
    from isthmus.placement.joint.solve import solve
    from isthmus.placement.pricing import BUDGET, as_scarce, stated

    stand = stated(asked.snapshot, asked.tasks, *wishes(asked.snapshot, asked.tasks))
    answer = solve(stand.problem, stand.prices, replace(BUDGET, passes=2))
    found = audit(stand.problem, answer.prices)
    bound = max(found.bound, answer.dual)
    size = max(abs(bound), 1e-12)
    return Anchor(
        prices=as_scarce(asked.snapshot, found.prices, stand.links, stand.bucket_seconds),
        gap=max(0.0, (answer.primal - bound) / size),
        drift=max(0.0, (bound - answer.dual) / size),
        classes=found.classes,
        exact=found.exact,
    )


def anchored(standing: Sequence[ScarcePrice], found: Anchor) -> tuple[ScarcePrice, ...]:
    """Prices for the next round: half-way from the standing ones to the LP's where those are better by more than a little, so
    that they do not flap; else the standing ones."""
    if found.drift <= FLAPPING or not found.prices:
        return tuple(standing)
    wide = {price.bucket_seconds for price in found.prices}
    old = {_key(price): price for price in standing if price.bucket_seconds in wide}
    new = {_key(price): price for price in found.prices}
    return tuple(_between(old.get(key), new.get(key)) for key in sorted({*old, *new}))


def _key(price: ScarcePrice) -> tuple[str, str, str, str]:
    return price.site, price.pool, price.resource, price.link


def _between(old: ScarcePrice | None, new: ScarcePrice | None) -> ScarcePrice:
    given = new or old
    assert given is not None
    before, after = _buckets(old, len(given.by_bucket)), _buckets(new, len(given.by_bucket))
    return replace(
        given,
        by_bucket=tuple((1 - STEP) * one + STEP * other for one, other in zip(before, after, strict=True)),
    )


def _buckets(price: ScarcePrice | None, count: int) -> Iterable[float]:
    return price.by_bucket if price is not None and len(price.by_bucket) == count else (0.0,) * count


def main() -> None:
    """One audit, from standard input to what standard output was: the solver writes there too, that goes to standard error."""
    from isthmus.placement import anchoring

    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the service that started this process
    with os.fdopen(answers, "wb") as out:
        pickle.dump(anchoring.anchor(asked), out)


if __name__ == "__main__":
    main()
