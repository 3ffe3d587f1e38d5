"""The attempts' directories at a site (layout: docs/architecture.md), in bulk, over any transport and account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isthmus.data.port import BlobStore
from isthmus.sites.port import Collected, Job, JobRef, LogStream, StageOutcome
from isthmus.sites.settings import Settings
from isthmus.sites.traces import Trace
from isthmus.sites.transport import Transport

WORKSPACE_HELP: Final[dict[str, str]] = {
    "root": "Directory at the site for attempts and cached content; ~ and {account} are filled in (~/.isthmus).",
    "images": 'How container images are satisfied: {"GLOB": "host" | "pull" | "/path/at/site"}, first match wins.',
    "network": "Network of containers: none or host (none).",
    "grace_seconds": "Seconds between TERM and KILL when a job is cancelled or over its time (10).",
}


class Workspace:
    """All that is the same for every scheduler: directories, wrapper, inputs, claims, results, logs, outputs."""

    def __init__(
        self, transport: Transport, blobs: BlobStore, settings: Settings, *, site: str, enforce_walltime: bool = False
    ) -> None:
        """`enforce_walltime`: the wrapper itself ends a job that is over its time (the fork scheduler has no other)."""
        raise NotImplementedError

    async def root(self, account: str) -> str:
        """Absolute path of the account's root at the site; it is made when needed. Unavailable when it cannot be."""
        raise NotImplementedError

    async def attempt_directory(self, account: str, key: str) -> str:
        """Absolute path of an attempt's directory; the job's script is `job.sh` in it, for scheduler output use
        `scheduler.out` in it. Invalid for a key that is none."""
        raise NotImplementedError

    async def stage(self, jobs: Sequence[Job]) -> dict[str, StageOutcome]:
        """What Site.stage promises. An attempt that is staged already is left alone."""
        raise NotImplementedError

    async def traces(self, refs: Sequence[JobRef]) -> dict[str, Trace]:
        """Claims and results of many attempts with one command for each account; a Trace for every key. Unavailable
        when the root does not answer or is not the one it was. A key whose account never staged anything here has no
        entry: nothing is known of it."""
        raise NotImplementedError

    async def mark_cancelled(self, refs: Sequence[JobRef]) -> None:
        """Note that the user cancelled, so that the wrapper says so when it is ended, and does not start if it has not."""
        raise NotImplementedError

    async def log(self, ref: JobRef, stream: LogStream, offset: int, limit: int) -> bytes:
        """What Site.logs promises."""
        raise NotImplementedError

    async def collect(self, job: Job) -> Collected:
        """What Site.collect promises."""
        raise NotImplementedError

    async def clean(self, refs: Sequence[JobRef]) -> None:
        """What Site.clean promises."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of local scratch space; the transport is the adapter's to close."""
        raise NotImplementedError
