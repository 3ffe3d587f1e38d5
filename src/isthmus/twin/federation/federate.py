"""The federation's way in: a joined workload, its sites and a router give each job's start and site.

`federate` takes all jobs at once; `Stream` takes them in pieces, in order of time, and holds only those that are not over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.placement.federation import CREDIT, TOLERANCE
from isthmus.twin.federation.away import make_away
from isthmus.twin.federation.core import advance
from isthmus.twin.federation.world import World, ended, first_world, renewed
from isthmus.twin.schedulers.outages import Outage

Router = Literal["isolated", "shortest-backlog", "holes"]
SitePolicy = Literal["fcfs", "easy", "easy-sjbf"]
Whole = NDArray[np.int64]
PIECE = 16_384  # jobs that are taken in at a time: their tables stay in the processor's cache


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

    def __len__(self) -> int:
        return len(self.home)

    @classmethod
    def joined(cls, parts: Sequence[Workload]) -> Workload:
        """The jobs of all, one part after the other."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def take(self, index: Any) -> Workload:
        """The jobs at an index (numbers, a mask, a slice), in its order."""
        return Workload(**{name: getattr(self, name)[index] for name in Workload.__dataclass_fields__})


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
    outages: tuple[tuple[int, Outage], ...] = ()  # by number of site; rationality compares with sites that never fail


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """By job, in the workload's order: start (seconds), site, arrival of its moved data (-1: none moved).

    `carried_bytes` by link. Attempts that outages ended, and the processor seconds that went with them.
    """

    start_seconds: Whole
    site: Whole
    data_seconds: Whole
    carried_bytes: NDArray[np.float64]
    lost_attempts: int = 0
    lost_processor_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Jobs that ended: the jobs, their numbers over all pieces in order of submission, and what `Outcome` says of them."""

    jobs: Workload
    serial: Whole
    start_seconds: Whole
    site: Whole
    data_seconds: Whole

    def __len__(self) -> int:
        return len(self.serial)


class Stream:
    """A federation that takes its arrivals piece by piece; the same schedule, to the second, as with all at once."""

    def __init__(
        self,
        sites: Federation,
        router: Router,
        *,
        rational: bool = True,
        credit: float = CREDIT,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Idle sites; Invalid names what is wrong with them. The arguments are those of `federate`."""
        size = sites.processors
        if router not in get_args(Router):
            raise Invalid("router", f"{router} is unknown.", remedy=f"Use one of {', '.join(get_args(Router))}.")
        modes = modes_of(sites)
        self._size = size
        self._router = get_args(Router).index(router)
        self._rules = (rational, credit, tolerance)
        self._book = router == "holes" and rational
        self._linked = sites.paths is not None
        if sites.paths is None or sites.latency_seconds is None or sites.capacity_bytes_per_second is None:
            network = (np.full((len(size), len(size), 1), -1), np.zeros((len(size), len(size))), np.zeros(0))
        else:
            network = (sites.paths, sites.latency_seconds, sites.capacity_bytes_per_second)
        self._world: World = first_world(np.asarray(size, dtype=np.int64), modes, *network, make_away(sites.outages))
        self._seen = -(2**62)

    @property
    def held(self) -> int:
        """Jobs that it holds now: those that wait, run, or are not yet booked for their home."""
        return len(self._world.home)

    @property
    def carried_bytes(self) -> NDArray[np.float64]:
        """By link, so far."""
        carried: NDArray[np.float64] = self._world.flows.carried.copy()
        return carried

    @property
    def lost(self) -> tuple[int, int]:
        """Attempts that outages ended, and their processor seconds, so far."""
        return int(self._world.away.told[2]), int(self._world.away.told[3])

    def feed(self, work: Workload, *, estimates: Whole | None = None, last: bool = False) -> Ended:
        """Take the next arrivals, none before those of an earlier piece; what ended since the last call.

        With `last` the clock runs until every job has ended; otherwise until the last of these arrives.
        """
        estimate = work.requested_seconds if estimates is None else estimates
        self._check(work, estimate)
        order = np.argsort(work.submit_seconds, kind="stable")
        columns = (
            work.submit_seconds, work.run_seconds, work.processors, estimate, work.requested_seconds, work.home,
            work.input_bytes,
        )  # fmt: skip
        ordered = [np.ascontiguousarray(column[order], dtype=np.int64) for column in columns]
        if len(order):
            self._seen = int(ordered[0][-1])
        told = []
        for begin in range(0, max(len(order), 1), PIECE):
            piece = [column[begin : begin + PIECE] for column in ordered]
            told.append(self._feed(piece, last and begin + PIECE >= len(order)))
        return told[0] if len(told) == 1 else _joined(told)

    def _feed(self, columns: list[Whole], last: bool) -> Ended:
        self._world = world = renewed(self._world, self._book, *columns)
        advance(world, self._router, *self._rules, last)
        over = ended(world)
        rows = world.state.jobs[over]
        jobs = Workload(
            submit_seconds=rows["submit"],
            run_seconds=rows["run"],
            processors=rows["width"],
            requested_seconds=rows["request"],
            home=world.home[over],
            input_bytes=world.size[over],
        )
        return Ended(
            jobs=jobs,
            serial=world.serial[over],
            start_seconds=rows["start"],
            site=world.where[over],
            data_seconds=world.moved_at[over],
        )

    def _check(self, work: Workload, estimate: Whole) -> None:
        size = self._size
        _all("home", (work.home >= 0) & (work.home < len(size)), "have no such home")
        _all("run_seconds", work.run_seconds > 0, "run for less than a second")
        _all("estimates", estimate > 0, "have an estimate under a second")
        _all("processors", (work.processors > 0) & (work.processors <= size[work.home]), "do not fit on their home")
        _all("submit_seconds", work.submit_seconds >= self._seen, "come before those of an earlier piece")
        if not self._linked and work.input_bytes.any():
            raise Invalid("paths", "Jobs have inputs, and there is no network.", remedy="Give links and paths.")


def modes_of(sites: Federation) -> Whole:
    """The number of each site's scheduler; Invalid names what is wrong with the sites."""
    size = sites.processors
    policies = sites.policies * (len(size) if len(sites.policies) == 1 else 1)
    if len(policies) != len(size) or not set(policies) <= set(get_args(SitePolicy)):
        allowed = ", ".join(get_args(SitePolicy))
        raise Invalid("policies", f"{sites.policies} do not fit.", remedy=f"Give one, or one a site, of {allowed}.")
    if len(size) == 0 or (size < 1).any():
        raise Invalid("processors", "A site has no processors.", remedy="Give at least one a site.")
    return np.array([get_args(SitePolicy).index(policy) for policy in policies])


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
    stream = Stream(sites, router, rational=rational, credit=credit, tolerance=tolerance)
    done = stream.feed(work, estimates=estimates, last=True)
    number = np.argsort(work.submit_seconds, kind="stable")[done.serial]
    columns = [np.empty(len(number), dtype=np.int64) for _ in range(3)]
    for column, values in zip(columns, (done.start_seconds, done.site, done.data_seconds), strict=True):
        column[number] = values
    attempts, seconds = stream.lost
    return Outcome(
        start_seconds=columns[0],
        site=columns[1],
        data_seconds=columns[2],
        carried_bytes=stream.carried_bytes,
        lost_attempts=attempts,
        lost_processor_seconds=seconds,
    )


def _joined(told: list[Ended]) -> Ended:
    columns = {
        name: np.concatenate([getattr(one, name) for one in told])
        for name in Ended.__dataclass_fields__
        if name != "jobs"
    }
    return Ended(jobs=Workload.joined([one.jobs for one in told]), **columns)


def _all(field: str, good: NDArray[np.bool_], cause: str) -> None:
    if not good.all():
        raise Invalid(field, f"{int((~good).sum())} jobs {cause}.", remedy="Leave them out first.")
