"""How much faster or slower a command is at one pool than where it ran: from its own runs, and from what the pools' nodes were
measured to do.

A command that ran at a pool is known there by its runs, the more the more of them. Elsewhere its class profile is learned
from where it ran (`metering.prediction`) and read at the capability of the pool. Pools that nobody measured are taken to be
like those where it ran, which was the rule before.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from isthmus.domain.capability import PoolCapability
from isthmus.domain.placement import Estimate, RunTimesByPool
from isthmus.store import tables
from isthmus.store.documents import load

if TYPE_CHECKING:
    from isthmus.metering.prediction import Profile, Rates

log = logging.getLogger(__name__)
RUNS = 40  # of a command that count
COMMANDS = 2000  # the least recently seen is forgotten
FITTED = 40  # profiles made at one time: some ten milliseconds each
HALF = 2.0  # so many runs at a pool count as much as the profile
CONVERTED = "converted"
Key = tuple[str, str]
Command = tuple[str, int, int]
"""Command, processors, accelerators of one task."""


@dataclass(slots=True)
class _Known:
    runs: deque[tuple[Key, float]] = field(default_factory=lambda: deque(maxlen=RUNS))
    profile: Profile | None = None
    stale: bool = True


class Speeds:
    """`observe` and `fit` belong to the thread that learns; `convert` may be called from any."""

    def __init__(self) -> None:
        self._commands: OrderedDict[Command, _Known] = OrderedDict()
        self._capabilities: Mapping[Key, PoolCapability] = {}
        self._absent = False

    def measured(self, capabilities: Mapping[Key, PoolCapability]) -> bool:
        """What the pools do; answers whether that changed, and then every profile is made anew."""
        if self._absent or capabilities == self._capabilities:
            return False
        self._capabilities = capabilities
        for known in self._commands.values():
            known.profile, known.stale = None, True
        return True

    def observe(self, command: Command, pool: Key, seconds: float) -> None:
        """One run that ended."""
        known = self._commands.setdefault(command, _Known())
        self._commands.move_to_end(command)
        if len(self._commands) > COMMANDS:
            self._commands.popitem(last=False)
        known.runs.append((pool, max(1.0, seconds)))
        known.stale = True

    def fit(self) -> None:
        """Learn the profiles of commands that ran since the last time, the last seen first."""
        if not self._capabilities:
            return
        from isthmus.domain.errors import Invalid

        try:
            from isthmus.metering.prediction import Run, learn
        except (ImportError, OSError) as error:  # OSError: the library itself misses one of the system's
            log.warning("run times are not converted between pools: %s", error)
            self._capabilities, self._absent = {}, True
            return
        stale = [(command, known) for command, known in reversed(self._commands.items()) if known.stale]
        for command, known in stale[:FITTED]:
            runs = [
                Run(pool="/".join(pool), rates=rates, seconds=seconds)
                for pool, seconds in known.runs
                if (rates := self._rates(pool, command)) is not None
            ]
            known.stale = False
            try:
                known.profile = learn(runs) if runs else None
            except Invalid:
                known.profile = None

    def convert(self, command: Command, run: Estimate) -> RunTimesByPool | None:
        """The run time at each pool that is known to differ, from one over all pools where the command ran."""
        known = self._commands.get(command)
        if known is None or not known.runs:
            return None
        own = _by_pool(list(known.runs))
        usual = sum(count * mean for count, mean in own.values()) / sum(count for count, _ in own.values())
        of_model = self._mean_of_model(known, command, own)
        found: dict[Key, Estimate] = {}
        for pool in {*own, *self._capabilities}:
            count, mean = own.get(pool, (0, 0.0))
            weight = count / (count + HALF)
            model = self._of_model(known, command, of_model, pool)
            if model is None and not (count and len(own) > 1):
                continue
            shift, low, high = model or (0.0, 0.0, 0.0)
            moved = weight * (mean - usual) + (1 - weight) * shift
            found[pool] = _times(
                run, moved, (1 - weight) * (low - shift), (1 - weight) * (high - shift), CONVERTED if not count else ""
            )
        return RunTimesByPool(found) if found else None

    def _mean_of_model(self, known: _Known, command: Command, own: Mapping[Key, tuple[int, float]]) -> float | None:
        """The mean of its runs by the profile, in log seconds; None without a profile or where a pool was not measured."""
        if known.profile is None:
            return None
        from isthmus.domain.errors import Invalid
        from isthmus.metering.prediction import predict

        total = 0.0
        for pool, (count, _) in own.items():
            rates = self._rates(pool, command)
            if rates is None:
                return None
            try:
                total += count * math.log(predict(known.profile, rates).p50)
            except Invalid:
                return None
        return total / sum(count for count, _ in own.values())

    def _of_model(
        self, known: _Known, command: Command, usual: float | None, pool: Key
    ) -> tuple[float, float, float] | None:
        """How much longer it runs at the pool than where it ran, with a p10 and a p90, in log seconds; None: nobody can say."""
        if known.profile is None or usual is None:
            return None
        rates = self._rates(pool, command)
        if rates is None:
            return None
        from isthmus.domain.errors import Invalid
        from isthmus.metering.prediction import predict

        try:
            found = predict(known.profile, rates)
        except Invalid:
            return None
        return math.log(found.p50) - usual, math.log(found.p10) - usual, math.log(found.p90) - usual

    def _rates(self, pool: Key, command: Command) -> Rates | None:
        capability = self._capabilities.get(pool)
        if capability is None:
            return None
        from isthmus.metering.prediction import rates_given

        return rates_given(capability, command[1], command[2])


def _by_pool(runs: Iterable[tuple[Key, float]]) -> dict[Key, tuple[int, float]]:
    """By pool, how many runs and their mean in log seconds."""
    sums: dict[Key, tuple[int, float]] = {}
    for pool, seconds in runs:
        count, total = sums.get(pool, (0, 0.0))
        sums[pool] = count + 1, total + math.log(seconds)
    return {pool: (count, total / count) for pool, (count, total) in sums.items()}


def _times(run: Estimate, moved: float, low: float, high: float, source: str) -> Estimate:
    """A run time moved by a factor, its bounds moved further by what the factor may be off."""

    def scaled(value: float | None, by: float) -> float | None:
        return None if value is None else value * math.exp(by)

    return replace(
        run,
        seconds=run.seconds * math.exp(moved),
        source=source or run.source,
        p10=scaled(run.p10, moved + low),
        p50=scaled(run.p50, moved),
        p90=scaled(run.p90, moved + high),
    )


def read_capabilities(connection: sa.Connection) -> dict[Key, PoolCapability]:
    """The capability of each pool: of its kind of node with the most nodes that were measured."""
    found: dict[Key, PoolCapability] = {}
    rows: list[Any] = list(connection.execute(sa.select(tables.capabilities).order_by(tables.capabilities.c.kind)))
    for row in rows:
        capability = load(PoolCapability, row.body)
        before = found.get((row.site, row.pool))
        if before is None or len(capability.nodes) > len(before.nodes):
            found[row.site, row.pool] = capability
    return found
