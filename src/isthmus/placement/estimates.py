"""What is expected of one task at one pool: wait, transfer, run, price. Each figure carries its source."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from isthmus.domain.placement import Estimate, PoolView, Promise, WaitingTask

SCHEDULER_LAG_SECONDS = 2.0  # from submission to start at an idle batch system
NOTICED_SECONDS = 60.0  # forecasts of less are within their error
_SOON, _LATE = 0.3, 1.3  # of the work ahead: most jobs of a queue start between the two
SHALLOW = 3  # a batch pool is promised at most this many times its processors; the rest waits here, by priority


def fits_now(task: WaitingTask, view: PoolView, promised: Promise) -> bool:
    """Whether a pool without a queue of its own has room beside what it was promised."""
    demand, pool = task.demand, view.pool
    return (
        promised.cpus + demand.cpus_per_node * demand.nodes <= pool.cpus
        and promised.memory_bytes + demand.memory_bytes * demand.nodes <= pool.memory_bytes_per_node * pool.nodes
        and promised.accelerators + demand.accelerators.count * demand.nodes <= pool.accelerators_per_node * pool.nodes
    )


def takes_more(task: WaitingTask, view: PoolView, promised: Promise) -> bool:
    """Whether one more job may be sent to the pool now."""
    if promised.jobs >= view.max_jobs:
        return False
    if view.pool.immediate:
        return fits_now(task, view, promised)
    wanted = task.demand.cpus_per_node * task.demand.nodes
    return promised.cpus == 0 or promised.cpus + wanted <= SHALLOW * view.pool.cpus


def free_room(view: PoolView, promised: Promise, unseen: Promise) -> dict[str, float]:
    """What of each resource (as `scarcity.held`) a job could have at once at a pool: of one with a queue as its site saw it, less what
    was sent there since; of memory and devices, which sites do not show, what was not promised."""
    pool = view.pool
    free = pool.cpus if pool.free_cpus is None else pool.free_cpus - unseen.cpus
    return {
        "cpus": float(pool.cpus - promised.cpus if pool.immediate else free),
        "memory_bytes": float(pool.memory_bytes_per_node * pool.nodes - promised.memory_bytes),
        "accelerators": float(pool.accelerators_per_node * pool.nodes - promised.accelerators),
    }


def wait(task: WaitingTask, view: PoolView, promised: Promise, unseen: Promise, after: float = 0.0) -> Estimate:
    """Seconds until the task would start at the pool, from `after` seconds on, when it is in its queue: what was learned of the
    queue; before that none where it fits, else the work ahead over the pool's size. What the site has not shown yet of our own
    jobs waits ahead of the task; where nobody else's are, what is left of them by now says more than the site's last look."""
    pool = view.pool
    wanted = task.demand.cpus_per_node * task.demand.nodes
    cpus = max(1, pool.cpus)
    if pool.immediate:
        ahead = 0.0 if fits_now(task, view, promised) else promised.cpu_seconds / cpus
        return Estimate(seconds=ahead, source="measured")
    free = pool.cpus if pool.free_cpus is None else pool.free_cpus
    if pool.own is not None and pool.queued_jobs <= pool.own.queued_jobs:
        others = max(0, pool.cpus - free - pool.own.running_cpus)
        if pool.cpus - others - promised.cpus >= wanted:
            return Estimate(seconds=SCHEDULER_LAG_SECONDS, source="measured")
        if not others:
            ahead = max(0.0, promised.cpu_seconds / cpus - after)
            return _behind(ahead)
    has_room = pool.queued_jobs == 0 and free - unseen.cpus >= wanted
    learned = None if view.waits is None else view.waits.of(wanted, round(task.limit_seconds))
    if learned is not None:
        return learned if has_room or not unseen.cpu_seconds else later(learned, unseen.cpu_seconds / cpus)
    if has_room:
        return Estimate(seconds=SCHEDULER_LAG_SECONDS, source="measured")
    ahead = pool.queued_cpu_seconds + pool.running_cpu_seconds_left
    if pool.own is None:
        ahead += unseen.cpu_seconds
    else:  # others by their limits, our own by what is left of them
        ahead = max(0.0, ahead - pool.own.cpu_seconds) + promised.cpu_seconds
    return _behind(ahead / cpus)


def _behind(seconds: float) -> Estimate:
    """A wait behind work of so many seconds of the whole pool. Schedulers fill gaps with what is narrow or short, before its turn."""
    return Estimate(
        seconds=SCHEDULER_LAG_SECONDS + seconds,
        source="measured",
        p10=SCHEDULER_LAG_SECONDS + _SOON * seconds,
        p90=SCHEDULER_LAG_SECONDS + _LATE * seconds,
    )


def later(one: Estimate, seconds: float) -> Estimate:
    """The estimate with all its quantiles so many seconds later."""

    def moved(value: float | None) -> float | None:
        return None if value is None else value + seconds

    return replace(
        one,
        seconds=one.seconds + seconds,
        p10=moved(one.p10),
        p50=moved(one.p50),
        p90=moved(one.p90),
        p95=moved(one.p95),
    )


def is_long(wait: Estimate) -> bool:
    """Whether a wait is longer than what every job has at an idle pool, and a forecast its own error."""
    return wait.seconds > (NOTICED_SECONDS if wait.source == "learned" else SCHEDULER_LAG_SECONDS)


def handling(view: PoolView, jobs: int, size_bytes: float) -> tuple[float, Estimate | None]:
    """Seconds until the last of so many jobs with so many bytes is in the site's queue, and with that what collecting takes after
    the run; nothing where none was learned."""
    if view.handling is None:
        return 0.0, None
    before = 0.0 if view.handover is None else view.handover.of(jobs, size_bytes)
    return before, later(view.handling, before)


def run(task: WaitingTask, view: PoolView | None = None) -> Estimate:
    """Seconds of running at a pool (None: anywhere): what similar tasks took, or what the user declared at most."""
    if task.run is not None:
        if view is None or task.run_at is None:
            return task.run
        return task.run_at.by_pool.get((view.site, view.pool.name), task.run)
    return Estimate(seconds=float(task.demand.walltime_seconds), source="declared")


def price(task: WaitingTask, view: PoolView, run_seconds: float, begin: float) -> Decimal:
    """What the run would cost at the pool's tariff in the hours in which it would run, from `begin` (seconds since 1970) on."""
    cpu = view.pool.price_per_cpu_hour if view.cpu_hours is None else view.cpu_hours.mean(begin, run_seconds)
    device = view.price_per_accelerator_hour
    if view.accelerator_hours is not None:
        device = view.accelerator_hours.mean(begin, run_seconds)
    if not cpu and not device:
        return Decimal(0)
    demand = task.demand
    each_hour = cpu * demand.cpus_per_node * demand.nodes
    each_hour += device * demand.accelerators.count * demand.nodes
    if task.preemptible:
        each_hour *= view.preemptible_share
    return (each_hour * round(run_seconds) / 3600).quantize(Decimal("0.000001"))


def energy_kwh(task: WaitingTask, view: PoolView, run_seconds: float) -> Decimal | None:
    """Energy of the run with the building's share (PUE); None where no power was declared."""
    demand, seconds = task.demand, round(run_seconds)
    return view.energy.kwh(
        demand.cpus_per_node * demand.nodes * seconds, demand.accelerators.count * demand.nodes * seconds
    )
