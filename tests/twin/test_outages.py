"""Schedulers that plan anew: as the others where nothing fails; and what failures, repairs and drains do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import simulate
from isthmus.twin.schedulers.outages import Outage, replan


@dataclass(frozen=True)
class Log:
    submit_seconds: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    requested_processors: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]


def jobs(*rows: tuple[int, int, int, int]) -> Log:
    """Jobs of (submit, run, processors, requested seconds)."""
    return Log(*np.array(rows, dtype=np.int64).T.copy())


JOB = st.tuples(st.integers(0, 5000), st.integers(1, 900), st.integers(1, 8), st.integers(0, 900))
OUTAGE = st.builds(
    lambda begin, length, processors, drain: Outage(
        begin_seconds=begin, finish_seconds=begin + length, processors=processors, drain=drain
    ),
    st.integers(0, 4000),
    st.integers(1, 2000),
    st.integers(1, 10),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(JOB, min_size=1, max_size=25))
def test_easy_is_easy_where_no_two_events_coincide(rows: list[tuple[int, int, int, int]]) -> None:
    """Planned anew at each event or followed event by event: the same waits."""
    log = jobs(*((submit, run, width, run + more) for submit, run, width, more in rows))
    waits = simulate(log, 8, "easy")
    starts = log.submit_seconds + waits
    ends = starts + log.run_seconds
    expected = (starts + log.requested_seconds)[log.requested_seconds > log.run_seconds]
    events = [*log.submit_seconds.tolist(), *ends.tolist()]
    assume(len(set(events)) == len(events) and not set(events) & set(expected.tolist()))
    assert replan(log, 8, "easy").wait_seconds.tolist() == waits.tolist()


def test_easy_sjbf_and_conservative_differ_where_they_should() -> None:
    """Two jobs of one processor wait behind a wide head, the longer first: SJBF starts the shorter, EASY the first that fits;
    under conservative the first holds a reservation that the second may not delay."""
    log = jobs((0, 100, 3, 100), (1, 10, 1, 10), (2, 50, 4, 50), (3, 60, 1, 60), (4, 40, 1, 40))
    for scheduler in ("easy", "easy-sjbf", "conservative"):
        assert replan(log, 4, scheduler).wait_seconds.tolist() == simulate(log, 4, scheduler).tolist()
    # A failure of the one idle processor from 12 on: what it would have run comes after the head.
    broken = Outage(begin_seconds=5, finish_seconds=500, processors=1)
    got = {one: replan(log, 4, one, (broken,)) for one in ("easy-sjbf", "conservative")}
    assert all((one.wait_seconds[2] >= 498).all() for one in got.values())
    assert all(one.attempts.max() == 2 for one in got.values())


def test_fcfs_on_kth_is_fcfs(traces: Path) -> None:
    """All 28,481 jobs wait as long as under the scheduler that follows single events."""
    log = read_swf(traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz")
    assert np.array_equal(replan(log, 100, "fcfs").wait_seconds, simulate(log, 100, "fcfs"))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(JOB, min_size=1, max_size=25),
    outages=st.lists(OUTAGE, max_size=4),
    scheduler=st.sampled_from(["fcfs", "easy", "selective"]),
)
def test_every_job_ends_and_the_last_attempts_fit_on_what_is_there(
    rows: list[tuple[int, int, int, int]], outages: list[Outage], scheduler: str
) -> None:
    """No job is lost; nothing starts before its submission; failed processors run nothing."""
    log = jobs(*((submit, run, width, run + more) for submit, run, width, more in rows))
    done = replan(log, 8, scheduler, tuple(outages))  # type: ignore[arg-type]
    assert (done.wait_seconds >= 0).all()
    assert (done.attempts >= 1).all()
    assert done.lost_processor_seconds == 0 or done.attempts.sum() > len(rows)
    start = log.submit_seconds + done.wait_seconds
    for moment in start.tolist():
        busy = int(log.requested_processors[(start <= moment) & (moment < start + log.run_seconds)].sum())
        failed = sum(
            outage.processors
            for outage in outages
            if not outage.drain and outage.begin_seconds <= moment < outage.finish_seconds
        )
        assert busy <= max(8 - failed, 0)
    if all(outage.drain for outage in outages):
        assert done.attempts.max() == 1


def test_a_failure_kills_the_job_that_started_last_and_a_drain_kills_none() -> None:
    """Four processors, two jobs of two; two processors fail at 50 s until 300 s, or are drained."""
    log = jobs((0, 100, 2, 100), (10, 100, 2, 100))
    failed = replan(log, 4, "easy", (Outage(begin_seconds=50, finish_seconds=300, processors=2),))
    assert failed.wait_seconds.tolist() == [0, 90]
    assert failed.attempts.tolist() == [1, 2]
    assert failed.lost_processor_seconds == 80
    log = jobs((0, 100, 2, 100), (10, 100, 2, 100), (60, 10, 2, 10), (61, 10, 4, 10))
    drained = replan(log, 4, "easy", (Outage(begin_seconds=50, finish_seconds=300, processors=2, drain=True),))
    # The first two end at 100 and 110 s; the processors of the first are drained; the third runs beside; the fourth
    # needs all four.
    assert drained.wait_seconds.tolist() == [0, 0, 50, 239]
    assert drained.attempts.tolist() == [1, 1, 1, 1]


def test_what_cannot_be_is_refused() -> None:
    """An empty outage, a job wider than the site, a scheduler that does not exist."""
    with pytest.raises(Invalid, match="It is empty"):
        Outage(begin_seconds=5, finish_seconds=5, processors=1)
    with pytest.raises(Invalid, match="1 jobs cannot run"):
        replan(jobs((0, 1, 9, 1)), 8, "easy")
    with pytest.raises(Invalid, match="sjf is unknown"):
        replan(jobs((0, 1, 1, 1)), 8, "sjf")  # type: ignore[arg-type]
