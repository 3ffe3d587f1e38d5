"""The federation's way in: a joined workload, its sites and a router give each job's start and site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.placement.federation import CREDIT, TOLERANCE
from isthmus.twin.federation.core import run_federation

Router = Literal["isolated", "shortest-backlog", "holes"]
SitePolicy = Literal["fcfs", "easy", "easy-sjbf"]
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Jobs of all homes, one entry a job, in any order: whole seconds and processor counts.

    `home` is the number of the site where a job is submitted, and where its `input_bytes` are.
    """

    submit_seconds: Whole
    run_seconds: Whole
    processors: Whole
    requested_seconds: Whole
    home: Whole
    input_bytes: Whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Sites by number: processors each; and the network between them, where inputs have to move.

    `paths` (site x site x hops) holds numbers of links, -1 after the last; `latency_seconds` (site x site) is one way;
    `capacity_bytes_per_second` by link. Without a network, moving costs no time.
    """

    processors: Whole
    policies: tuple[SitePolicy, ...] = ("easy",)  # one for all sites, or one a site
    paths: Whole | None = None
    latency_seconds: NDArray[np.float64] | None = None
    capacity_bytes_per_second: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """By job, in the workload's order: start (seconds), site, arrival of its moved data (-1: none moved).

    `carried_bytes` by link.
    """

    start_seconds: Whole
    site: Whole
    data_seconds: Whole
    carried_bytes: NDArray[np.float64]


def federate(
    work: Workload,
    sites: Federation,
    router: Router,
    *,
    estimates: Whole | None = None,
    rational: bool = True,
    credit: float = CREDIT,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Run the workload: `isolated` keeps every job at home; `shortest-backlog` sends each at arrival to the least
    requested work per processor; `holes` is the rule of `isthmus.placement.federation`, with rows of rationality unless
    `rational` is false. `estimates` (seconds) stand for the requested times. Invalid names what cannot run.
    """
    size = sites.processors
    if router not in get_args(Router):
        raise Invalid("router", f"{router} is unknown.", remedy=f"Use one of {', '.join(get_args(Router))}.")
    policies = sites.policies * (len(size) if len(sites.policies) == 1 else 1)
    if len(policies) != len(size) or not set(policies) <= set(get_args(SitePolicy)):
        allowed = ", ".join(get_args(SitePolicy))
        raise Invalid("policies", f"{sites.policies} do not fit.", remedy=f"Give one, or one a site, of {allowed}.")
    if len(size) == 0 or (size < 1).any():
        raise Invalid("processors", "A site has no processors.", remedy="Give at least one a site.")
    estimate = work.requested_seconds if estimates is None else estimates
    _all("home", (work.home >= 0) & (work.home < len(size)), "have no such home")
    _all("run_seconds", work.run_seconds > 0, "run for less than a second")
    _all("estimates", estimate > 0, "have an estimate under a second")
    _all("processors", (work.processors > 0) & (work.processors <= size[work.home]), "do not fit on their home")
    if sites.paths is None or sites.latency_seconds is None or sites.capacity_bytes_per_second is None:
        if work.input_bytes.any():
            raise Invalid("paths", "Jobs have inputs, and there is no network.", remedy="Give links and paths.")
        network = (np.full((len(size), len(size), 1), -1), np.zeros((len(size), len(size))), np.zeros(0))
    else:
        network = (sites.paths, sites.latency_seconds, sites.capacity_bytes_per_second)
    order = np.argsort(work.submit_seconds, kind="stable")
    columns = (
        work.submit_seconds,
        work.run_seconds,
        work.processors,
        estimate,
        work.requested_seconds,
        work.home,
        work.input_bytes,
    )
    start, site, moved, carried = run_federation(
        *(np.ascontiguousarray(column[order], dtype=np.int64) for column in columns),
        np.asarray(size, dtype=np.int64),
        np.array([get_args(SitePolicy).index(policy) for policy in policies]),
        get_args(Router).index(router),
        rational,
        credit,
        tolerance,
        *network,
    )
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return Outcome(start_seconds=start[back], site=site[back], data_seconds=moved[back], carried_bytes=carried)


def _all(field: str, good: NDArray[np.bool_], cause: str) -> None:
    if not good.all():
        raise Invalid(field, f"{int((~good).sum())} jobs {cause}.", remedy="Leave them out first.")
