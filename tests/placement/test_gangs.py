"""Tasks that start together: a pair of pools at different sites or nothing, the best there is, and why when there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.placement import Gang, PoolView, Promise, Receipt, Snapshot, WaitingTask, Why
from isthmus.domain.roads import Piece, Roads, Route, Way
from isthmus.domain.task import Constraints, Demand, Goal, Objective
from isthmus.engine.rebalancing import unplaced
from isthmus.placement import decide, impossible
from isthmus.placement.carrying import promises
from isthmus.placement.round import Decision
from tests.placement.test_round import GIB, NOW, pool, waiting

MB = 10**6
EIGHT = Demand(cpus=8, memory_bytes=GIB, walltime_seconds=600)


def gang(name: str = "g", *, hold: float = 600.0, lacking: str = "", **fields: Any) -> list[WaitingTask]:
    """Two parts; `sites` may say for each where it may go."""
    sites = fields.pop("sites", ((), ()))
    return [
        waiting(
            f"{name}{part}",
            gang=Gang(id=name, part=part, parts=2, hold_seconds=hold, lacking=lacking),
            constraints=Constraints(sites_allow=sites[part]),
            **{"demand": EIGHT, **fields},
        )
        for part in range(2)
    ]


def decided(tasks: list[WaitingTask], *views: PoolView) -> Decision:
    return decide(Snapshot(now=NOW, pools=views), tasks)


def places(decision: Decision) -> dict[str, str]:
    return {placement.task_id: placement.site for placement in decision.placements}


def refusal(receipt: Receipt) -> tuple[Why, str, str]:
    assert receipt.together is not None
    assert not receipt.chosen_site
    assert receipt.remedy
    return receipt.together.why, receipt.together.wanted, receipt.together.offered


def test_both_parts_are_placed_at_different_sites() -> None:
    """Even where one site could have both; each part's receipt shows the pair."""
    decision = decided(gang(), pool("a", nodes=9, immediate=True), pool("b", nodes=1, immediate=True))
    assert set(places(decision).values()) == {"a", "b"}
    first, second = (receipt.together for receipt in decision.receipts)
    assert first is not None
    assert second is not None
    assert (first.why, first.part, second.part, first.pairs) == (Why.CHOSEN, 0, 1, 2)
    assert first.plans == second.plans
    assert [plan.task_id for plan in first.plans] == ["g0", "g1"]


def test_one_site_with_room_places_neither_and_holds_up_nobody() -> None:
    """Both parts wait, with the reason and its figures; a task behind them takes the room."""
    full = pool("b", immediate=True, promised=Promise(jobs=1, cpus=16))
    decision = decided([*gang(), waiting("single")], pool("a", immediate=True), full)
    assert places(decision) == {"single": "a"}
    for receipt in decision.receipts[:2]:
        assert refusal(receipt) == (Why.NO_PAIR_OF_SITES, "2 sites at once", "only a")
        assert [candidate.why for candidate in receipt.candidates] == [Why.NO_PAIR_OF_SITES, Why.FULL_NOW]


def test_a_gang_waits_for_its_parts() -> None:
    """Nothing is looked at before; the receipt says what is lacking."""
    [first, _] = gang(lacking="1 of 2 not handed in")
    decision = decided([first], pool("a"), pool("b"))
    assert places(decision) == {}
    assert refusal(decision.receipts[0]) == (Why.PARTS_MISSING, "all 2 parts", "1 of 2 not handed in")


def test_starts_that_are_too_far_apart_are_no_pair() -> None:
    """A queue of an hour beside an idle site is no pair for a hold of ten minutes, and is one for a hold of two hours: then the part
    at the idle site is held, and that is in its price."""
    idle = pool("a", free_cpus=16, price_per_cpu_hour=Decimal(1))
    busy = pool("b", free_cpus=0, queued_jobs=3, queued_cpu_seconds=16 * 3600.0)
    sites = (("a",), ("b",))
    why, wanted, offered = refusal(decided(gang(sites=sites), idle, busy).receipts[0])
    assert why is Why.STARTS_TOO_FAR_APART
    assert "10m" in wanted
    assert "1h 00m apart at a and b" in offered
    decision = decided(gang(hold=7200.0, sites=sites), idle, busy)
    [held, other] = decision.placements
    assert held.price == Decimal("9.333333"), "eight processors for 4200 s"
    assert held.predicted_seconds == pytest.approx(other.predicted_seconds)
    together = decision.receipts[0].together
    assert together is not None
    assert [plan.held_seconds for plan in together.plans] == [3600.0, 0.0]


def test_the_budget_is_of_the_whole_gang() -> None:
    """Each part alone would be within it, both are not; the refusal names the least that the two cost."""
    views = [pool(site, immediate=True, price_per_cpu_hour=Decimal(3)) for site in ("a", "b")]
    one_part = Decimal(4)
    assert places(decided(gang(objective=Objective(budget=2 * one_part)), *views))
    decision = decided(gang(objective=Objective(budget=one_part)), *views)
    why, wanted, offered = refusal(decision.receipts[0])
    assert (why, wanted, offered) == (Why.OVER_BUDGET, "4 for all parts", "8.000000 at a/main and b/main")
    assert "8.000000" in decision.receipts[0].remedy


def test_the_deadline_is_of_the_whole_gang() -> None:
    """The part that would be done in time alone is too late when it must start with the other."""
    until = datetime.fromtimestamp(NOW + 1000, UTC)
    idle, busy = pool("a", free_cpus=16), pool("b", free_cpus=0, queued_jobs=3, queued_cpu_seconds=16 * 300.0)
    sites = (("a",), ("b",))
    assert places(decided(gang(sites=sites, objective=Objective(deadline=until)), idle, busy))
    first, second = gang(sites=sites)
    soon = Objective(deadline=datetime.fromtimestamp(NOW + 700, UTC))
    assert places(decided([replace(first, gang=None, objective=soon)], idle, busy))
    decision = decided([replace(first, objective=soon), second], idle, busy)
    why, _, offered = refusal(decision.receipts[1])
    assert why is Why.MISSES_DEADLINE
    assert "at a/main and b/main" in offered


def test_the_goal_chooses_the_pair() -> None:
    """The cheapest pair for `cheapest`, the soonest for `soonest`."""
    dear = [pool(site, free_cpus=16, price_per_cpu_hour=Decimal(5)) for site in ("a", "b")]
    cheap = [
        pool(site, free_cpus=0, queued_jobs=1, queued_cpu_seconds=16 * 100.0, price_per_cpu_hour=Decimal(1))
        for site in ("c", "d")
    ]
    assert set(places(decided(gang(), *dear, *cheap)).values()) == {"a", "b"}
    thrifty = gang(objective=Objective(goal=Goal.CHEAPEST))
    assert set(places(decided(thrifty, *dear, *cheap)).values()) == {"c", "d"}


def test_a_site_where_a_part_failed_is_the_last_choice() -> None:
    """The parts change places when one failed; where there is no other pair, it goes there again."""
    views = [pool(site, immediate=True) for site in ("a", "b")]
    first, second = gang()
    assert places(decided([replace(first, avoid_sites=("a",)), second], *views)) == {"g0": "b", "g1": "a"}
    bound = gang(sites=(("a",), ("b",)))
    again = [replace(bound[0], avoid_sites=("a",)), bound[1]]
    assert places(decided(again, *views)) == {"g0": "a", "g1": "b"}


def scarce() -> tuple[list[WaitingTask], list[PoolView]]:
    """The first gang would like a and c best; the second can have nothing else, and there is room at b and d for the first."""
    views = [pool(site, nodes=1, immediate=True) for site in "abcd"]
    views[1] = replace(views[1], bandwidth_bytes_per_second=1e6)
    views[3] = replace(views[3], bandwidth_bytes_per_second=1e6)
    first = gang("g", sites=(("a", "b"), ("c", "d")), input_bytes=10**8)
    return [*first, *gang("h", sites=(("a",), ("c",)))], views


def test_gangs_that_want_the_same_are_solved_jointly() -> None:
    """With CP-SAT both gangs go; the receipt says how."""
    pytest.importorskip("ortools", reason="needs the extra `exact`")
    tasks, views = scarce()
    decision = decided(tasks, *views)
    assert places(decision) == {"g0": "b", "g1": "d", "h0": "a", "h1": "c"}
    assert {receipt.together.method for receipt in decision.receipts if receipt.together} == {"cp-sat"}


def test_without_the_solver_each_gang_takes_its_best_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, one after another."""
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    monkeypatch.delitem(sys.modules, "isthmus.placement.joint.cores", raising=False)
    tasks, views = scarce()
    decision = decided(tasks, *views)
    assert places(decision) == {"g0": "a", "g1": "c"}
    assert decision.receipts[0].together is not None
    assert decision.receipts[0].together.method == "every pair"
    assert refusal(decision.receipts[2])[0] is Why.NO_PAIR_OF_SITES


views = st.builds(
    lambda site, nodes, immediate, free, queued: pool(
        site,
        name=f"p{nodes}",
        nodes=nodes,
        immediate=immediate,
        free_cpus=min(free, 8 * nodes),
        queued_cpu_seconds=queued,
    ),
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 24),
    st.sampled_from((0.0, 2000.0, 1e6)),
)
gangs = st.builds(
    lambda name, cpus, hold: gang(name, hold=hold, demand=replace(EIGHT, cpus=cpus)),
    st.sampled_from("ghijk"),
    st.integers(1, 8),
    st.sampled_from((1.0, 600.0, 1e5)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(views, max_size=5, unique_by=lambda view: (view.site, view.pool.name)),
    st.lists(gangs, max_size=4, unique_by=lambda parts: parts[0].id),
    st.integers(0, 4),
)
def test_both_or_none_within_every_capacity(
    pools: list[PoolView], groups: list[list[WaitingTask]], singles: int
) -> None:
    """Whatever the round: pairs are whole and at two sites, no pool without a queue holds more than it has, each task has a receipt in
    its place, and the same round is decided the same."""
    tasks = [task for parts in groups for task in parts] + [waiting(f"s{n}", demand=EIGHT) for n in range(singles)]
    decision = decided(tasks, *pools)
    assert [receipt.task_id for receipt in decision.receipts] == [task.id for task in tasks]
    at = places(decision)
    for first, second in groups:
        assert (first.id in at) == (second.id in at)
        if first.id in at:
            assert at[first.id] != at[second.id]
    cpus = {task.id: task.demand.cpus for task in tasks}
    for view in pools:
        if view.pool.immediate:
            here = [p for p in decision.placements if (p.site, p.pool) == (view.site, view.pool.name)]
            assert sum(cpus[p.task_id] for p in here) <= view.pool.cpus
    assert decided(tasks, *pools) == decision


def test_a_budget_or_deadline_that_no_pair_can_keep_is_refused() -> None:
    """Each part alone could; the two together could not, even with nothing else to do: the nearest pair is named."""
    views = tuple(pool(site, immediate=True, price_per_cpu_hour=Decimal(price)) for site, price in (("a", 3), ("b", 6)))
    snapshot = Snapshot(now=NOW, pools=views)
    first, second = gang(objective=Objective(budget=Decimal(11)))
    assert impossible(snapshot, first) is None
    error = impossible(snapshot, first, second)
    assert error is not None
    assert error.field == "objective.budget"
    assert "at a/main and b/main for 12.000000" in error.remedy
    enough = [replace(task, objective=Objective(budget=Decimal(12))) for task in (first, second)]
    assert impossible(snapshot, *enough) is None
    hurried = [replace(task, objective=Objective(deadline=datetime.fromtimestamp(NOW + 60, UTC))) for task in enough]
    error = impossible(snapshot, *hurried)
    assert error is not None
    assert error.field == "objective.deadline"
    assert "at a/main and b/main" in error.cause


def test_preemptible_work_makes_room_for_a_pair_and_no_more() -> None:
    """One site is free: only at the other room is made, for one part. Both are full: at each, for one part."""
    full = [pool(site, immediate=True, promised=Promise(jobs=1, cpus=16)) for site in "ab"]
    tasks = gang()
    one = unplaced(decided(tasks, pool("a", immediate=True), full[1]), tasks)
    assert [(wanting.task_id, wanting.places) for wanting in one] == [("g1", (("b", "main"),))]
    both = unplaced(decided(tasks, *full), tasks)
    assert [(wanting.task_id, wanting.places) for wanting in both] == [
        ("g0", (("a", "main"),)),
        ("g1", (("b", "main"),)),
    ]
    lacking = gang(lacking="1 of 2 not handed in")
    assert unplaced(decided(lacking, *full), lacking) == []


def test_the_data_of_both_parts_goes_over_one_link_side_by_side() -> None:
    """Both read what lies at a third site, behind one link: what the first was promised of it is gone for the second, and the link never
    carries more than it has."""
    ways = {"trunk": Way(bytes_per_second=100 * MB)}
    trunk = Route(links=("trunk",), latency_seconds=0.0)
    roads = Roads(links=ways, routes={("c", "a"): (trunk,), ("c", "b"): (trunk,)})
    data = Piece(name="corpus@1", size_bytes=1000 * MB, places=frozenset({"c"}))
    tasks = [replace(task, data=(data,)) for task in gang(sites=(("a",), ("b",)))]
    snapshot = Snapshot(now=NOW, pools=(pool("a", immediate=True), pool("b", immediate=True)), roads=roads)
    decision = decide(snapshot, tasks)
    first, second = decision.placements
    assert (first.site, second.site) == ("a", "b")
    assert first.predicted_seconds == pytest.approx(second.predicted_seconds), (
        "the first is held until the second has its data"
    )
    held = [(one.begins, one.ends, one.bytes_per_second) for p in (first, second) for one in promises(p.transfers)]
    assert len(held) == 2
    for at in {begins for begins, _, _ in held}:
        assert sum(rate for begins, ends, rate in held if begins <= at < ends) <= 100 * MB + 1
