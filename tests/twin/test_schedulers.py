"""What every scheduler must keep, on small workloads that can be checked by hand or by force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isthmus.domain.errors import Invalid
from isthmus.twin.schedulers import bounded_slowdown, simulate
from isthmus.twin.schedulers.simulate import Scheduler

SCHEDULERS: list[Scheduler] = ["fcfs", "easy", "easy-sjbf", "conservative"]


@dataclass(frozen=True)
class Jobs:
    submit_seconds: NDArray[np.int64]
    run_seconds: NDArray[np.int64]
    requested_processors: NDArray[np.int64]
    requested_seconds: NDArray[np.int64]


def jobs(*rows: tuple[int, int, int, int]) -> Jobs:
    """Jobs from (submit, run, processors, requested)."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Jobs(*(table[:, i].copy() for i in range(4)))


def test_schedulers_differ_where_they_should() -> None:
    """A wide job blocks FCFS; backfilling lets short and narrow ones pass; SJBF lets the shortest pass first."""
    log = jobs((0, 100, 3, 100), (1, 50, 4, 50), (2, 90, 1, 90), (3, 8, 1, 8))
    assert simulate(log, 4, "fcfs").tolist() == [0, 99, 148, 147]
    assert simulate(log, 4, "easy").tolist() == [0, 99, 0, 89]
    assert simulate(log, 4, "conservative").tolist() == [0, 99, 0, 89]
    two_wait = jobs((0, 100, 3, 100), (1, 10, 1, 10), (2, 50, 4, 50), (3, 60, 1, 60), (4, 40, 1, 40))
    assert simulate(two_wait, 4, "easy").tolist() == [0, 0, 98, 8, 146]
    assert simulate(two_wait, 4, "easy-sjbf").tolist() == [0, 0, 98, 147, 7]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("given_predictions", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_processor_is_given_twice(scheduler: Scheduler, given_predictions: bool, data: Any) -> None:
    """At every start the running jobs fit, whatever the predictions; nobody starts before submission."""
    row = st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 8), st.integers(0, 30))
    rows = data.draw(st.lists(row, min_size=1, max_size=40))
    log = jobs(*((s, r, w, r + more) for s, r, w, more in rows))
    estimates: Any = "requested"
    if given_predictions:
        estimates = np.array(data.draw(st.lists(st.integers(1, 70), min_size=len(rows), max_size=len(rows))))
    waits = simulate(log, 8, scheduler, estimates)
    assert (waits >= 0).all()
    starts = log.submit_seconds + waits
    for moment in starts:
        running = (starts <= moment) & (moment < starts + log.run_seconds)
        assert log.requested_processors[running].sum() <= 8


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_no_job_and_jobs_out_of_order(scheduler: Scheduler) -> None:
    """An empty log gives no waits; waits come back in the log's order even where that is not the order of submission."""
    assert simulate(jobs(), 4, scheduler).tolist() == []
    assert simulate(jobs((10, 5, 4, 5), (0, 20, 4, 20)), 4, scheduler).tolist() == [10, 0]


def test_jobs_that_cannot_run_are_refused() -> None:
    """The refusal names the field and counts the jobs."""
    with pytest.raises(Invalid, match="1 jobs do not ask for 1 to 4 processors"):
        simulate(jobs((0, 1, 5, 1), (0, 1, 1, 1)), 4, "easy")
    with pytest.raises(Invalid, match="run for less than a second"):
        simulate(jobs((0, 0, 1, 1)), 4, "easy")


def test_slowdown_is_bounded() -> None:
    """Short jobs count as ten seconds, and nothing is below one."""
    assert bounded_slowdown(np.array([0, 20, 90]), np.array([1, 1, 10])).tolist() == [1.0, 2.1, 10.0]


def test_a_prediction_that_was_too_short_is_corrected_to_the_request_then_by_steps() -> None:
    """A job predicted at 10 s of 100 requested is believed to end at 100 s, and from then on at 160 s."""
    rows = ((0, 150, 3, 100), (20, 10, 4, 10), (21, 80, 1, 80), (110, 45, 1, 45))
    waits = simulate(jobs(*rows), 4, "easy", np.array([10, 10, 80, 45]))
    # At 21 s the head is promised 100 s, and 80 s do not fit; at 110 s it is promised 160 s, and 45 s do. The job ends
    # at 150 s already, so the head waits for the one that passed it, until 155 s.
    assert waits.tolist() == [0, 135, 144, 0]
