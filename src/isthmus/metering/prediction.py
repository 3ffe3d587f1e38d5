"""How long a task takes on a pool where it never ran: a roofline over the pool's vector, learned from the task's own runs.

The model is t^p = sum over q of (a_q / rate_q)^p with amounts of work a_q >= 0: with p = 1 the parts of the work follow one
another, with large p they overlap and the slowest alone counts, which is the roofline of Williams, Waterman and Patterson
(2009). For a given p it is linear in a_q^p, so that non-negative least squares fits it. A prior pulls the shares of the
parts towards those of a class of work: one run on one pool gives the scale, more pools give the shares. The exponent, the
prior's class and its strength are those that predict best the pools that are left out, one after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import stdtrit

from isthmus.domain.capability import PoolCapability, Quantity, WorkClass
from isthmus.domain.errors import Invalid
from isthmus.metering import unit

PARTS: Final = (
    Quantity.FP64, Quantity.FP32, Quantity.FP16, Quantity.INT8, Quantity.VECTOR, Quantity.MEMORY, Quantity.CACHE,
    Quantity.LATENCY, Quantity.SERIAL, Quantity.STORAGE_WRITE, Quantity.STORAGE_READ,
)  # fmt: skip
EXPONENTS: Final = (1.0, 2.0, 4.0, 8.0)
STRENGTHS: Final = (0.003, 0.03, 0.3)
LEAST_SIGMA: Final = 0.05  # of the logarithm: no runs agree better than 5 %
Z90: Final = 1.2816  # the 90 % quantile of a normal distribution
Rates = Mapping[Quantity, float]
_Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the task: where (any name of the pool), the rates it had there (`rates_given`), how long it took."""

    pool: str
    rates: Rates
    seconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0.0):
            raise Invalid("seconds", f"is {self.seconds}.", remedy="It must be more than 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A task's class profile: the amount of each part of its work, how the parts overlap, and how far it may be trusted.

    `sigma` is the standard deviation of the logarithm of (predicted / actual) on pools that were left out; with fewer than
    two pools there was none to leave out, and it is None.
    """

    amounts: Mapping[Quantity, float]
    exponent: float
    prior: WorkClass | None
    strength: float
    pools: int
    runs: int
    sigma: float | None
    alternatives: tuple[Mapping[Quantity, float], ...] = ()  # the same runs under every other class's prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds with an interval that should hold 80 % of the runs; `source` is `learned` (several pools) or `class` (one)."""

    p10: float
    p50: float
    p90: float
    source: str


def rates_given(pool: PoolCapability, cpus: int, accelerators: int = 0) -> dict[Quantity, float]:
    """The rates that a task has which is given so many of a node's processors and accelerators.

    Rates of all processors are given in proportion; what one thread has does not depend on the number. A task with
    accelerators has their matrices and memory; storage is the node's.
    """
    share = min(1.0, cpus / pool.cpus)
    found: dict[Quantity, float] = {}
    whole = unit.whole_node(pool.processor, 1, pool.accelerator if accelerators else None, accelerators)
    on_device = unit.ON_ACCELERATORS if accelerators else frozenset()
    shared = {
        Quantity.FP64,
        Quantity.FP32,
        Quantity.FP16,
        Quantity.INT8,
        Quantity.VECTOR,
        Quantity.MEMORY,
        Quantity.CACHE,
    }
    for quantity in PARTS:
        if quantity in whole:
            found[quantity] = whole[quantity] * (share if quantity in shared and quantity not in on_device else 1.0)
    return found


def learn(runs: Sequence[Run], workload: WorkClass | None = None) -> Profile:
    """A profile from runs on one or more pools; `workload` fixes the prior's class where the user named it.

    Invalid without a run, or when no quantity is known of every pool.
    """
    if not runs:
        raise Invalid("runs", "are none.", remedy="Give at least one run.")
    parts = [part for part in PARTS if all(part in run.rates for run in runs)]
    if not parts:
        raise Invalid("runs", "are on pools that were not measured.", remedy="Measure them: isthmus site bench.")
    inverse = np.array([[1.0 / run.rates[part] for part in parts] for run in runs])
    seconds = np.array([run.seconds for run in runs])
    pools = np.array([run.pool for run in runs])
    priors = _all_priors(parts)
    if workload is not None:
        priors = {workload: priors[workload]}
    names = list(dict.fromkeys(pools.tolist()))
    choice, sigma = _choose(inverse, seconds, pools, names, priors)
    work, exponent, strength = choice
    amounts = _fit(inverse, seconds, priors[work], exponent, strength)
    others = tuple(
        _named(parts, _fit(inverse, seconds, shares, exponent, strength))
        for name, shares in _all_priors(parts).items()
        if name is not work
    )
    return Profile(
        amounts=_named(parts, amounts),
        exponent=exponent,
        prior=work,
        strength=strength,
        pools=len(names),
        runs=len(runs),
        sigma=sigma,
        alternatives=others if len(names) == 1 else (),
    )


def predict(profile: Profile, rates: Rates) -> Prediction:
    """Seconds on a pool with these rates; Invalid when a part of the profile was not measured there.

    Known on one pool only, the interval spans what the same runs would mean for every class of work; else it comes from the
    errors on pools that were left out.
    """
    middle = _time(profile.amounts, profile.exponent, rates)
    if profile.sigma is None:
        times = [middle, *(_time(one, profile.exponent, rates) for one in profile.alternatives)]
        low, high = min(times), max(times)
        floor = math.exp(Z90 * LEAST_SIGMA)
        return Prediction(p10=min(low, middle / floor), p50=middle, p90=max(high, middle * floor), source="class")
    quantile = float(stdtrit(profile.pools - 1, 0.9))  # Student's: the error itself is known from these pools only
    factor = math.exp(quantile * max(profile.sigma, LEAST_SIGMA))
    return Prediction(p10=middle / factor, p50=middle, p90=middle * factor, source="learned")


def _time(amounts: Mapping[Quantity, float], exponent: float, rates: Rates) -> float:
    lacking = [part.value for part, amount in amounts.items() if amount > 0.0 and part not in rates]
    if lacking:
        raise Invalid("rates", f"lack {lacking[0]}.", remedy="Measure the pool: isthmus site bench.")
    total = math.fsum((amount / rates[part]) ** exponent for part, amount in amounts.items() if amount > 0.0)
    return float(total ** (1.0 / exponent))


def _shares(work: WorkClass | None, parts: Sequence[Quantity]) -> _Vector:
    """How much of the time each part takes by a class's weights (None: the mean of all), with a little of everything."""
    classes = list(unit.WEIGHTS.values()) if work is None else [unit.WEIGHTS[work]]
    shares = np.array([sum(weights.get(part, 0.0) for weights in classes) for part in parts]) + 0.02
    found: _Vector = shares / shares.sum()
    return found


def _all_priors(parts: Sequence[Quantity]) -> dict[WorkClass | None, _Vector]:
    return {work: _shares(work, parts) for work in (None, *WorkClass)}


def _fit(inverse: _Vector, seconds: _Vector, shares: _Vector, exponent: float, strength: float) -> _Vector:
    """Amounts by regularised NNLS of relative errors; rows of the prior count as `strength` runs each."""
    middle = np.exp(np.log(inverse).mean(axis=0))
    typical = math.exp(float(np.log(seconds).mean()))
    columns = (inverse / middle) ** exponent * (
        typical / seconds[:, None]
    ) ** exponent  # unknown: (a * middle / typical)^p
    prior = math.sqrt(strength)
    design = np.vstack([columns, prior * np.eye(len(shares)) / np.sqrt(shares)[:, None]])
    target = np.concatenate([np.ones(len(seconds)), prior * np.sqrt(shares)])
    solution, _ = nnls(design, target)
    found: _Vector = solution ** (1.0 / exponent) * typical / middle
    return found


def _choose(
    inverse: _Vector,
    seconds: _Vector,
    pools: NDArray[np.str_],
    names: Sequence[str],
    priors: Mapping[WorkClass | None, _Vector],
) -> tuple[tuple[WorkClass | None, float, float], float | None]:
    """The prior, exponent and strength with the least error on pools left out, and that error; the plainest with one pool."""
    plainest = (next(iter(priors)), EXPONENTS[0], STRENGTHS[1])
    if len(names) < 2:
        return plainest, None
    best, least, sigma = plainest, math.inf, math.inf
    for work, shares in priors.items():
        for exponent in EXPONENTS:
            for strength in STRENGTHS:
                errors: list[float] = []
                for name in names:
                    out = pools == name
                    amounts = _fit(inverse[~out], seconds[~out], shares, exponent, strength)
                    powers = ((inverse[out] * amounts) ** exponent).sum(axis=1)
                    errors.extend((np.log(powers) / exponent - np.log(seconds[out])).tolist())
                error = math.fsum(map(abs, errors)) / len(errors)  # not squared: one odd pool must not choose for all
                if error < least - 1e-9:
                    best, least = (work, exponent, strength), error
                    sigma = math.sqrt(math.fsum(value * value for value in errors) / len(errors))
    return best, sigma


def _named(parts: Sequence[Quantity], amounts: _Vector) -> dict[Quantity, float]:
    return {part: float(amount) for part, amount in zip(parts, amounts, strict=True)}
