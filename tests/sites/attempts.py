"""Attempts for tests of real sites: made, run to an end, and looked at, with a deadline on every wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from isthmus.domain.ids import make_id
from isthmus.domain.task import Demand, Executor
from isthmus.sites.port import Job, JobRef, Observation, Sighting, Site, Staged, Submitted

DEADLINE_SECONDS = 60.0
T = TypeVar("T")


def make_job(
    script: str, *, pool: str, account: str = "", demand: Demand | None = None, native: dict[str, str] | None = None
) -> Job:
    """An attempt that runs a shell script, with a fresh key."""
    return Job(
        key=make_id(int(time.time() * 1000), os.urandom(10)),
        fence=7,
        task_id=make_id(0, os.urandom(10)),
        name="test",
        pool=pool,
        demand=demand or Demand(memory_bytes=64 * 1024**2, walltime_seconds=600),
        steps=(Executor(command=("/bin/sh", "-c", script)),),
        account=account,
        native=native or {},
    )


def ref_of(job: Job) -> JobRef:
    """The reference of an attempt whose submission's answer nobody knows."""
    return JobRef(key=job.key, account=job.account, pool=job.pool, fence=job.fence)


async def stage(site: Site, *jobs: Job) -> None:
    """Stage jobs and insist that it worked."""
    outcomes = await site.stage(jobs)
    assert all(isinstance(outcomes[job.key], Staged) for job in jobs), outcomes


async def start(site: Site, *jobs: Job) -> dict[str, str]:
    """Stage and submit jobs and insist that it worked; returns their native ids by key."""
    await stage(site, *jobs)
    outcomes = await site.submit(jobs)
    ids = {key: outcome.native_id for key, outcome in outcomes.items() if isinstance(outcome, Submitted)}
    assert set(ids) == {job.key for job in jobs}, outcomes
    return ids


async def until(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = DEADLINE_SECONDS) -> T:
    """Look again and again until it is good; fails with the last look when the seconds are over."""
    end = time.monotonic() + seconds
    while True:
        seen = await look()
        if good(seen):
            return seen
        assert time.monotonic() < end, f"not in {seconds} s: {seen}"
        await asyncio.sleep(0.3)


async def sighted(site: Site, job: Job, *sightings: Sighting, seconds: float = DEADLINE_SECONDS) -> Observation:
    """Wait until one job is seen in one of the ways."""

    async def look() -> Observation:
        return (await site.observe([ref_of(job)]))[job.key]

    return await until(look, lambda seen: seen.sighting in sightings, seconds)


async def ended(site: Site, *jobs: Job, seconds: float = DEADLINE_SECONDS) -> list[Observation]:
    """Wait until all jobs have ended; returns how, in their order."""
    refs = [ref_of(job) for job in jobs]

    async def look() -> Sequence[Observation]:
        seen = await site.observe(refs)
        return [seen[job.key] for job in jobs]

    return list(await until(look, lambda seen: all(one.sighting is Sighting.ENDED for one in seen), seconds))
