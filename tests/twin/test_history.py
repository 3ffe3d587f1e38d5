"""Own history as a log, and how sure a paired difference is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from isthmus.twin.paired import paired_interval
from isthmus.twin.readers import parse_swf
from isthmus.twin.readers.history import PastAttempt, history_log
from isthmus.twin.readers.swf import write_swf

ONE = PastAttempt(
    key="a", user="ada", submitted=1000.4, started=1010.2, elapsed_seconds=30, processors=4, requested_seconds=3600
)


def test_attempts_become_jobs_in_order_of_submission() -> None:
    """Times count from the first submission, users are numbered, what failed is marked; the format reads it back."""
    later = replace(ONE, key="b", user="bob", submitted=1100.0, started=1099.0, processors=2, succeeded=False)
    log, jobs, left = history_log([later, ONE, replace(ONE, key="c", submitted=1200.0)], "alpha/cpu")
    assert [one.key for one in jobs] == ["a", "b", "c"]
    assert left == ()
    assert log.job_id.tolist() == [1, 2, 3]
    assert log.submit_seconds.tolist() == [0, 100, 200]
    assert log.wait_seconds.tolist() == [10, 0, 0]
    assert log.requested_processors.tolist() == [4, 2, 4]
    assert log.requested_seconds.tolist() == [3600] * 3
    assert log.status.tolist() == [1, 0, 1]
    assert log.user.tolist() == [1, 2, 1]
    assert log.header == {"Version": "2.2", "UnixStartTime": "1000", "Computer": "alpha/cpu"}
    again = parse_swf(write_swf(log).splitlines())
    assert again.bad_lines == ()
    assert again.submit_seconds.tolist() == log.submit_seconds.tolist()


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"submitted": None}, "no time of submission to the site"),
        ({"started": None}, "never started"),
        ({"elapsed_seconds": 0}, "ran for less than a second"),
        ({"processors": 0}, "no number of processors"),
        ({"requested_seconds": 0}, "no requested time"),
    ],
)
def test_what_is_not_known_is_named(wrong: dict[str, object], cause: str) -> None:
    """Such an attempt is left out; the others stay."""
    log, _, left = history_log([ONE, replace(ONE, key="x", **wrong)])
    assert len(log) == 1
    assert [(one.key, one.cause) for one in left] == [("x", cause)]


def test_no_attempt_is_an_empty_log() -> None:
    """Nothing is made up."""
    log, jobs, left = history_log([])
    assert (len(log), jobs, left) == (0, (), ())


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    """Of 200 samples of 400 waits whose neighbours depend on each other, some 95 % hold it; the same seed, the same answer."""
    draws = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        noise = np.convolve(draws.normal(size=404), np.ones(5) / 5, mode="valid") + 7.0
        low, high = paired_interval(noise, seed)
        held += low <= 7.0 <= high
    assert 170 <= held <= 199
    assert paired_interval(noise, 5) == paired_interval(noise, 5)


def test_few_differences_give_an_interval_too() -> None:
    """Of none there is none; of one it is that one; equal ones have no width."""
    assert all(math.isnan(end) for end in paired_interval(np.empty(0), 1))
    assert paired_interval(np.array([4.0]), 1) == (4.0, 4.0)
    assert paired_interval(np.full(50, 2.0), 1) == pytest.approx((2.0, 2.0))
