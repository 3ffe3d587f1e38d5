"""A kind of site that is this host, with every job at a low priority of the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from isthmus.data.port import BlobStore
from isthmus.domain.errors import Invalid
from isthmus.domain.task import Executor
from isthmus.sites.plain import LocalSite
from isthmus.sites.port import Job, StageOutcome


class NiceSite(LocalSite):
    """The local adapter with one more setting, and `nice` before each command."""

    KIND = "nice"
    CONFIG_HELP: ClassVar[dict[str, str]] = {
        **LocalSite.CONFIG_HELP,
        "niceness": "How much the jobs give way to others, 0 to 19 (19).",
    }

    def __init__(self, name: str, config: Mapping[str, Any], blobs: BlobStore) -> None:
        """Read the own setting, and leave the others to the local adapter, which checks them."""
        niceness = config.get("niceness", 19)
        if not isinstance(niceness, int) or isinstance(niceness, bool) or not 0 <= niceness <= 19:
            raise Invalid("niceness", f"{niceness!r} is not allowed.", remedy="Give a whole number from 0 to 19.")
        self._niceness = niceness
        super().__init__(name, {key: value for key, value in config.items() if key != "niceness"}, blobs)

    async def stage(self, jobs: Sequence[Job]) -> Mapping[str, StageOutcome]:
        """Stage the jobs with `nice` before each command that is not a container's."""
        return await super().stage([replace(job, steps=tuple(map(self._slower, job.steps))) for job in jobs])

    def _slower(self, step: Executor) -> Executor:
        if step.image or not step.command:
            return step
        return replace(step, command=("nice", "-n", str(self._niceness), *step.command))
