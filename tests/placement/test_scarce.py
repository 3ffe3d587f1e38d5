"""A contested round leaves what is scarce to those who need it most, and its receipts say so."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Invalid
from isthmus.domain.placement import (
    Binding,
    Candidate,
    Estimate,
    PoolView,
    Promise,
    ScarcePrice,
    Snapshot,
    WaitingTask,
    Why,
)
from isthmus.domain.site import Energy
from isthmus.domain.task import Accelerators, Constraints, Demand, Goal, Objective, Weights
from isthmus.placement import decide
from isthmus.placement.round import PRICED_FROM
from isthmus.placement.scarcity import Scarcity
from tests.placement.test_round import GIB, NOW, pool, waiting, why

pytestmark = pytest.mark.timeout(900)  # the first priced round compiles
QUICK = pool("quick", nodes=8, accelerators_per_node=1, immediate=True)  # 64 processors, the only devices
PLAIN = pool("plain", nodes=8, immediate=True, bandwidth_bytes_per_second=1e6)
COAL = Energy(watts_per_cpu=Decimal(10), pue=Decimal("1.5"), carbon_grams_per_kwh=Decimal(800))
HYDRO = Energy(watts_per_cpu=Decimal(12), pue=Decimal("1.2"), carbon_grams_per_kwh=Decimal(20))


def crowd() -> list[WaitingTask]:
    """Sixty-four that would be a little sooner at `quick`, and behind them eight that can run nowhere else."""
    anywhere = Demand(memory_bytes=GIB, walltime_seconds=600)
    devices = Demand(cpus=8, memory_bytes=GIB, walltime_seconds=600, accelerators=Accelerators(count=1))
    flexible = [waiting(f"f{index}", demand=anywhere, input_bytes=10**6) for index in range(64)]
    return flexible + [waiting(f"d{index}", demand=devices) for index in range(8)]


def test_a_contested_round_leaves_the_devices_to_those_who_need_them() -> None:
    """All are placed, where in plain order the last eight would wait; receipts name what was needed more, and its worth."""
    snapshot = Snapshot(now=NOW, pools=(QUICK, PLAIN))
    decision = decide(snapshot, crowd())
    assert Counter(placement.site for placement in decision.placements) == {"plain": 64, "quick": 8}
    first = decision.receipts[0]
    assert [candidate.why for candidate in first.candidates] == [Why.NEEDED_MORE, Why.CHOSEN]
    assert "cpus worth" in first.candidates[0].offered
    assert ("quick", "cpus") in {(binding.site, binding.resource) for binding in first.binding}
    assert decide(snapshot, crowd()) == decision
    unpriced = decide(snapshot, crowd(), pricing=False)
    assert (len(unpriced.placements), unpriced.prices, unpriced.contested) == (64, (), True)


def test_prices_stand_for_small_rounds_and_go_when_nothing_is_contested() -> None:
    """One task soon after pays the standing prices where pools are pressed; on idle pools prices count no more."""
    prices = decide(Snapshot(now=NOW, pools=(QUICK, PLAIN)), crowd()).prices
    assert prices
    queued = replace(QUICK.pool, immediate=False, free_cpus=0, queued_jobs=1, queued_cpu_seconds=64.0)
    pressed = Snapshot(now=NOW, pools=(replace(QUICK, pool=queued), PLAIN), prices=prices)
    task = waiting("one", demand=Demand(memory_bytes=GIB, walltime_seconds=600), input_bytes=2 * 10**7)
    assert decide(replace(pressed, prices=()), [task]).placements[0].site == "quick"
    assert decide(pressed, [task]).placements[0].site == "plain"
    idle = decide(Snapshot(now=NOW, pools=(QUICK, PLAIN), prices=prices), [task])
    assert idle.placements[0].site == "quick"
    assert not idle.prices


def test_a_price_is_paid_for_the_time_that_a_task_holds_it() -> None:
    """Of the priced bucket from 100 to 200 s, a run of 150 s from the start holds half; nothing else is scarce."""
    price = ScarcePrice(site="quick", pool="main", resource="cpus", bucket_seconds=100.0, by_bucket=(0.0, 2.0, 0.0))
    task = waiting("one", demand=Demand(cpus=3, memory_bytes=GIB, walltime_seconds=150))
    at, none = Estimate(seconds=150.0, source="declared"), Estimate(seconds=0.0, source="declared")
    plan = Candidate(site="quick", pool="main", why=Why.CHOSEN, wait=none, transfer=none, run=at)
    scarcity = Scarcity([price])
    assert scarcity.worth(task, plan) == {("cpus", ""): 3.0}
    assert scarcity.worth(task, replace(plan, wait=replace(at, seconds=120.0))) == {("cpus", ""): pytest.approx(4.8)}
    assert scarcity.worth(task, replace(plan, wait=replace(at, seconds=500.0))) == {("cpus", ""): 0.0}
    assert scarcity.worth(task, replace(plan, site="plain")) == {}
    assert scarcity.binding(task, [plan]) == (Binding(site="quick", pool="main", resource="cpus", worth=3.0),)


def test_more_is_placed_or_the_same_better_but_never_worse_than_in_plain_order() -> None:
    """The priced placing is kept only when it is better: with one kind of task there is nothing to gain."""
    tasks = [waiting(f"t{index}", demand=Demand(cpus=8, memory_bytes=GIB)) for index in range(60)]
    decision = decide(Snapshot(now=NOW, pools=(QUICK, PLAIN)), tasks)
    assert len(decision.placements) == 16
    assert all(receipt.remedy for receipt in decision.receipts[16:])


sizes = st.builds(
    Demand,
    cpus=st.sampled_from([1, 1, 2, 4, 8]),
    memory_bytes=st.integers(1, 8).map(lambda gib: gib * GIB),
    accelerators=st.builds(Accelerators, count=st.sampled_from([0, 0, 0, 1])),
    walltime_seconds=st.integers(60, 7200),
)
places = st.builds(
    lambda index, nodes, devices, held: pool(
        f"s{index}",
        nodes=nodes,
        accelerators_per_node=devices,
        immediate=True,
        promised=Promise(jobs=1, cpus=held, cpu_seconds=600.0 * held),
    ),
    st.integers(0, 99),
    st.integers(1, 8),
    st.integers(0, 2),
    st.integers(0, 8),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(places, min_size=2, max_size=5, unique_by=lambda view: view.site),
    st.lists(sizes, min_size=PRICED_FROM, max_size=PRICED_FROM + 30),
)
def test_priced_rounds_exceed_no_capacity_and_place_no_fewer(pools: list[PoolView], wanted: list[Demand]) -> None:
    """Within each pool's processors, memory and devices; a receipt for each; the same again; as many as in plain order."""
    tasks = [waiting(f"t{index}", demand=demand) for index, demand in enumerate(wanted)]
    snapshot = Snapshot(now=NOW, pools=tuple(pools))
    decision = decide(snapshot, tasks)
    assert decide(snapshot, tasks) == decision
    assert [receipt.task_id for receipt in decision.receipts] == [task.id for task in tasks]
    by_id = {task.id: task.demand for task in tasks}
    for view in pools:
        mine = [by_id[placement.task_id] for placement in decision.placements if placement.site == view.site]
        assert view.promised.cpus + sum(d.cpus_per_node for d in mine) <= view.pool.cpus or not mine
        assert sum(d.memory_bytes for d in mine) <= view.pool.nodes * view.pool.memory_bytes_per_node
        assert sum(d.accelerators.count for d in mine) <= view.pool.nodes * view.pool.accelerators_per_node
    fewer = decide(snapshot, tasks[: PRICED_FROM - 1])  # not priced: placed in plain order
    assert len(decision.placements) >= len(fewer.placements)


def test_the_greenest_wins_when_asked() -> None:
    """Carbon = power x PUE x hours x intensity, to the gram, in the receipt; a pool that declares none comes last."""
    pools = (
        pool("coal", energy=COAL, free_cpus=16),
        pool("hydro", energy=HYDRO, free_cpus=16),
        pool("mute", free_cpus=16),
    )
    task = waiting(
        objective=Objective(goal=Goal.GREENEST), demand=Demand(cpus=4, memory_bytes=GIB, walltime_seconds=3600)
    )
    [receipt] = decide(Snapshot(now=NOW, pools=pools), [task]).receipts
    assert [candidate.why for candidate in receipt.candidates] == [Why.MORE_CARBON, Why.CHOSEN, Why.MORE_CARBON]
    assert [candidate.energy_kwh for candidate in receipt.candidates] == [Decimal("0.06"), Decimal("0.0576"), None]
    assert [candidate.carbon_grams for candidate in receipt.candidates] == [Decimal(48), Decimal("1.152"), None]


@pytest.mark.parametrize(
    ("weights", "site"),
    [(Weights(money=1.0), "cheap"), (Weights(time=1.0), "fast"), (Weights(time=1.0, money=0.1), "fast")],
)
def test_weights_decide_between_goals(weights: Weights, site: str) -> None:
    """The plan with the least weighted score is taken; what lost says that it lost by the weights."""
    fast = pool("fast", free_cpus=16, price_per_cpu_hour=Decimal(3))
    cheap = pool("cheap", free_cpus=0, queued_jobs=9, queued_cpu_seconds=1e5, price_per_cpu_hour=Decimal(1))
    task = waiting(objective=Objective(weights=weights))
    assert decide(Snapshot(now=NOW, pools=(fast, cheap)), [task]).placements[0].site == site
    assert Why.WORSE_BY_WEIGHTS in why(task, fast, cheap)


@pytest.mark.parametrize("given", [{}, {"time": -1.0}, {"money": float("nan")}])
def test_weights_without_meaning_are_refused(given: dict[str, Any]) -> None:
    """No weight at all, a negative one, or one that is no number."""
    with pytest.raises(Invalid):
        Weights(**given)


def test_devices_have_their_price() -> None:
    """Two devices for half an hour at 1.2 an hour, and a processor at 0.1."""
    view = pool("a", free_cpus=16, accelerators_per_node=2, price_per_cpu_hour=Decimal("0.1"))
    view = replace(view, price_per_accelerator_hour=Decimal("1.2"))
    demand = Demand(memory_bytes=GIB, walltime_seconds=1800, accelerators=Accelerators(count=2))
    [placement] = decide(Snapshot(now=NOW, pools=(view,)), [waiting(demand=demand)]).placements
    assert placement.price == Decimal("1.25")


def test_a_quiet_round_loads_no_numbers() -> None:
    """The brain is imported, and decides, without numpy as long as nothing is contested."""
    program = (
        "import sys; from isthmus.placement import decide; from tests.placement.test_round import *; "
        "decide(Snapshot(now=0.0, pools=(pool(),)), [waiting()]); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_tasks_of_a_group_are_kept_apart() -> None:
    """One for each site, what is there already counts, another user's group does not; the rest waits and is told why."""
    taken = replace(pool("a", free_cpus=16), apart=frozenset({("ada", "copies"), ("bob", "others")}))
    views = (taken, pool("b", free_cpus=16), pool("c", free_cpus=16, name="one"), pool("c", free_cpus=16, name="two"))
    tasks = [waiting(f"t{index}", constraints=Constraints(apart="copies")) for index in range(3)]
    tasks.append(waiting("t3", constraints=Constraints(apart="others")))
    decision = decide(Snapshot(now=NOW, pools=views), tasks)
    assert [placement.site for placement in decision.placements[:2]] == ["b", "c"]
    assert decision.placements[2].task_id == "t3"
    waits = decision.receipts[2]
    assert {candidate.why for candidate in waits.candidates} == {Why.KEPT_APART}
    assert "apart" in waits.remedy
