"""One task at one pool, with what others of the round were promised: refused with the reason, or estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from isthmus.domain.placement import Candidate, PoolView, Promise, Snapshot, WaitingTask, Why
from isthmus.placement import estimates
from isthmus.placement.carrying import Blocked, Preference, Traffic
from isthmus.placement.feasibility import Failure, failures
from isthmus.placement.homerow import HomeRows
from isthmus.placement.ledger import Ledger, less, promise_of
from isthmus.placement.preference import Yardstick, yardstick
from isthmus.placement.spreading import spread_over

_OPEN = frozenset({Why.LATER_FINISH, Why.FULL_NOW, Why.PATH_FULL, Why.HOME_FIRST})


def wishes(snapshot: Snapshot, tasks: Sequence[WaitingTask]) -> tuple[list[list[Candidate | None]], list[Yardstick]]:
    """Every task's plans [task][pool] as they would be if it did not wait anywhere (None = impossible), and its yardstick."""
    empty = Promise()
    ledgers = [Ledger(replace(view, promised=empty, promised_unseen=empty, to_bring=(0, 0))) for view in snapshot.pools]
    traffic = Traffic(snapshot.roads, snapshot.now, held=())
    known: dict[object, tuple[list[Candidate | None], Yardstick]] = {}
    rows = []
    for task in tasks:
        wish = wish_of(task)
        if wish not in known:
            whole = [candidate(snapshot.now, task, ledger, traffic) for ledger in ledgers]
            plans = [_without_wait(plan) if plan.run and plan.why is not Why.OVER_BUDGET else None for plan in whole]
            known[wish] = plans, yardstick(task, whole)
        rows.append(known[wish])
    return [plans for plans, _ in rows], [by for _, by in rows]


def candidate(now: float, task: WaitingTask, ledger: Ledger, traffic: Traffic) -> Candidate:
    """What a pool comes to for a task, or why it cannot have it, whatever its data prefers."""
    failure = next(failures(task, ledger.view), None)
    return refused_at(ledger.view, failure) if failure else estimated(now, task, ledger, traffic, Preference())


def estimated(
    now: float,
    task: WaitingTask,
    ledger: Ledger,
    traffic: Traffic,
    prefer: Preference,
    rows: HomeRows | None = None,
) -> Candidate:
    """What a pool that could have the task comes to: wait, transfer, run, handling, price, energy, carbon; refused where that is too late,
    too dear, or full."""
    view = ledger.view
    brought = traffic.bring(task, view, prefer)
    if isinstance(brought, Blocked):
        return refused_at(view, brought)
    run = estimates.run(task, view)
    energy = estimates.energy_kwh(task, view, run.seconds)
    jobs, size_bytes = ledger.to_bring
    handover, handling = estimates.handling(view, jobs + 1, size_bytes + task.input_bytes)
    transfer = brought.estimate
    if task.input_bytes and not task.data and view.handover is not None:  # what is uploaded is brought with the task
        transfer = replace(transfer, seconds=0.0, source="learned", p10=None, p90=None)
    wait = estimates.wait(task, view, *ledger.before(task), handover + transfer.seconds)
    begin = now + handover + wait.seconds + transfer.seconds
    candidate = Candidate(
        site=view.site,
        pool=view.pool.name,
        why=Why.LATER_FINISH,
        wait=wait,
        transfer=transfer,
        run=run,
        handling=handling,
        price=estimates.price(task, view, run.seconds, begin) + brought.price,
        transfers=brought.carriages,
        energy_kwh=energy,
        carbon_grams=view.energy.grams(energy, begin, run.seconds),
    )
    spread = view.spread_declared if run.source == "declared" else view.spread
    if spread is not None:
        candidate = replace(candidate, finish=spread_over(candidate, spread))
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
    waits = candidate.wait is not None and candidate.wait.seconds > estimates.SCHEDULER_LAG_SECONDS
    if task.preemptible and waits:
        return replace(candidate, why=Why.FULL_NOW, wanted="room that is idle", offered="none")
    unkind = None if rows is None else rows.refusal(task, view, candidate)
    if unkind is not None:
        return replace(candidate, why=unkind.why, wanted=unkind.wanted, offered=unkind.offered)
    if not estimates.takes_more(task, view, ledger.promised):
        return replace(
            candidate,
            why=Why.FULL_NOW,
            wanted=f"{task.demand.cpus_per_node * task.demand.nodes} processors",
            offered=f"{ledger.promised.cpus} of {view.pool.cpus} promised to {ledger.promised.jobs} jobs",
        )
    return candidate


def refused_at(view: PoolView, failure: Failure | Blocked) -> Candidate:
    """A pool that cannot have the task, with the reason."""
    return Candidate(
        site=view.site, pool=view.pool.name, why=failure.why, wanted=failure.wanted, offered=failure.offered
    )


def avoid(task: WaitingTask, candidates: list[Candidate]) -> list[Candidate]:
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


def wish_of(task: WaitingTask) -> object:
    """What a decision depends on: tasks of one wish are turned away alike."""
    return (
        task.preemptible,
        task.home,
        shape_of(task),
        task.objective,
        task.avoid_sites,
        task.run,
        task.run_at,
        task.input_bytes,
        task.data,
    )


def shape_of(task: WaitingTask) -> object:
    """What feasibility depends on: tasks of one shape fail and fit alike."""
    demand = task.demand
    return (
        task.user,
        task.constraints,
        task.input_sites,
        task.data,
        task.keeps,
        task.needs_container,
        task.options,
        demand.nodes,
        demand.cpus_per_node,
        demand.memory_bytes,
        demand.disk_bytes,
        demand.accelerators,
        task.limit_seconds,
        tuple(sorted(demand.licences.items())),
    )


def _without_wait(plan: Candidate) -> Candidate:
    return replace(plan, wait=replace(plan.wait, seconds=0.0) if plan.wait else None)


class Staying:
    """Plans of tasks that wait at pools already, beside everything else that the snapshot has there but themselves."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._now = snapshot.now
        self._views = {(view.site, view.pool.name): view for view in snapshot.pools}
        self._traffic = Traffic(snapshot.roads, snapshot.now)

    def plan(self, task: WaitingTask, site: str, pool: str, *, refused: bool) -> Candidate | None:
        """What staying comes to; None where there is no such pool. `refused`: the site has not taken it yet, so that its figures do
        not show it."""
        view = self._views.get((site, pool))
        if view is None:
            return None
        own = promise_of(task, estimates.run(task, view).seconds)
        unseen = less(view.promised_unseen, own) if refused else view.promised_unseen
        alone = replace(view, promised=less(view.promised, own), promised_unseen=unseen)
        return candidate(self._now, task, Ledger(alone), self._traffic)
