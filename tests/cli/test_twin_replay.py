"""`isthmus twin replay` on the history of a real service."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from isthmus.cli.twin_replay import window
from isthmus.twin.readers import read_swf
from tests.cli.conftest import Ask


def test_own_tasks_are_replayed_at_the_pool_where_they_ran(ask: Ask, tmp_path: Path) -> None:
    """Three tasks of a second or two: their recorded and their new waits, the log with what was asked for."""
    name = f"replay-{tmp_path.name}"
    timed = [["--time", "5m", "--", "sleep", "1.2"], ["--time", "5m", "--", "sleep", "1.2"], ["--", "sleep", "2.2"]]
    ids = [ask("submit", "--name", name, *words).out.strip() for words in timed]
    ask("wait", *ids)
    words = ["twin", "replay", "--since", "1h", "--policy", "easy-sjbf"]
    (row,) = ask(*words, "--site", "local", "--swf-out", "logs", "--json").document
    assert row["site"] == "local"
    assert row["jobs"] >= 3
    assert row["low_s"] <= row["difference_s"] <= row["high_s"]
    assert row["wait_after_s"] - row["wait_before_s"] == pytest.approx(row["difference_s"], abs=0.002)
    log = read_swf(tmp_path / "logs" / f"local.{row['pool']}.swf")
    assert len(log) >= 3
    assert {300, 3600} <= set(log.requested_seconds.tolist())  # as asked for, and the default
    (same,) = ask(*words, "--against", "easy-sjbf", "--json").document
    assert (same["difference_s"], same["low_s"], same["high_s"]) == (0, 0, 0)
    told = ask(*words)
    assert "WAIT (recorded)" in told.out
    assert f"local  {row['pool']}" in told.out


def test_where_nothing_ran_it_says_so(ask: Ask) -> None:
    """No table, no error."""
    told = ask("twin", "replay", "--since", "2001-01-01", "--until", "2001-01-02", "--policy", "easy")
    assert (told.out, "No task" in told.err) == ("", True)
    assert ask("twin", "replay", "--since", "2001-01-01", "--until", "2001-01-02", "--policy", "easy", "--json").document == []  # fmt: skip
    ask("twin", "replay", "--since", "soon", "--policy", "easy", code=65)
    ask("twin", "replay", code=64)


def test_yesterday_is_the_whole_day_of_the_users_zone() -> None:
    """From midnight to midnight; another time lasts until now."""
    now = datetime(2026, 11, 30, 9, 30, tzinfo=ZoneInfo("UTC"))
    begin, end = window("yesterday", "", now)
    assert end - begin == timedelta(days=1)
    assert begin < end <= now
    begin, end = window("2026-11-01T00:00+00:00", "", now)
    assert (begin, end) == (datetime(2026, 11, 1, tzinfo=ZoneInfo("UTC")), now)
