"""Fair share between projects, with decay: how far ahead of its share a project is, in seconds.

A project's use is in processor-seconds; what was used a half-life ago counts half. Its lead is its use over its part of
the federation: the seconds that its share of all processors would have needed for it. A task's turn comes by rank + lead,
so that age, priority (a minute for each point) and fair share are seconds of one kind, and can be compared:

- Two projects that both have work waiting are served so that their leads grow alike: each gets its share.
- Nothing starves. A lead is at most half-life / (share x ln 2), since what is used decays at the pace at which it can
  grow; so a task that is older than all others by that much is next, whoever owns it.

Slurm's factor 2^(-use/share) was not taken: it falls to nothing, so that two projects far above their shares look alike,
and its weight against age is in points that have to be tuned; a lead keeps its meaning at any load.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from isthmus.domain.placement import Standing

T = TypeVar("T")


def decayed(used: float, seconds: float, half_life: float) -> float:
    """What is left of a use after so many seconds; a clock that was set back changes nothing."""
    return used * math.exp2(-max(0.0, seconds) / half_life)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A project's share (any positive number; the ratios matter) and what it used and was promised, in processor-seconds."""

    share: float = 1.0
    used: float = 0.0
    promised: float = 0.0


class Leads:
    """The leads of the active projects in one round: those with work that waits, runs or is not forgotten yet."""

    def __init__(self, accounts: Mapping[str, Account], processors: float) -> None:
        """`processors` of all pools together: what the shares are shares of."""
        self._accounts = accounts
        shares = sum(account.share for account in accounts.values())
        whole = max(1.0, processors)
        self._pace = {name: account.share / shares * whole for name, account in accounts.items()}
        self._seconds = {
            name: (account.used + account.promised) / self._pace[name] for name, account in accounts.items()
        }

    def seconds(self, project: str) -> float:
        """How far the project is ahead; one that is not known has used nothing."""
        return self._seconds.get(project, 0.0)

    def grow(self, project: str, processor_seconds: float) -> None:
        """One more task of the project had its turn."""
        if project in self._pace:
            self._seconds[project] += processor_seconds / self._pace[project]

    def standing(self, project: str) -> Standing | None:
        """How much of its share a project has used, as of the beginning of the round; None when nobody used anything."""
        total = sum(account.used + account.promised for account in self._accounts.values())
        account = self._accounts.get(project)
        if account is None or total <= 0.0:
            return None
        shares = sum(one.share for one in self._accounts.values())
        part = account.share / shares
        return Standing(
            project=project,
            part=part,
            of_share=(account.used + account.promised) / total / part,
            of=len(self._accounts),
        )


def in_turn(
    queues: Mapping[str, Iterator[T]],
    leads: Leads,
    *,
    rank: Callable[[T], float],
    cost: Callable[[T], float],
    weight: float,
) -> Iterator[T]:
    """Merge queues that are each in order of rank: the least rank + weight x lead is next, and its project's lead grows by the
    task's `cost` in processor-seconds. Of equals the first project by name."""
    heads: list[tuple[float, str, T]] = []

    def push(project: str) -> None:
        for one in queues[project]:
            heapq.heappush(heads, (rank(one) + weight * leads.seconds(project), project, one))
            return

    for project in sorted(queues):
        push(project)
    while heads:
        _, project, one = heapq.heappop(heads)
        leads.grow(project, cost(one))
        yield one
        push(project)
