"""Rows of a queue that leave a site: bounded, and without names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.queue import QueuedJob
from isthmus.domain.site import SiteDescription
from isthmus.sites import wire
from isthmus.sites.batch.strangers import MOST_AT_SITE, MOST_IN_POOL, MOST_RUNNING, Anonymous, bounded


def _jobs(count: int, pool: str, *, running: bool) -> list[QueuedJob]:
    return [
        QueuedJob(id=f"{pool}{running}{n}", pools=(pool,), running=running, user="a" * 10, submitted_at=1.8e9 + n)
        for n in range(count)
    ]


def test_a_hash_tells_users_apart_and_cannot_be_looked_up() -> None:
    """One adapter gives a name one hash; another adapter gives it another; no name, no hash."""
    one, other = Anonymous(), Anonymous()
    assert one.hashed("ada") == one.hashed("ada") != one.hashed("bob")
    assert one.hashed("ada") != other.hashed("ada")
    assert "ada" not in one.hashed("ada")
    assert one.hashed("") == ""


def test_a_flood_of_waiting_jobs_does_not_hide_what_runs() -> None:
    """Of a pool at most so many rows are kept, the running ones among them; the rest is counted."""
    queue = bounded(0.0, [*_jobs(5000, "p", running=False), *_jobs(1500, "p", running=True)])
    assert len(queue.jobs) == MOST_IN_POOL
    assert sum(job.running for job in queue.jobs) == MOST_RUNNING
    assert queue.left_out == {"p": 6500 - MOST_IN_POOL}
    assert queue.jobs[0].id == "pFalse0", "the order in which the site serves them is kept"


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_short_queue_is_kept_whole(waiting: int, running: int) -> None:
    """Nothing is left out of what fits."""
    jobs = [*_jobs(waiting, "p", running=False), *_jobs(running, "q", running=True)]
    queue = bounded(0.0, jobs)
    assert list(queue.jobs) == jobs
    assert queue.left_out == {}


def test_the_largest_queue_of_a_site_travels_to_its_agent_and_back() -> None:
    """At most so many rows of all pools; they fit the wire many times over and come back the same."""
    queue = bounded(1.8e9, [job for n in range(9) for job in _jobs(1000, f"p{n}", running=n % 2 == 0)])
    assert len(queue.jobs) == MOST_AT_SITE
    sent = SiteDescription(kind="k", queue=queue)
    text = wire.encode_result("describe", sent)
    assert len(text) < wire.MAX_ANSWER_BYTES / 30
    assert wire.decode_answer("describe", text) == sent
