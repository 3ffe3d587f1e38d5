"""The jobs of everybody in a site's queue, bounded and without names: users become hashes that nobody can look up.

The salt is drawn when the adapter is made and never leaves it, so that a hash tells two users apart and no more; after a
restart the same user has another.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

from isthmus.domain.queue import QueuedJob, SiteQueue

MOST_IN_POOL, MOST_RUNNING, MOST_AT_SITE = 2000, 1000, 4000


class Anonymous:
    """Hashes of user names with one adapter's own salt."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def hashed(self, user: str) -> str:
        """Ten characters for a name; nothing for none."""
        return blake2b(user.encode(), key=self._salt, digest_size=5).hexdigest() if user else ""


def bounded(at: float, jobs: Iterable[QueuedJob]) -> SiteQueue:
    """The first jobs of each pool, in the order given: at most `MOST_IN_POOL`, of which at least so many running ones as
    there are up to `MOST_RUNNING`; the others are counted."""
    everything = list(jobs)
    running = Counter(pool for job in everything if job.running for pool in job.pools)
    room = {
        pool: {True: min(running[pool], MOST_RUNNING), False: MOST_IN_POOL - min(running[pool], MOST_RUNNING)}
        for pool in {pool for job in everything for pool in job.pools}
    }
    kept: list[QueuedJob] = []
    left_out: Counter[str] = Counter()
    for job in everything:
        if len(kept) < MOST_AT_SITE and any(room[pool][job.running] > 0 for pool in job.pools):
            kept.append(job)
            for pool in job.pools:
                room[pool][job.running] -= 1
        else:
            left_out.update(job.pools)
    return SiteQueue(at=at, jobs=tuple(kept), left_out=dict(left_out))
