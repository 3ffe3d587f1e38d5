"""Figures that differ from hour to hour."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.domain.hours import HOUR, WEEK, Hours, read_hours

DAY = tuple(Decimal(n) for n in range(24))


def test_the_hours_of_a_day_and_of_a_week_come_again() -> None:
    """Hour 13 of any day; Wednesday 05:00 is hour 53 of a week that begins on Monday; UTC."""
    at = int(datetime(2026, 12, 2, 13, tzinfo=UTC).timestamp()) // HOUR
    assert Hours(DAY).at(at) == 13
    week = Hours(tuple(Decimal(n) for n in range(WEEK)))
    assert week.at(int(datetime(2026, 12, 2, 5, tzinfo=UTC).timestamp()) // HOUR) == 2 * 24 + 5


def test_a_mean_weights_each_hour_by_its_part() -> None:
    """From 10:45 for an hour: a quarter of 10 and three quarters of 11."""
    begin = datetime(2026, 12, 2, 10, 45, tzinfo=UTC).timestamp()
    assert Hours(DAY).mean(begin, 3600) == Decimal("10.75")
    assert Hours(DAY).mean(begin, 24 * 3600) == Decimal("11.5") == Hours(DAY).middle


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_what_is_always_the_same_is_the_same_over_any_time(begin: int, seconds: int) -> None:
    """One value has no hours; a day of equal ones neither."""
    assert Hours((Decimal(7),)).mean(begin, seconds) == 7
    assert Hours((Decimal(7),) * 24).mean(begin, seconds) == 7


def test_outside_of_a_series_the_nearest_day_counts() -> None:
    """Before it and after it, the same hour of the day that it holds; of less than a day the first or last value."""
    series = Hours(tuple(Decimal(n) for n in range(48)), first_hour=1000)
    assert [series.at(hour) for hour in (999, 1000, 1047, 1048, 1071, 1072)] == [23, 0, 47, 24, 47, 24]
    short = Hours((Decimal(1), Decimal(2)), first_hour=10)
    assert [short.at(hour) for hour in (9, 10, 11, 99)] == [1, 1, 2, 2]


@pytest.mark.parametrize("text", ["", "x", "1,2", "-1", "NaN", "1e13", ",".join(["1"] * 25), "1,,2"])
def test_what_is_no_tariff_is_refused(text: str) -> None:
    """Neither an amount nor 24 nor 168 of them."""
    with pytest.raises(Invalid):
        read_hours(text)
    assert read_hours("0.02").values == (Decimal("0.02"),)
    assert len(read_hours(",".join(["0.1"] * 24)).values) == 24
