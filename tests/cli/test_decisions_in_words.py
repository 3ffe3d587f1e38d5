"""`isthmus why` and `--dry-run` tell the path and window of the data, the best plans, and what is scarce, links by their names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isthmus.cli.plans import show_receipt
from isthmus.domain.placement import Binding, Claim, HomeLine, Snapshot
from isthmus.placement import best_plans, decide
from tests.placement.test_roads import BOTH, reads
from tests.placement.test_round import NOW, pool, waiting


def test_the_path_the_window_and_the_scarce_link_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each piece of data that moves, a table of plans, and the link among what is scarce."""
    views = (pool("a", free_cpus=16), pool("c", free_cpus=0, queued_jobs=3, queued_cpu_seconds=1e4))
    task = reads()
    [receipt] = decide(Snapshot(now=NOW, pools=views, roads=BOTH), [task]).receipts
    scarce = Binding(site="", pool="", resource="bytes", worth=0.5, link="fat")
    show_receipt(replace(receipt, plans=best_plans(task, receipt), binding=(scarce,)), wide=False)
    told = capsys.readouterr().out
    assert "Data: corpus@1 (953.7 MiB) from b, path fat, from 0.0s to 10s from now" in told
    assert "P10" in told
    assert "through the service" in told  # how the other site would get it
    assert "bytes fat (0.50)" in told


def test_data_that_may_not_be_there_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason in words, with both figures, and what would help."""
    task = reads(regions=frozenset({"eu"}))
    [receipt] = decide(Snapshot(now=NOW, pools=(pool("a"),), roads=BOTH), [task]).receipts
    show_receipt(receipt, wide=False)
    told = capsys.readouterr().out
    assert "the data may not be there" in told
    assert "What would help" in told


def test_what_own_users_first_costs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason with its figures, and how much sooner the task would be done at the home site that refuses it."""
    line = HomeLine(waiting=(Claim(cpus=16, seconds=100.0),))
    views = (pool("a", free_cpus=16, home=line), pool("c", free_cpus=0, queued_jobs=3, queued_cpu_seconds=1e5))
    [receipt] = decide(Snapshot(now=NOW, pools=views), [waiting()]).receipts
    assert receipt.chosen_site == "c"
    show_receipt(receipt, wide=False)
    told = capsys.readouterr().out
    assert (
        "its own users come first: wants 1 processors for 10m 00s, has 0 processors beside 1 waiting of its own users"
        in told
    )
    assert "That a's own users come first costs it 1h 44m" in told
