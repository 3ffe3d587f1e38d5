"""Moving waiting work: when a job that still waits in a site's queue would better go elsewhere.

The world changes after a decision: another site falls idle, a queue grows, a pool goes down. A job is moved only when that
pays for it: the gain must be both so many seconds and a part of what is left, and the plan elsewhere must be as good by the
task's own goal. How often at most is the caller's to bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from isthmus.domain.placement import Candidate, Snapshot, WaitingTask, Why
from isthmus.domain.task import Goal
from isthmus.domain.units import show_duration
from isthmus.placement.candidates import Staying
from isthmus.placement.round import decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A job that waits at a site. `ahead`: the part of the site's queue that is before it (0 to 1); where nobody knows that,
    `waited_seconds`: how long it is in the queue already; `refused_seconds`: how long the site has refused to take it, since its
    queue is full (0: it took it)."""

    key: str
    site: str
    pool: str
    task: WaitingTask
    ahead: float = 1.0
    waited_seconds: float = 0.0
    refused_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Better:
    """A job that should move: where to, how much sooner it would be done, and that in words."""

    key: str
    site: str
    gain_seconds: float
    note: str


def find_better(
    snapshot: Snapshot, queued: Sequence[Queued], *, least_seconds: float, least_part: float
) -> list[Better]:
    """The jobs that would gain enough elsewhere. One that finds room counts for those after it, so that they do not all go for
    the same hole. A site that does not answer keeps its jobs: nobody could say that they ended."""
    decision = decide(snapshot, [one.task for one in queued], pricing=False)
    staying = Staying(snapshot)
    found = []
    for one, receipt in zip(queued, decision.receipts, strict=True):
        if not receipt.chosen_site or receipt.chosen_site == one.site:
            continue
        here = staying.plan(one.task, one.site, one.pool, refused=one.refused_seconds > 0)
        there = next(c for c in receipt.candidates if c.why is Why.CHOSEN)
        stay = None if here is None else _left(one, here)
        if here is None or stay is None or there.finish_seconds is None or not _as_good(one.task, here, there):
            continue
        gain = stay - there.finish_seconds
        if gain >= least_seconds and (stay == inf or gain >= least_part * stay):
            note = (
                f"its pool is down; {there.site} has room"
                if stay == inf
                else f"would start {show_duration(gain)} sooner at {there.site}"
            )
            found.append(Better(key=one.key, site=there.site, gain_seconds=gain, note=note))
    return found


def _left(one: Queued, here: Candidate) -> float | None:
    """Seconds until the job is done where it is; infinite where nothing starts, None where nobody can say.

    A job that was refused for a while is taken to be refused for as long again.
    """
    if here.why is Why.POOL_DOWN:
        return inf
    if here.wait is None or here.run is None:
        return None
    bringing = here.transfer.seconds if here.transfers and here.transfer is not None else 0.0
    wait = max(0.0, here.wait.seconds * one.ahead - one.waited_seconds)
    return max(wait, one.refused_seconds) + bringing + here.run.seconds


def _as_good(task: WaitingTask, here: Candidate, there: Candidate) -> bool:
    """Whether going elsewhere costs the task nothing of what it wants most."""
    if task.objective.weights is not None or task.objective.goal is Goal.SOONEST or here.price is None:
        return True
    if task.objective.goal is Goal.CHEAPEST:
        return there.price is not None and there.price <= here.price
    return there.carbon_grams is not None and (here.carbon_grams is None or there.carbon_grams <= here.carbon_grams)
