"""A scheduler is asked at most twice in an interval, whoever asks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.sites.batch.pace import QUERIES, Pace
from isthmus.sites.batch.site import BatchSite
from isthmus.sites.slurm.scheduler import SlurmCommands
from isthmus.sites.transport import CommandResult
from tests.sites.attempts import make_job, ref_of

INTERVAL = 0.4


@dataclass
class _Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, QUERIES)), max_size=40), st.floats(0.1, 3))
def test_no_window_holds_more_than_two(asked: list[tuple[float, int]], seconds: float) -> None:
    """Whatever comes when, a third start is an interval after the first."""
    clock = _Clock()
    pace = Pace(seconds, monotonic=clock.monotonic, sleep=clock.sleep)
    starts: list[float] = []

    async def run() -> None:
        for pause, count in asked:
            clock.now += pause
            await pace.take(count)
            starts.extend([clock.now] * count)

    asyncio.run(run())
    assert len(starts) == sum(count for _, count in asked)
    assert all(later >= first + seconds for first, later in zip(starts, starts[QUERIES:], strict=False))


@dataclass
class _Counting:
    """A transport that notes when each query command began."""

    clock: _Clock
    own_account: str = "operator"
    place: str = "here"
    starts: list[float] = field(default_factory=list)

    async def run(self, argv: Any, *, stdin: bytes, **_: Any) -> CommandResult:
        count = stdin.count(b"#isthmus-end")
        self.starts.extend([self.clock.now] * count)
        return CommandResult(exit_code=0, stdout=b"\n#isthmus-end 0 1795704300\n" * count, stderr=b"")


class _Files:
    async def features(self) -> frozenset[str]:
        return frozenset()

    async def traces(self, refs: Any) -> dict[str, Any]:
        return {}

    async def mark_cancelled(self, refs: Any) -> None:
        return None


async def test_looks_of_all_kinds_share_the_two_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observing, accounting, describing, finding and cancelling at once still ask squeue, sacct, sinfo and scontrol at most
    twice in an interval."""
    clock = _Clock()
    monkeypatch.setattr(
        "isthmus.sites.slurm.scheduler.Pace",
        lambda seconds: Pace(seconds, monotonic=clock.monotonic, sleep=clock.sleep),
    )
    transport = _Counting(clock)
    scheduler = SlurmCommands(transport, query_seconds=INTERVAL)  # type: ignore[arg-type]
    site = BatchSite("x", transport=transport, workspace=_Files(), scheduler=scheduler, describe_seconds=0.1)  # type: ignore[arg-type]
    refs = [ref_of(make_job("true", pool="p")) for _ in range(1000)]
    await asyncio.gather(site.observe(refs), site.usage(refs), site.describe(), site.find(refs), site.cancel(refs))
    starts = transport.starts
    assert len(starts) >= 8
    assert all(later >= first + INTERVAL for first, later in zip(starts, starts[QUERIES:], strict=False))
