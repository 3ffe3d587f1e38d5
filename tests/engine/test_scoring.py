"""Forecasts beside what came of them, and what the models publish."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from isthmus.domain.placement import Candidate, Estimate, Receipt, Why
from isthmus.domain.task import Array, TaskSpec
from isthmus.engine import leases, scoring
from isthmus.engine.scoring import Scoring, outcomes_of
from isthmus.store import tables
from isthmus.store.database import Database
from isthmus.store.documents import dump
from tests.engine.conftest import EngineMaker, count, join
from tests.engine.test_life import submit, until


def _row(wait: Estimate, run: Estimate, waited: float | None, ran: int, reason: str = "exit_zero") -> Any:
    chosen = Candidate(site="alpha", pool="cpu", why=Why.CHOSEN, wait=wait, run=run)
    other = Candidate(site="beta", pool="cpu", why=Why.LATER_FINISH, wait=Estimate(seconds=1, source="measured"))
    receipt = Receipt(task_id="t", decided_at=0.0, candidates=(other, chosen))
    return SimpleNamespace(
        attempt="k",
        site="alpha",
        pool="cpu",
        created_at=9.0,
        elapsed_seconds=ran,
        reason=reason,
        submitted_at=None if waited is None else 100.0,
        started_at=None if waited is None else 100.0 + waited,
        body=dump(receipt),
        decided_at=0.0,
        task_ended_at=None,
    )


@pytest.mark.parametrize(
    ("waited", "near", "within_80", "below_95"),
    [(100.0, 1.0, 1, 1), (161.0, 0.0, 1, 1), (602.0, 0.0, 0, 1), (1000.0, 0.0, 0, 0), (39.0, 0.0, 0, 1)],
)
def test_a_wait_is_near_within_a_minute_or_a_fifth(waited: float, near: float, within_80: int, below_95: int) -> None:
    """The point is scored by nearness, and each bound by whether it held."""
    wait = Estimate(seconds=100, source="learned", p10=50, p50=100, p90=600, p95=900)
    (of_wait, of_run) = outcomes_of(_row(wait, Estimate(seconds=50, source="declared"), waited, 200))
    assert (of_wait["score"], of_wait["within_80"], of_wait["below_95"]) == (near, within_80, below_95)
    assert (of_run["score"], of_run["within_80"], of_run["source"]) == (0.25, None, "declared")


def test_an_end_is_scored_from_its_decision_on() -> None:
    """90 s after it, of 60 that were foretold, within 20 to 100."""
    estimate = Estimate(seconds=5, source="measured")
    row = _row(estimate, estimate, 1.0, 5)
    receipt = orjson.loads(row.body)
    receipt["candidates"][1]["finish"] = {"seconds": 60, "source": "learned", "p10": 20, "p50": 60, "p90": 100}
    row.body, row.task_ended_at = orjson.dumps(receipt).decode(), 90.0
    *_, of_end = outcomes_of(row)
    assert (of_end["kind"], of_end["within_80"], of_end["actual_seconds"]) == ("finish", 1, 90.0)
    assert of_end["score"] == pytest.approx(2 / 3)


def test_what_says_nothing_is_not_scored() -> None:
    """A job that never started has no wait, one that was cut off no run time, a receipt without a choice neither."""
    estimate = Estimate(seconds=5, source="measured")
    assert outcomes_of(_row(estimate, estimate, None, 3, reason="cancelled_by_user")) == []
    assert [one["kind"] for one in outcomes_of(_row(estimate, estimate, 1.0, 3, reason="walltime"))] == ["wait"]
    row = _row(estimate, estimate, 1.0, 3)
    row.body = orjson.dumps({"task_id": "t"}).decode()
    assert outcomes_of(row) == []


async def test_every_receipt_is_scored_once_and_the_figures_are_published(
    store: Database, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After tasks ended there is one outcome of each kind for each, however many processes score; `models` has the sums; what
    is older than the window goes."""
    join(store, config={"seconds": 1})
    engine = make_engine(store)
    await engine.start()
    await submit(store, TaskSpec(command=("fit",), array=Array(size=7)))
    engine.wake()
    await until(lambda: count(store, tables.usage_records) == 7)
    await engine.stop()
    now = engine.clock.now()
    lease = await store.write(leases.take, "placement", "other", now, 60.0)
    assert lease is not None
    monkeypatch.setattr(scoring, "PAGE", 5)
    one, other = Scoring(store), Scoring(store)
    assert [await one.refresh(now, lease) for _ in range(3)] == [7, 0, 0], "page by page"
    assert [await other.refresh(now, lease) for _ in range(2)] == [7, 0], "looked at again, and not counted again"
    assert count(store, tables.outcomes) == 21
    rows = store.read_now(lambda connection: connection.execute(tables.models.select()).all())
    figures = {row.kind: row for row in rows}
    assert {kind: row.outcomes for kind, row in figures.items()} == {"wait": 7, "runtime": 7, "finish": 7}
    assert figures["runtime"].source == "declared"
    assert 0 < figures["runtime"].accuracy < 0.1, "an hour was declared, a second it ran"
    assert figures["wait"].accuracy == 1.0
    assert figures["wait"].coverage_95 is None
    await Scoring(store).refresh(now + scoring.WINDOW_SECONDS + 60, lease)
    assert count(store, tables.outcomes) == 0
