"""How `isthmus site show` tells how good the forecasts were, and how a series of carbon is read."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from isthmus.cli.site_ahead import show_pool
from isthmus.cli.site_carbon import read_series
from isthmus.cli.site_forecasts import show_forecasts


def test_figures_stand_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each kind, pool and source; a bound that was not given is a dash; nothing scored, nothing shown."""
    one = {"pool": "cpu", "outcomes": 40, "error_seconds": 75.0, "coverage_80": 0.81, "coverage_90": 0.9}
    show_forecasts(
        [
            {**one, "kind": "runtime", "source": "learned", "accuracy": 0.64, "coverage_95": None},
            {**one, "kind": "wait", "source": "measured", "accuracy": 0.5, "coverage_95": 0.95},
        ]
    )
    _, _heading, run, wait = capsys.readouterr().out.split("\n")[:4]
    assert run.split()[:6] == ["run", "time", "cpu", "learned", "40", "64%"]
    assert run.split()[-1] == "-"
    assert wait.split()[-3:] == ["81%", "90%", "95%"]
    show_forecasts([])
    assert capsys.readouterr().out == ""


def test_a_series_is_read_whole_by_hour() -> None:
    """A heading is passed over, zones count, order does not, a gap has the value before it; the last of an hour counts."""
    lines = ["time,grams", "2026-12-01T03:00+02:00,30", "2026-12-01T00:00Z,20", "", "2026-12-01T03:15,60", "# end"]
    assert read_series(lines) == (datetime(2026, 12, 1, 0, tzinfo=UTC), [20.0, 30.0, 30.0, 60.0])


@pytest.mark.parametrize("lines", [[], ["time,grams"], ["2026-12-01T00:00Z,1", "nonsense"]])
def test_what_is_no_series_is_refused(lines: list[str]) -> None:
    """Nothing at all, a heading alone, and a line that is none."""
    with pytest.raises(click.BadParameter):
        read_series(lines)


def test_hours_ahead_fit_a_terminal_and_name_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each hour, no wider than 80 columns; no interval where there is none; below it where each figure comes from."""
    load = {"p10": 0.41, "p50": 0.625, "p90": 1.0, "source": "learned"}
    price = {"p10": 0.02, "p50": 0.02, "p90": 0.02, "source": "declared"}
    pool = {
        "pool": "cpu",
        "load": {"hours": [load, load], "errors": {"1": 0.04, "24": 0.153}},
        "price": {"hours": [price, {**price, "source": "learned"}], "errors": {}},
        "carbon": None,
    }
    show_pool(pool, datetime(2026, 12, 1, 13, tzinfo=UTC), 2)
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) == 6
    assert lines[1].split()[-3:] == ["62%", "41%-100%", "0.0200"]
    assert lines[3:] == [
        "Load: learned; off in the mean by 4% at 1 h, 15% at 24 h",
        "Price: declared, learned",
        "Carbon: nothing is known.",
    ]
