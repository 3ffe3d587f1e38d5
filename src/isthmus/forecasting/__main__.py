"""Compiles what is compiled here and keeps it on disk: `python -m isthmus.forecasting`."""

from __future__ import annotations

import lightgbm  # noqa: F401 - a service without it must find out here

from isthmus.domain.queue import QueuedJob, SiteQueue
from isthmus.domain.site import Pool
from isthmus.forecasting.watching import FEW, SiteWatch


def main() -> None:
    """One short life of a queue that is full: every compiled function is called with the types that it is called with later."""
    pool, watch = Pool(name="p", cpus_per_node=1), SiteWatch()
    for look in range(FEW + 2):
        at = 60.0 * look
        jobs = [
            QueuedJob(
                id=str(number),
                pools=("p",),
                user="u",
                running=number <= look,
                limit_seconds=60,
                submitted_at=max(1.0, at - 30) if number == look + 1 else 60.0 * (number - 1) - 30,
                started_at=60.0 * number if number <= look else None,
            )
            for number in range(look, look + 2)
        ]
        watch.look(SiteQueue(at=at, jobs=tuple(jobs)), [pool])
    if watch.forecast("p", 1, 60) is None:
        raise SystemExit("nothing was learned")


if __name__ == "__main__":
    main()
