"""What the queues of simulated sites teach of waiting: the service's own `SiteWatch`, shown each queue as an agent would show it.

As in production a site is looked at every ten seconds while something changes there, and rounds get forecasts by kind of job
(`domain.waiting`). Only the bound on the seconds that a look or a round may cost is missing: it would make runs unlike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.domain.placement import Estimate, Snapshot, WaitingTask
from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.domain.waiting import Kind, WaitTable, kind_of
from isthmus.forecasting.watching import SiteWatch
from isthmus.twin.federation.batches import running_at, waiting_at
from isthmus.twin.federation.surroundings import POOL

LOOK_SECONDS = 10  # between two looks while something changes
QUIET_SECONDS = 300  # between two looks while nothing does


class QueueWatch:
    """The watches of all sites; `users` by job, `handed_at` by job: when it was handed to its site."""

    def __init__(self, sites: int, users: NDArray[np.int64], handed_at: NDArray[np.int64]) -> None:
        """Nothing seen yet."""
        self._watches = [SiteWatch() for _ in range(sites)]
        self._tables: list[dict[Kind, Estimate]] = [{} for _ in range(sites)]
        self._users, self._handed_at = users, handed_at
        self._found = np.empty(max(len(users), 1), dtype=np.int64)

    def look(self, state: Any, snapshot: Snapshot) -> None:
        """Take in every site's queue."""
        for site, watch in enumerate(self._watches):
            waiting = self._found[: waiting_at(state, site, self._found)].tolist()
            running = self._found[: running_at(state, site, self._found)].tolist()
            rows = [self._row(state, job, running=True) for job in running]
            rows += [self._row(state, job, running=False) for job in waiting]
            watch.look(SiteQueue(at=snapshot.now, jobs=tuple(rows)), (snapshot.pools[site].pool,))
            if watch.due:
                watch.train()
            self._tables[site] = {}

    def into(self, snapshot: Snapshot, tasks: Iterable[WaitingTask]) -> Snapshot:
        """The snapshot with what was learned of waiting."""
        kinds = {kind_of(task.demand.cpus_per_node * task.demand.nodes, task.demand.walltime_seconds) for task in tasks}
        views = []
        for site, view in enumerate(snapshot.pools):
            table = self._tables[site]
            for kind in sorted(kinds - table.keys()):
                found = self._watches[site].forecast(POOL, min(kind[0], view.pool.cpus), kind[1])
                if found is not None:
                    table[kind] = found.estimate()
            views.append(replace(view, waits=WaitTable(dict(table))) if table else view)
        return replace(snapshot, pools=tuple(views))

    def _row(self, state: Any, job: int, *, running: bool) -> QueuedJob:
        row = state.jobs[job]
        return QueuedJob(
            id=str(job),
            pools=(POOL,),
            user=str(self._users[job]),
            running=running,
            processors=int(row["width"]),
            limit_seconds=int(row["request"]),
            submitted_at=float(self._handed_at[job]),
            started_at=float(row["start"]) if running else None,
        )
