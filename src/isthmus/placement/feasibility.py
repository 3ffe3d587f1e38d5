"""Which pools could run a task at all, and by name and figure why the others could not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.domain.placement import PoolView, WaitingTask, Why
from isthmus.domain.site import SiteState
from isthmus.domain.units import show_duration, show_size


@dataclass(frozen=True, slots=True)
class Failure:
    """One reason a pool cannot take a task, with the figure asked for and the figure there."""

    why: Why
    wanted: str = ""
    offered: str = ""


def failures(task: WaitingTask, view: PoolView) -> Iterator[Failure]:
    """Every reason, the least negotiable first; nothing when the pool could run the task."""
    yield from _policy(task, view)
    yield from _state(view)
    yield from _size(task, view)


def _policy(task: WaitingTask, view: PoolView) -> Iterator[Failure]:
    limits = task.constraints
    if view.site in limits.sites_deny or (limits.sites_allow and view.site not in limits.sites_allow):
        yield Failure(Why.SITE_DENIED, ", ".join(limits.sites_allow) or f"not {view.site}", view.site)
    if view.region in limits.regions_deny or (limits.regions_allow and view.region not in limits.regions_allow):
        yield Failure(Why.REGION_DENIED, ", ".join(limits.regions_allow) or f"not {view.region}", view.region or "none")
    if limits.pools_allow and view.pool.name not in limits.pools_allow:
        yield Failure(Why.POOL_DENIED, ", ".join(limits.pools_allow), view.pool.name)
    if limits.trust and limits.trust != view.trust:
        yield Failure(Why.TRUST_TOO_LOW, limits.trust, view.trust or "none")
    if "*" not in view.accounts and task.user not in view.accounts:
        yield Failure(Why.NO_ACCOUNT, task.user, "no local account")
    if task.input_sites and task.input_sites != {view.site}:
        yield Failure(Why.DATA_ELSEWHERE, ", ".join(sorted(task.input_sites)), view.site)
    for piece in task.data:
        if piece.regions and view.region not in piece.regions:
            yield Failure(
                Why.DATA_MAY_NOT_LEAVE,
                f"{piece.name} only in {', '.join(sorted(piece.regions))}",
                view.region or "none",
            )
    for output in task.keeps:
        if not view.keeps_data:
            yield Failure(Why.SITE_KEEPS_NO_DATA, f"{output.name} kept at the site", "no data kept")
        if output.regions and view.region not in output.regions:
            wanted = f"{output.name} only in {', '.join(sorted(output.regions))}"
            yield Failure(Why.DATA_MAY_NOT_LEAVE, wanted, view.region or "none")
    if task.needs_container and not any(feature.startswith("containers") for feature in view.features):
        yield Failure(Why.NO_CONTAINERS, "containers", "none")
    if "options" in view.features:  # a site without a scheduler has nobody to hand them to
        taken = {feature.removeprefix("option:") for feature in view.features if feature.startswith("option:")}
        if not task.options <= taken:
            yield Failure(
                Why.OPTION_REFUSED, ", ".join(sorted(task.options - taken)), ", ".join(sorted(taken)) or "none"
            )


def _state(view: PoolView) -> Iterator[Failure]:
    if view.state is not SiteState.ACTIVE:
        yield Failure(Why.SITE_DRAINING, "active", view.state.value)
    if not view.reachable:
        yield Failure(Why.SITE_UNREACHABLE, "an answer", "none")
    if not view.pool.up:
        yield Failure(Why.POOL_DOWN, "up", "down")


def _size(task: WaitingTask, view: PoolView) -> Iterator[Failure]:
    demand, pool = task.demand, view.pool
    if demand.nodes > pool.nodes:
        yield Failure(Why.TOO_FEW_NODES, str(demand.nodes), str(pool.nodes))
    if demand.cpus_per_node > pool.cpus_per_node:
        yield Failure(Why.TOO_FEW_CPUS, str(demand.cpus_per_node), str(pool.cpus_per_node))
    if demand.memory_bytes > pool.memory_bytes_per_node:
        yield Failure(Why.TOO_LITTLE_MEMORY, show_size(demand.memory_bytes), show_size(pool.memory_bytes_per_node))
    if pool.disk_bytes_per_node and demand.disk_bytes > pool.disk_bytes_per_node:
        yield Failure(Why.TOO_LITTLE_DISK, show_size(demand.disk_bytes), show_size(pool.disk_bytes_per_node))
    wanted = demand.accelerators
    if wanted.count > pool.accelerators_per_node:
        yield Failure(Why.TOO_FEW_ACCELERATORS, str(wanted.count), str(pool.accelerators_per_node))
    elif wanted.count and wanted.kind and wanted.kind != pool.accelerator_kind:
        yield Failure(Why.WRONG_ACCELERATOR, wanted.kind, pool.accelerator_kind or "unnamed")
    elif wanted.count and pool.accelerator_memory_bytes and wanted.memory_bytes > pool.accelerator_memory_bytes:
        yield Failure(Why.WRONG_ACCELERATOR, show_size(wanted.memory_bytes), show_size(pool.accelerator_memory_bytes))
    for name, count in demand.licences.items():
        if count > pool.licences.get(name, 0):
            yield Failure(Why.NO_LICENCE, f"{count} {name}", str(pool.licences.get(name, 0)))
    if pool.max_walltime_seconds is not None and task.limit_seconds > pool.max_walltime_seconds:
        yield Failure(
            Why.WALLTIME_TOO_LONG, show_duration(task.limit_seconds), show_duration(pool.max_walltime_seconds)
        )


_REMEDIES = {
    Why.SITE_DENIED: "allow site {offered}",
    Why.REGION_DENIED: "allow region {offered}",
    Why.POOL_DENIED: "allow pool {offered}",
    Why.TRUST_TOO_LOW: "accept trust label {offered}",
    Why.SITE_DRAINING: "wait until the operator resumes it",
    Why.SITE_UNREACHABLE: "wait until it answers again",
    Why.POOL_DOWN: "wait until the pool is up",
    Why.NO_ACCOUNT: "ask its operator to map {wanted} to a local account",
    Why.DATA_ELSEWHERE: "bring the data from {wanted} as an upload or a URL",
    Why.DATA_MAY_NOT_LEAVE: "use data that may be in region {offered} (now {wanted})",
    Why.SITE_KEEPS_NO_DATA: "let its outputs come to the service: leave @site out ({wanted})",
    Why.TOO_FEW_NODES: "ask for at most {offered} nodes (now {wanted})",
    Why.TOO_FEW_CPUS: "ask for at most {offered} processors a node (now {wanted})",
    Why.TOO_LITTLE_MEMORY: "ask for at most {offered} of memory a node (now {wanted})",
    Why.TOO_LITTLE_DISK: "ask for at most {offered} of disk (now {wanted})",
    Why.TOO_FEW_ACCELERATORS: "ask for at most {offered} accelerators a node (now {wanted})",
    Why.WRONG_ACCELERATOR: "accept the accelerator {offered} (now {wanted})",
    Why.NO_LICENCE: "go without licence {wanted}",
    Why.WALLTIME_TOO_LONG: "ask for at most {offered} of walltime (now {wanted})",
    Why.NO_CONTAINERS: "go without an image",
    Why.OPTION_REFUSED: "go without the option {wanted}, or ask its operator for user_options={wanted}",
    Why.MISSES_DEADLINE: "accept an end after {offered} (now {wanted})",
    Why.OVER_BUDGET: "raise the budget to {offered} (now {wanted})",
}

_NO_REGION = "ask its operator to say its region"


def remedy(task: WaitingTask, views: tuple[PoolView, ...]) -> str:
    """The smallest change, counted in things to change, that would let some pool take the task."""
    if not views:
        return "Join a site: `isthmus site join`."
    best = min(views, key=lambda view: sum(1 for _ in failures(task, view)))
    needed = [
        _NO_REGION
        if not best.region and failure.why in (Why.REGION_DENIED, Why.DATA_MAY_NOT_LEAVE)
        else _REMEDIES[failure.why].format(wanted=failure.wanted, offered=failure.offered)
        for failure in failures(task, best)
        if failure.why in _REMEDIES
    ]
    return f"To run at {best.site}/{best.pool.name}: {'; '.join(needed)}." if needed else ""
