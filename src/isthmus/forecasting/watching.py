"""One site's queues, watched look by look: what jobs of anybody took and how long they waited teaches how long the next will.

A look is the site's visible queue at one moment. Between two looks jobs come, start and end; each is a lesson. The run
times of strangers' jobs are learned by a `RunTimeModel` of the site, the waits by a `WaitModel` of each pool, which sees the
queue as it was at the last look before the job came: as a forecast would have seen it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isthmus.domain.queue import ExpectedJob, QueuedJob, SiteQueue
from isthmus.domain.site import Pool
from isthmus.forecasting.choosing import Training
from isthmus.forecasting.condensing import Job, view_of
from isthmus.forecasting.forecast import Forecast, Source
from isthmus.forecasting.queueview import QueueView
from isthmus.forecasting.runtime import RunRecord, RunRequest, RunTimeModel
from isthmus.forecasting.waits import WaitModel, WaitRequest

GAP_SECONDS = 600.0  # of a longer time between two looks nothing is learned
MOST_LESSONS, MOST_BELIEFS = (
    20,
    200,
)  # of new jobs at one look, for each pool and for the site: a forecast costs milliseconds
FEW = 30  # outcomes before a pool's forecast counts as learned
UNLIMITED_SECONDS = 30 * 86400
RUNS = Training(first=200, step=2000, rows=60_000, trees=80, leaves=31, least_in_leaf=50)
WAITS = Training(first=200, step=1000, rows=40_000, trees=60, leaves=15, least_in_leaf=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """A job that was seen to start and to end; times in seconds since 1970 by the site's clock, the end to half a look."""

    id: str
    pool: str
    user: str
    processors: int
    limit_seconds: int
    submitted_at: float
    started_at: float
    ended_at: float


@dataclass(slots=True)
class _Pool:
    model: WaitModel
    shares: deque[float]  # of their limit that ended jobs used
    outcomes: int = 0
    view: QueueView | None = None


class SiteWatch:
    """The looks at one site, in their order. `forecast` changes nothing and may be called while it trains; nothing else may."""

    def __init__(self, runs: Training = RUNS, waits: Training = WAITS) -> None:
        """Nothing seen yet."""
        self._training = waits
        self._runs = RunTimeModel(runs)
        self._pools: dict[str, _Pool] = {}
        self._sizes: Mapping[str, Pool] = {}
        self._left_out: Mapping[str, int] = {}
        self._rows: dict[str, QueuedJob] = {}
        self._beliefs: dict[str, Forecast] = {}
        self._at: float | None = None

    def look(self, queue: SiteQueue, pools: Iterable[Pool]) -> list[EndedJob]:
        """Take in one look; answers the jobs that ended since the last one."""
        before, self._at = self._at, queue.at
        fresh = before is not None and 0 <= queue.at - before <= GAP_SECONDS
        rows = {job.id: job for job in queue.jobs}
        ended = self._gone(rows, before, queue) if fresh and before is not None else []
        if not fresh:
            for known in self._pools.values():
                known.model.forget()
        if fresh and before is not None:
            self._learn_of(rows, before)
        self._sizes = {pool.name: pool for pool in pools}
        self._rows, self._left_out = rows, queue.left_out
        for known in self._pools.values():
            known.view = None
        self._believe()
        return ended

    def replay(self, ended: Sequence[EndedJob], pools: Iterable[Pool]) -> None:
        """Learn from jobs that an earlier watch saw, before the first look. They are all that is known of their queue."""
        self._sizes = {pool.name: pool for pool in pools}
        events = sorted(
            [(job.submitted_at, 2, job) for job in ended]
            + [(job.started_at, 1, job) for job in ended]
            + [(job.ended_at, 0, job) for job in ended],
            key=lambda event: (event[0], event[1], event[2].id),
        )
        for at, kind, job in events:
            self._at = at
            row = QueuedJob(
                id=job.id,
                pools=(job.pool,),
                user=job.user,
                processors=job.processors,
                limit_seconds=job.limit_seconds,
                submitted_at=job.submitted_at,
            )
            if kind == 2:
                self._lesson(row)
                self._rows[job.id] = row
                self._beliefs[job.id] = self._runs.predict(_request(row))
            elif job.id in self._rows and kind == 1:
                self._rows[job.id] = replace(row, running=True, started_at=at)
                self._started(job.pool, job.id, at - job.submitted_at)
            elif job.id in self._rows:
                self._ended(self._rows.pop(job.id), at)
            for known in self._pools.values():
                known.view = None
        self._rows, self._at = {}, None

    def forecast(self, pool: str, processors: int, limit_seconds: int) -> Forecast | None:
        """The wait in seconds of a job that came now; None before enough was learned of the pool, or where it does not fit."""
        known, size = self._pools.get(pool), self._sizes.get(pool)
        if known is None or size is None or known.outcomes < FEW or self._at is None or processors > size.cpus:
            return None
        job = QueuedJob(id="", pools=(pool,), processors=processors, limit_seconds=limit_seconds, submitted_at=self._at)
        found = known.model.predict(self._asks(job, pool), self._view(pool, job))
        return replace(found, source=Source.LEARNED)

    def expected(self, pool: str) -> list[ExpectedJob]:
        """The pool's queue as last seen, in the site's order, what is held left out; each with the seconds that it is expected to run."""
        now = self._at or 0.0
        found = []
        for job in self._rows.values():
            if pool not in job.pools or job.held:
                continue
            ran = max(0.0, now - job.started_at) if job.running and job.started_at is not None else 0.0
            most = max(0.0, (job.limit_seconds or UNLIMITED_SECONDS) - ran)
            seconds = min(most, max(self._belief(job, pool).point - ran, 0.1 * ran))
            found.append(ExpectedJob(id=job.id, running=job.running, processors=job.processors, seconds=seconds))
        return found

    @property
    def due(self) -> bool:
        """Whether something would learn from training now."""
        return self._runs.due or any(known.model.due for known in self._pools.values())

    def train(self) -> None:
        """Grow new trees where they are due; takes up to seconds of one processor."""
        if self._runs.due:
            self._runs.train()
        for known in self._pools.values():
            if known.model.due:
                known.model.train()

    def outcomes(self, pool: str) -> int:
        """How many waits at the pool were learned from."""
        return self._pools[pool].outcomes if pool in self._pools else 0

    # --- what a look teaches ------------------------------------------------------------------------------------------

    def _gone(self, rows: Mapping[str, QueuedJob], before: float, queue: SiteQueue) -> list[EndedJob]:
        """Jobs of the last look that are in no row any more: they ended, or left the queue without starting."""
        found: list[EndedJob] = []
        for job in [job for job in self._rows.values() if job.id not in rows]:
            if not job.running:
                for pool in job.pools:
                    self._pool(pool).model.dropped(job.id)
            elif job.started_at is not None and not queue.left_out.get(job.pools[0]):
                ended_at = max(job.started_at + 1, (before + queue.at) / 2)
                if queue.at - before <= max(60.0, 0.2 * (ended_at - job.started_at)):
                    found.append(self._ended(job, ended_at))
            self._beliefs.pop(job.id, None)
        return found

    def _learn_of(self, rows: Mapping[str, QueuedJob], before: float) -> None:
        """Waits that ended, and new jobs whose wait will."""
        new: dict[str, list[QueuedJob]] = {}
        for job in rows.values():
            was = self._rows.get(job.id)
            if was is not None and job.held and not was.held:
                for pool in job.pools:
                    self._pool(pool).model.dropped(job.id)
            elif was is not None and job.running and not was.running and len(was.pools) == 1:
                self._started(was.pools[0], job.id, _waited(job))
            elif was is None and not job.held and len(job.pools) == 1 and (job.submitted_at or 0.0) > before:
                new.setdefault(job.pools[0], []).append(job)
        for pool, jobs in new.items():
            stride = -(-len(jobs) // MOST_LESSONS)
            for index, job in enumerate(sorted(jobs, key=lambda one: (one.submitted_at or 0.0, one.id))):
                if index % stride == 0 and self._lesson(job) and job.running:
                    self._started(pool, job.id, _waited(job))
                # What came before in the same look is ahead of the next, and, running or not, holds its part.
                self._rows[job.id] = job
                self._pool(pool).view = None

    def _lesson(self, job: QueuedJob) -> bool:
        """Note what is forecast for a job, from the queue without it."""
        pool, size = job.pools[0], self._sizes.get(job.pools[0])
        if size is None or job.processors > size.cpus:
            return False
        self._pool(pool).model.submitted(job.id, self._asks(job, pool), self._view(pool, job))
        return True

    def _started(self, pool: str, job_id: str, waited: float | None) -> None:
        known = self._pool(pool)
        if waited is None:
            known.model.dropped(job_id)
        elif known.model.awaits(job_id):
            known.model.started(job_id, waited)
            known.outcomes += 1

    def _ended(self, job: QueuedJob, at: float) -> EndedJob:
        began = job.started_at if job.started_at is not None else at
        seconds = max(1.0, at - began)
        limit = job.limit_seconds or UNLIMITED_SECONDS
        if job.limit_seconds:
            self._pool(job.pools[0]).shares.append(min(1.0, seconds / limit))
        record = RunRecord(request=_request(job), run_seconds=seconds, ended_at=at, forecast=self._beliefs.get(job.id))
        self._runs.observe(record)
        return EndedJob(
            id=job.id,
            pool=job.pools[0],
            user=job.user,
            processors=job.processors,
            limit_seconds=limit,
            submitted_at=job.submitted_at if job.submitted_at is not None else began,
            started_at=began,
            ended_at=at,
        )

    # --- what is believed ---------------------------------------------------------------------------------------------

    def _pool(self, name: str) -> _Pool:
        known = self._pools.get(name)
        if known is None:
            known = self._pools[name] = _Pool(WaitModel(self._training), deque(maxlen=500))
        return known

    def _believe(self) -> None:
        """Forecast the run times of jobs that are new, as many as a look may cost; the others count by their limit."""
        left = MOST_BELIEFS
        for job in self._rows.values():
            if job.id not in self._beliefs and left:
                self._beliefs[job.id] = self._runs.predict(_request(job))
                left -= 1
        if len(self._beliefs) > 2 * len(self._rows) + MOST_BELIEFS:
            self._beliefs = {job_id: self._beliefs[job_id] for job_id in self._rows if job_id in self._beliefs}

    def _belief(self, job: QueuedJob, pool: str) -> Forecast:
        """What is believed of a job's run time: its forecast, else the part of their limits that the pool's jobs used."""
        found = self._beliefs.get(job.id)
        if found is not None and found.source is Source.LEARNED:
            return found
        limit, shares = float(job.limit_seconds or UNLIMITED_SECONDS), self._pool(pool).shares
        if len(shares) < FEW:
            return Forecast(point=limit, p10=0.0, p50=limit, p90=limit, source=Source.DECLARED)
        p10, p50, p90 = (max(1.0, limit * share) for share in np.quantile(shares, (0.1, 0.5, 0.9)).tolist())
        return Forecast(point=p50, p10=p10, p50=p50, p90=p90, source=Source.LEARNED)

    def _asks(self, job: QueuedJob, pool: str) -> WaitRequest:
        return WaitRequest(
            processors=job.processors,
            requested_seconds=job.limit_seconds or UNLIMITED_SECONDS,
            submitted_at=job.submitted_at or 0.0,
            run=self._belief(job, pool),
        )

    def _view(self, pool: str, asks: QueuedJob) -> QueueView:
        """The pool's queue as it was last seen, with the start that the site expects of the job most like the one that asks."""
        known, now = self._pool(pool), self._at or 0.0
        here = [job for job in self._rows.values() if pool in job.pools and not job.held]
        if known.view is None:
            known.view = view_of(
                self._sizes[pool],
                [self._job(job, pool, now) for job in here if job.running],
                [self._job(job, pool, now) for job in here if not job.running],
                left_out=self._left_out.get(pool, 0),
            )
        view = known.view
        if asks.processors > view.processors:
            view = replace(view, processors=asks.processors)
        expected = [job for job in here if job.expected_at is not None]
        if not expected:
            return view
        like = min(expected[::-1], key=lambda job: _apart(job, asks))
        return replace(view, site_forecast_seconds=max(0.0, (like.expected_at or now) - now))

    def _job(self, job: QueuedJob, pool: str, now: float) -> Job:
        return Job(
            processors=job.processors,
            elapsed_seconds=int(max(0.0, now - job.started_at)) if job.started_at is not None else 0,
            requested_seconds=job.limit_seconds or UNLIMITED_SECONDS,
            run=self._belief(job, pool),
        )


def _waited(job: QueuedJob) -> float | None:
    if job.started_at is None or job.submitted_at is None:
        return None
    return max(0.0, job.started_at - job.submitted_at)


def _request(job: QueuedJob) -> RunRequest:
    return RunRequest(
        user=job.user,
        processors=max(1, job.processors),
        requested_seconds=max(1, job.limit_seconds or UNLIMITED_SECONDS),
        submitted_at=job.submitted_at if job.submitted_at is not None else job.started_at or 0.0,
        pool=job.pools[0],
    )


def _apart(one: QueuedJob, other: QueuedJob) -> float:
    wide = abs(np.log(max(1, one.processors) / max(1, other.processors)))
    long = abs(np.log((one.limit_seconds or UNLIMITED_SECONDS) / (other.limit_seconds or UNLIMITED_SECONDS)))
    return float(wide + long)
