"""The real agent over a FileSite, in a process of its own that kills itself once at a chosen point of a submission.

python -m tests.agent.killable ROOT POINT --url ... --state ... --site-config ... --enrol-token-file ...
POINT: never | before_run | after_run | after_journal | after_send. ROOT/killed says that it happened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.agent import main as agent_main
from isthmus.agent.config import SiteConfig
from isthmus.agent.journal import Journal
from isthmus.agent.link import Link
from isthmus.agent.service import AgentSettings
from isthmus.data.port import BlobStore
from isthmus.sites.port import Job, SubmitOutcome
from tests.agent.filesite import FileSite

ROOT, POINT = Path(sys.argv[1]), sys.argv[2]


def die(point: str) -> None:
    """Kill this process, once, when it was told to at this point."""
    if point != POINT:
        return
    try:
        (ROOT / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class KilledSite(FileSite):
    """Dies around a submission."""

    async def submit(self, jobs: Sequence[Job]) -> Mapping[str, SubmitOutcome]:
        """Submit, or die before or after it."""
        die("before_run")
        outcomes = await super().submit(jobs)
        die("after_run")
        return outcomes


class KilledJournal(Journal):
    """Dies once the answer is on disk."""

    async def answered(self, call_id: str, answer: str) -> None:
        """Write the answer, then die."""
        await super().answered(call_id, answer)
        if "submitted" in answer:
            die("after_journal")


class KilledLink(Link):
    """Dies once the answer was acknowledged, before that is on disk."""

    async def answer(self, call_id: str, answer: str) -> None:
        """Send the answer, then die."""
        await super().answer(call_id, answer)
        if "submitted" in answer:
            die("after_send")


def make_site(config: SiteConfig, name: str, blobs: BlobStore) -> FileSite:
    """The site that dies."""
    assert config.kind == "file"
    return KilledSite(ROOT, blobs)


if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stderr)
    agent_main.Journal = KilledJournal  # type: ignore[misc]
    agent_main.Link = KilledLink  # type: ignore[misc]
    arguments = agent_main.parser().parse_args(sys.argv[3:])
    settings = AgentSettings(wait_seconds=5.0, most_pause=0.5, first_pause=0.1, stop_grace=5.0)
    asyncio.run(agent_main.serve(arguments, make_site=make_site, settings=settings))
