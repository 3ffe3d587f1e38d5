"""What no pool could do in time or for the money is refused at once, with the nearest offer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from isthmus.domain.placement import Estimate, PoolView, Promise, Snapshot
from isthmus.domain.site import SiteState
from isthmus.domain.task import Objective
from isthmus.placement import impossible
from tests.placement.test_round import NOW, pool, waiting

HOUR = 3600.0


def _views() -> tuple[PoolView, ...]:
    """Dear here, cheap there; both are busy for long."""
    dear, cheap = pool(price_per_cpu_hour=Decimal(4)), pool(price_per_cpu_hour=Decimal(1))
    busy = Promise(jobs=99, cpus=10_000, cpu_seconds=1e9)
    return (replace(dear, site="dear", promised=busy), replace(cheap, site="cheap", promised=busy))


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def _asked(objective: Objective, run: Estimate | None = None, views: tuple[PoolView, ...] | None = None) -> str:
    task = waiting(objective=objective, run=run)
    error = impossible(Snapshot(now=NOW, pools=_views() if views is None else views), task)
    return "" if error is None else f"{error.field}: {error.cause} {error.remedy}"


def test_what_an_idle_pool_could_keep_is_let_in() -> None:
    """Queues pass: a deadline or a budget that one pool alone could keep is no reason to refuse."""
    walltime = waiting().demand.walltime_seconds
    assert _asked(Objective()) == ""
    assert _asked(Objective(deadline=_at(walltime + 1), budget=Decimal(10**6))) == ""


def test_a_deadline_before_the_soonest_end_names_that_end() -> None:
    """The end that can be promised is named, and what the user may change."""
    walltime = waiting().demand.walltime_seconds
    said = _asked(Objective(deadline=_at(walltime - 60)))
    assert said.startswith("objective.deadline: ")
    assert _at(walltime).isoformat(timespec="seconds") in said
    assert "shorter walltime" in said


def test_a_learned_run_counts_at_its_late_end() -> None:
    """Where the run time is known, the declared walltime does not stand in the way; nine in ten must be in time."""
    run = Estimate(seconds=100, source="learned", p10=50, p90=300)
    assert _asked(Objective(deadline=_at(301)), run) == ""
    assert "objective.deadline" in _asked(Objective(deadline=_at(299)), run)


def test_a_budget_below_the_cheapest_names_its_price() -> None:
    """The cheapest pool and its price are named."""
    said = _asked(Objective(budget=Decimal("0.000001")))
    assert said.startswith("objective.budget: ")
    assert "cheap/" in said
    assert "dear/" not in said


def test_deadline_and_budget_that_exclude_each_other_name_both_offers() -> None:
    """The pool in time is too dear and the one within the budget is too late."""
    fast, slow = _views()
    slow = replace(slow, bandwidth_bytes_per_second=1.0)
    task = waiting(
        objective=Objective(deadline=_at(2 * HOUR + waiting().demand.walltime_seconds), budget=Decimal("0.5")),
        input_bytes=100_000,
    )
    error = impossible(Snapshot(now=NOW, pools=(fast, slow)), task)
    assert error is not None
    assert "dear/" in error.remedy
    assert "cheap/" in error.remedy


@pytest.mark.parametrize("state", [SiteState.ACTIVE, SiteState.DRAINING])
def test_pools_that_do_not_fit_at_all_say_nothing(state: SiteState) -> None:
    """A site that drains may come back, so its offer counts; a pool that is too small is for `why` to tell."""
    views = tuple(replace(view, state=state) for view in _views())
    assert "objective.deadline" in _asked(Objective(deadline=_at(1)), views=views)
    denied = tuple(replace(view, accounts=frozenset({"bob"})) for view in views)
    assert _asked(Objective(deadline=_at(1)), views=denied) == ""
