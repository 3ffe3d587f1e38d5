"""Repetitions become a figure by the documented rule."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.metering.bench import spread

SAMPLES = st.lists(st.floats(min_value=1e-3, max_value=1e12), min_size=1, max_size=60)


def test_the_rule_by_hand() -> None:
    """Median 2.45, MAD 0.15: 8.2 has the score 0.6745 * 5.75 / 0.15 = 25.9 and goes, 2.1 has 1.6 and stays."""
    measure = spread.summarise([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    assert (measure.samples, measure.rejected) == (8, 2)
    assert measure.median == pytest.approx(2.35)


@given(SAMPLES)
def test_at_least_half_is_kept_and_the_order_holds(samples: list[float]) -> None:
    """Whatever the samples, more than half stay, and p10, median and p90 are in order and among them."""
    measure = spread.summarise(samples)
    assert measure.samples + measure.rejected == len(samples)
    assert measure.samples * 2 > len(samples) or measure.samples == len(samples)
    assert min(samples) <= measure.p10 <= measure.median <= measure.p90 <= max(samples)


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=2, max_size=40))
def test_quantiles_are_those_of_the_standard_library(values: list[float]) -> None:
    """Type 7 of Hyndman and Fan, as statistics.quantiles has it with method inclusive."""
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    ordered = sorted(values)
    assert spread.quantile(ordered, 0.1) == pytest.approx(tenths[0], abs=1e-6)
    assert spread.quantile(ordered, 0.9) == pytest.approx(tenths[-1], abs=1e-6)


def test_one_slow_sample_changes_no_percentile_of_even_ones() -> None:
    """A repetition in which the process was set aside is rejected."""
    even = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8]
    assert spread.summarise([*even, 3.0]).p10 == spread.summarise(even).p10
