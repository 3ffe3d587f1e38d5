"""A scheduler that works in cycles: in order at each event, backfilling at each tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.schedulers import simulate
from isthmus.twin.schedulers.cycles import Cycle, cyclic_waits

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Jobs:
    """A workload by hand."""

    submit_seconds: Whole
    run_seconds: Whole
    requested_processors: Whole
    requested_seconds: Whole


def jobs(*rows: tuple[int, int, int, int]) -> Jobs:
    """Jobs as (submit, run, processors, request)."""
    return Jobs(*(np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)))


def test_a_job_that_delays_nobody_waits_for_the_next_backfilling_pass() -> None:
    """The wide second job holds the queue up; the narrow third passes it at the tick, 10 s after the log's start."""
    log = jobs((0, 100, 3, 100), (1, 50, 4, 50), (2, 90, 1, 90))
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=10)).tolist() == [0, 99, 8]


def test_every_waiting_job_gets_a_reservation() -> None:
    """The narrow fourth would delay the third: EASY lets it, as only the second holds a reservation there."""
    log = jobs((0, 100, 2, 100), (1, 100, 3, 100), (2, 100, 4, 100), (3, 250, 1, 250))
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=1)).tolist() == [0, 99, 198, 297]
    assert simulate(log, 4, "easy").tolist() == [0, 99, 251, 0]


def test_ends_that_are_seen_coarsely_let_more_jobs_pass() -> None:
    """The third could start at 100, but that end and the one at 118 are one step: the fourth fits in before, and delays it."""
    log = jobs((0, 100, 2, 100), (0, 118, 1, 118), (1, 50, 3, 50), (2, 112, 1, 112))
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=1)).tolist() == [0, 0, 99, 116]
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=1, window_seconds=30)).tolist() == [0, 0, 113, 0]


def test_reservations_hold_whole_nodes() -> None:
    """The second is planned on both nodes of two although it needs three processors: no long third beside it."""
    log = jobs((0, 100, 2, 100), (1, 100, 3, 100), (2, 250, 1, 250))
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=1)).tolist() == [0, 99, 0]
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=1, node_processors=2)).tolist() == [0, 99, 98]


def test_latencies_delay_what_they_are_of() -> None:
    """The first job is noticed half a second late; the second waits for the release of its processors too."""
    log = jobs((0, 10, 4, 60), (1, 10, 4, 60))
    cycle = Cycle(backfill_seconds=30, notice_seconds=0.5, release_seconds=0.25)
    assert cyclic_waits(log, 4, cycle).tolist() == [0.5, 9.75]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(1, 8), st.integers(0, 60)),
        min_size=1,
        max_size=30,
    )
)
def test_processors_are_never_given_twice(rows: list[tuple[int, int, int, int]]) -> None:
    """At no time do the running jobs hold more than there are; none starts before it is submitted."""
    log = jobs(*((submit, run, width, run + more) for submit, run, width, more in rows))
    waits = cyclic_waits(
        log, 8, Cycle(backfill_seconds=2, window_seconds=5, node_processors=3, notice_seconds=0.3, release_seconds=0.7)
    )
    assert waits.min() >= 0.3 - 1e-9
    starts = log.submit_seconds + waits
    for at in starts:
        held = (starts <= at) & (starts + log.run_seconds + 0.7 > at + 1e-6)
        assert log.requested_processors[held].sum() <= 8


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 20), st.integers(0, 60)),
        min_size=1,
        max_size=20,
    )
)
def test_with_nothing_to_backfill_it_is_first_come_first_served(rows: list[tuple[int, int, int]]) -> None:
    """Where each job takes the whole site, the waits are those of FCFS, whatever the cycle."""
    log = jobs(*((submit, run, 4, run + more) for submit, run, more in rows))
    assert cyclic_waits(log, 4, Cycle(backfill_seconds=7)).tolist() == simulate(log, 4, "fcfs").tolist()


def test_what_makes_no_sense_is_refused() -> None:
    """A cycle of no length, a negative latency, a job wider than the site."""
    for wrong in (
        {"backfill_seconds": 0},
        {"backfill_seconds": 2, "notice_seconds": -1},
        {"backfill_seconds": 2, "node_processors": 0},
    ):
        with pytest.raises(Invalid):
            Cycle(**wrong)
    with pytest.raises(Invalid):
        cyclic_waits(jobs((0, 10, 5, 60)), 4, Cycle(backfill_seconds=2))
