"""One round: all waiting tasks, in order of service, against one snapshot; earliest finish (or lowest price) wins.

Each placement counts at once as a promise, so that tasks of the same round see each other. What fits nowhere now
stays in the queue with a receipt that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from isthmus.domain.placement import (
    PASSING,
    Candidate,
    Placement,
    PoolView,
    Promise,
    Receipt,
    Snapshot,
    WaitingTask,
    Why,
)
from isthmus.domain.task import Goal
from isthmus.placement import estimates
from isthmus.placement.feasibility import Failure, failures, remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a round decided: placements, and a receipt for every task looked at, in the order given."""

    placements: tuple[Placement, ...]
    receipts: tuple[Receipt, ...]


class _Ledger:
    """The promises of one pool as the round goes on."""

    def __init__(self, view: PoolView) -> None:
        self.view = view
        self.promised = view.promised
        self.unseen = view.promised_unseen

    def add(self, task: WaitingTask, run_seconds: float) -> None:
        demand = task.demand
        cpus = demand.cpus_per_node * demand.nodes
        more = Promise(
            jobs=1,
            cpus=cpus,
            memory_bytes=demand.memory_bytes * demand.nodes,
            accelerators=demand.accelerators.count * demand.nodes,
            cpu_seconds=cpus * run_seconds,
        )
        self.promised = _sum(self.promised, more)
        self.unseen = _sum(self.unseen, more)


def _sum(one: Promise, other: Promise) -> Promise:
    return Promise(
        jobs=one.jobs + other.jobs,
        cpus=one.cpus + other.cpus,
        memory_bytes=one.memory_bytes + other.memory_bytes,
        accelerators=one.accelerators + other.accelerators,
        cpu_seconds=one.cpu_seconds + other.cpu_seconds,
    )


def decide(snapshot: Snapshot, tasks: Sequence[WaitingTask]) -> Decision:
    """Place what can be placed now. Deterministic for a given snapshot and order of tasks."""
    ledgers = [_Ledger(view) for view in snapshot.pools]
    checked: dict[object, list[Failure | None]] = {}
    turned_away: dict[object, Receipt] = {}  # promises only grow in a round: what did not fit once does not fit later
    placements: list[Placement] = []
    receipts: list[Receipt] = []
    for task in tasks:
        shape = _shape(task)
        wish = (shape, task.objective, task.avoid_sites, task.run, task.input_bytes)
        if wish in turned_away:
            receipts.append(replace(turned_away[wish], task_id=task.id))
            continue
        if shape not in checked:
            checked[shape] = [next(failures(task, ledger.view), None) for ledger in ledgers]
        candidates = [
            _refused(ledger.view, failure) if failure else _estimated(snapshot.now, task, ledger)
            for ledger, failure in zip(ledgers, checked[shape], strict=True)
        ]
        candidates = _avoid(task, candidates)
        best = _best(task, candidates)
        if best is None:
            turned_away[wish] = _waiting(snapshot, task, candidates)
            receipts.append(turned_away[wish])
            continue
        chosen = candidates[best]
        assert chosen.run is not None
        assert chosen.finish_seconds is not None
        ledgers[best].add(task, chosen.run.seconds)
        placements.append(
            Placement(
                task_id=task.id,
                site=chosen.site,
                pool=chosen.pool,
                predicted_seconds=chosen.finish_seconds,
                price=chosen.price or Decimal(0),
            )
        )
        receipts.append(
            Receipt(
                task_id=task.id,
                decided_at=snapshot.now,
                candidates=_lost(task, candidates, best),
                chosen_site=chosen.site,
                chosen_pool=chosen.pool,
            )
        )
    return Decision(placements=tuple(placements), receipts=tuple(receipts))


def _shape(task: WaitingTask) -> object:
    """What feasibility depends on: tasks of one shape fail and fit alike."""
    demand = task.demand
    return (
        task.user,
        task.constraints,
        task.input_sites,
        task.needs_container,
        task.options,
        demand.nodes,
        demand.cpus_per_node,
        demand.memory_bytes,
        demand.disk_bytes,
        demand.accelerators,
        demand.walltime_seconds,
        tuple(sorted(demand.licences.items())),
    )


def _refused(view: PoolView, failure: Failure) -> Candidate:
    return Candidate(
        site=view.site, pool=view.pool.name, why=failure.why, wanted=failure.wanted, offered=failure.offered
    )


def _estimated(now: float, task: WaitingTask, ledger: _Ledger) -> Candidate:
    view = ledger.view
    run = estimates.run(task)
    candidate = Candidate(
        site=view.site,
        pool=view.pool.name,
        why=Why.LATER_FINISH,
        wait=estimates.wait(task, view, ledger.promised, ledger.unseen),
        transfer=estimates.transfer(task, view),
        run=run,
        price=estimates.price(task, view, run.seconds),
    )
    late = candidate.late_seconds
    assert late is not None
    objective = task.objective
    if objective.deadline is not None and now + late > objective.deadline.timestamp():
        ready = datetime.fromtimestamp(now + late, objective.deadline.tzinfo)
        return replace(
            candidate,
            why=Why.MISSES_DEADLINE,
            wanted=objective.deadline.isoformat(timespec="seconds"),
            offered=ready.isoformat(timespec="seconds"),
        )
    if objective.budget is not None and candidate.price is not None and candidate.price > objective.budget:
        return replace(candidate, why=Why.OVER_BUDGET, wanted=str(objective.budget), offered=str(candidate.price))
    if not estimates.takes_more(task, view, ledger.promised):
        return replace(
            candidate,
            why=Why.FULL_NOW,
            wanted=f"{task.demand.cpus_per_node * task.demand.nodes} processors",
            offered=f"{ledger.promised.cpus} of {view.pool.cpus} promised to {ledger.promised.jobs} jobs",
        )
    return candidate


_OPEN = frozenset({Why.LATER_FINISH, Why.FULL_NOW})


def _avoid(task: WaitingTask, candidates: list[Candidate]) -> list[Candidate]:
    """A site where the task failed before is left out while any other could take it, now or soon."""
    if not task.avoid_sites:
        return candidates
    others = any(c.why in _OPEN and c.site not in task.avoid_sites for c in candidates)
    if not others:
        return candidates
    return [
        replace(c, why=Why.FAILED_HERE, wanted="another site", offered="failed here before")
        if c.why in _OPEN and c.site in task.avoid_sites
        else c
        for c in candidates
    ]


def _order(task: WaitingTask, candidate: Candidate) -> tuple[object, ...]:
    finish = candidate.finish_seconds
    price = candidate.price or Decimal(0)
    key = (price, finish) if task.objective.goal is Goal.CHEAPEST else (finish, price)
    return (*key, candidate.site, candidate.pool)


def _best(task: WaitingTask, candidates: Sequence[Candidate]) -> int | None:
    able = [index for index, candidate in enumerate(candidates) if candidate.why is Why.LATER_FINISH]
    if not able:
        return None
    return min(able, key=lambda index: _order(task, candidates[index]))


def _lost(task: WaitingTask, candidates: Sequence[Candidate], best: int) -> tuple[Candidate, ...]:
    lost = Why.DEARER if task.objective.goal is Goal.CHEAPEST else Why.LATER_FINISH
    return tuple(
        replace(c, why=Why.CHOSEN) if index == best else replace(c, why=lost) if c.why is Why.LATER_FINISH else c
        for index, c in enumerate(candidates)
    )


def _waiting(snapshot: Snapshot, task: WaitingTask, candidates: list[Candidate]) -> Receipt:
    if any(candidate.why is Why.FULL_NOW for candidate in candidates):
        advice = "It goes as soon as there is room; a higher priority or a smaller demand goes sooner."
    elif any(candidate.why in PASSING for candidate in candidates):
        advice = "It goes when the site is back; or allow other sites."
    else:
        advice = remedy(task, snapshot.pools) or _money_or_time(candidates)
    return Receipt(task_id=task.id, decided_at=snapshot.now, candidates=tuple(candidates), remedy=advice)


def _money_or_time(candidates: Sequence[Candidate]) -> str:
    late = [c for c in candidates if c.why is Why.MISSES_DEADLINE and c.finish_seconds is not None]
    if late:
        soonest = min(late, key=lambda c: c.finish_seconds or 0.0)
        return f"Move the deadline to {soonest.offered} or later (soonest: {soonest.site}/{soonest.pool})."
    dear = [c for c in candidates if c.why is Why.OVER_BUDGET and c.price is not None]
    if dear:
        cheapest = min(dear, key=lambda c: c.price or Decimal(0))
        return f"Raise the budget to {cheapest.offered} (cheapest: {cheapest.site}/{cheapest.pool})."
    return ""
