"""A site's visible queue: whose turn is when, without names. What forecasts of waiting are made from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """One job, of anybody, that runs or waits. Times are seconds since 1970 by the site's clock; `processors` are of all nodes.

    `user` tells users apart without naming them (see `sites.batch.strangers`). `expected_at` is when the site itself expects
    the job to start. A job that is `held` waits for something else than room: a dependency, its user, a date.
    """

    id: str
    pools: tuple[str, ...]  # a job that waits may go to any of them
    user: str = ""
    running: bool = False
    held: bool = False
    processors: int = 1
    limit_seconds: int | None = None
    submitted_at: float | None = None
    started_at: float | None = None
    expected_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedJob:
    """A job of a queue with the seconds that it is expected to run, or to run on: learned, or its limit."""

    id: str
    running: bool
    processors: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteQueue:
    """The jobs of a site at one moment `at` by its clock; those that wait in the order in which the site serves them.

    `left_out`: by pool, jobs beyond what was taken; they are in the pool's sums alone.
    """

    at: float
    jobs: tuple[QueuedJob, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
