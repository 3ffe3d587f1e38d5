"""How `isthmus site show` tells how good the forecasts were."""

from __future__ import annotations

import pytest

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
