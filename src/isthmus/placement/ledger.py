"""What is promised of each pool as a round goes on."""

from __future__ import annotations

from isthmus.domain.placement import PoolView, Promise, Snapshot, WaitingTask


class Ledger:
    """The promises of one pool as the round goes on."""

    def __init__(self, view: PoolView) -> None:
        """Begins with what was promised before."""
        self.view = view
        self.promised = view.promised
        self.unseen = view.promised_unseen
        self.guests = Promise()  # of this round, at a site whose own users come first
        self.to_bring = list(view.to_bring)  # shared by the pools of a site

    def before(self, task: WaitingTask) -> tuple[Promise, Promise]:
        """What is ahead of a task, and of that what the site does not show: for the site's own users no guest is."""
        if self.view.home is None or task.home != self.view.site:
            return self.promised, self.unseen
        return less(self.promised, self.guests), less(self.unseen, self.guests)

    def add(self, task: WaitingTask, run_seconds: float) -> None:
        """The task is to run here."""
        more = promise_of(task, run_seconds)
        self.promised = _sum(self.promised, more)
        self.unseen = _sum(self.unseen, more)
        if self.view.home is not None and task.home != self.view.site:
            self.guests = _sum(self.guests, more)


def promise_of(task: WaitingTask, run_seconds: float) -> Promise:
    """What one task is promised where it runs for so long."""
    demand = task.demand
    cpus = demand.cpus_per_node * demand.nodes
    return Promise(
        jobs=1,
        cpus=cpus,
        memory_bytes=demand.memory_bytes * demand.nodes,
        accelerators=demand.accelerators.count * demand.nodes,
        cpu_seconds=cpus * run_seconds,
    )


def ledgers(snapshot: Snapshot) -> list[Ledger]:
    """One for each pool of the snapshot, in its order."""
    found = [Ledger(view) for view in snapshot.pools]
    sites: dict[str, list[int]] = {}
    for ledger in found:
        ledger.to_bring = sites.setdefault(ledger.view.site, ledger.to_bring)
    return found


def _sum(one: Promise, other: Promise) -> Promise:
    return Promise(
        jobs=one.jobs + other.jobs,
        cpus=one.cpus + other.cpus,
        memory_bytes=one.memory_bytes + other.memory_bytes,
        accelerators=one.accelerators + other.accelerators,
        cpu_seconds=one.cpu_seconds + other.cpu_seconds,
    )


def less(one: Promise, other: Promise) -> Promise:
    """The one without the other; nothing is below 0."""
    return Promise(
        jobs=max(0, one.jobs - other.jobs),
        cpus=max(0, one.cpus - other.cpus),
        memory_bytes=max(0, one.memory_bytes - other.memory_bytes),
        accelerators=max(0, one.accelerators - other.accelerators),
        cpu_seconds=max(0.0, one.cpu_seconds - other.cpu_seconds),
    )
