"""The site operator's word on local accounts: jobs for others than `accounts_allowed` are Rejected at the site itself,
whatever the control plane asks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

from isthmus.domain.errors import Refused
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.site import SiteDescription
from isthmus.domain.usage import Usage
from isthmus.sites.port import (
    CollectOutcome,
    Job,
    JobRef,
    LogStream,
    Observation,
    Rejected,
    Site,
    StageOutcome,
    SubmitOutcome,
)

T = TypeVar("T", Job, JobRef)
log = logging.getLogger(__name__)


class AccountGuard:
    """A site that acts for some local accounts only; looking at jobs (find, observe, usage) changes nothing and is free.

    The empty account is the adapter's own and must be allowed like any other.
    """

    def __init__(self, site: Site, allowed: frozenset[str]) -> None:
        self._site = site
        self._allowed = allowed

    async def describe(self) -> SiteDescription:
        """The site's own."""
        return await self._site.describe()

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Stage jobs of allowed accounts, reject others."""
        ours, outcomes = self._part(jobs)
        return {**outcomes, **(await self._site.stage(ours) if ours else {})}

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Submit jobs of allowed accounts, reject others."""
        ours, outcomes = self._part(jobs)
        return {**outcomes, **(await self._site.submit(ours) if ours else {})}

    async def find(self, refs: Sequence[JobRef]) -> Mapping[str, tuple[str, ...]]:
        """The site's own."""
        return await self._site.find(refs)

    async def observe(self, refs: Sequence[JobRef]) -> Mapping[str, Observation]:
        """The site's own."""
        return await self._site.observe(refs)

    async def cancel(self, refs: Sequence[JobRef]) -> None:
        """Cancel jobs of allowed accounts; others are left alone."""
        if ours := self._ours(refs):
            await self._site.cancel(ours)

    async def let_go(self, refs: Sequence[JobRef]) -> None:
        """Let jobs of allowed accounts start; others are left alone."""
        if ours := self._ours(refs):
            await self._site.let_go(ours)

    async def cancel_native(self, native_ids: Sequence[str]) -> None:
        """The site's own."""
        await self._site.cancel_native(native_ids)

    async def logs(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """Logs of a job of an allowed account; Refused for others."""
        if ref.account not in self._allowed:
            raise Refused("The site's operator does not allow this job's account.")
        return await self._site.logs(ref, stream, offset, limit)

    async def collect(self, jobs: Sequence[Job]) -> Mapping[str, CollectOutcome]:
        """Collect from jobs of allowed accounts, reject others."""
        ours, outcomes = self._part(jobs)
        return {**outcomes, **(await self._site.collect(ours) if ours else {})}

    async def usage(self, refs: Sequence[JobRef]) -> Mapping[str, Usage]:
        """The site's own."""
        return await self._site.usage(refs)

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """Clean up after jobs of allowed accounts; others are left alone."""
        if ours := self._ours(refs):
            await self._site.clean(ours)

    async def close(self) -> None:
        """Close the site."""
        await self._site.close()

    def _part(self, jobs: Sequence[Job]) -> tuple[list[Job], dict[str, Rejected]]:
        ours = self._ours(jobs)
        kept = {job.key for job in ours}
        return ours, {job.key: _rejected(job) for job in jobs if job.key not in kept}

    def _ours(self, items: Sequence[T]) -> list[T]:
        ours = [item for item in items if item.account in self._allowed]
        if len(ours) < len(items):
            log.warning("%d jobs are for accounts that are not allowed here", len(items) - len(ours))
        return ours


def _rejected(job: Job) -> Rejected:
    account = f"the account {job.account!r}" if job.account else "the agent's own account"
    return Rejected(
        reason=EndReason.REJECTED_BY_SITE, message=f"The site's operator does not allow jobs for {account} here."
    )
