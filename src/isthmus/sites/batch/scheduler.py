"""What a batch kind must be able to ask of its scheduler; `BatchSite` makes a whole site of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from isthmus.domain.site import SiteDescription
from isthmus.sites.batch.rows import Answer, NativeJob, UsageAnswer
from isthmus.sites.port import Job, SubmitOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What one round of questions is about: the local account of each key, and the age in seconds of the oldest key."""

    owners: Mapping[str, str]
    age_seconds: int

    @property
    def accounts(self) -> tuple[str, ...]:
        """The local accounts, each once."""
        return tuple(sorted(set(self.owners.values())))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, each once."""
        return tuple(self.owners)


class Scheduler(Protocol):
    """One batch system. Every method may raise Unavailable: then nothing is known, except where said otherwise."""

    @property
    def has_accounting(self) -> bool:
        """Whether there is an accounting to ask, as far as is known yet."""
        ...

    async def queue(self, asking: Asking) -> tuple[Answer, float]:
        """What the queue knows, with one command, and the site's clock (seconds since 1970)."""
        ...

    async def records(self, asking: Asking) -> Answer:
        """What the accounting knows, with one command. An accounting that does not answer is an incomplete Answer."""
        ...

    async def usage(self, asking: Asking) -> UsageAnswer:
        """What the accounting counted, steps included, with one command."""
        ...

    async def by_id(self, native_ids: Sequence[str]) -> Sequence[NativeJob]:
        """The jobs in the queue with these ids; ids that it does not know are left out."""
        ...

    async def submit(
        self, account: str, jobs: Sequence[Job], directories: Mapping[str, str]
    ) -> dict[str, SubmitOutcome]:
        """Submit jobs of one account from their directories; never raises, an outcome for each key."""
        ...

    async def cancel(self, account: str, jobs: Sequence[NativeJob]) -> None:
        """End jobs of one account; those that have ended already are no error."""
        ...

    async def describe(self) -> SiteDescription:
        """Pools and their load now, version, features."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
