"""The brain decides the same for the same snapshot, within every capacity, and explains each refusal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.placement import KeptOutput, PoolView, Promise, Snapshot, WaitingTask, Why
from isthmus.domain.site import OwnShare, Pool, SiteState
from isthmus.domain.task import Accelerators, Constraints, Demand, Goal, Objective
from isthmus.placement import decide

GIB = 1024**3
NOW = 1_000_000.0


def pool(site: str = "a", **fields: Any) -> PoolView:
    of_pool = {name: fields.pop(name) for name in list(fields) if name in Pool.__slots__}
    plain: dict[str, Any] = {"name": "main", "nodes": 2, "cpus_per_node": 8, "memory_bytes_per_node": 16 * GIB}
    return PoolView(site=site, pool=Pool(**{**plain, **of_pool}), **fields)


def waiting(task_id: str = "t", **fields: Any) -> WaitingTask:
    demand = fields.pop("demand", Demand(memory_bytes=GIB, walltime_seconds=600))
    objective, constraints = fields.pop("objective", Objective()), fields.pop("constraints", Constraints())
    return WaitingTask(id=task_id, user="ada", demand=demand, objective=objective, constraints=constraints, **fields)


def why(task: WaitingTask, *views: PoolView) -> list[Why]:
    [receipt] = decide(Snapshot(now=NOW, pools=views), [task]).receipts
    return [candidate.why for candidate in receipt.candidates]


BIG = Demand(memory_bytes=GIB)


@pytest.mark.parametrize(
    ("task", "view", "reason"),
    [
        (waiting(constraints=Constraints(sites_deny=("a",))), pool(), Why.SITE_DENIED),
        (waiting(constraints=Constraints(sites_allow=("b",))), pool(), Why.SITE_DENIED),
        (waiting(constraints=Constraints(regions_allow=("north",))), pool(region="south"), Why.REGION_DENIED),
        (waiting(constraints=Constraints(regions_deny=("south",))), pool(region="south"), Why.REGION_DENIED),
        (waiting(constraints=Constraints(pools_allow=("gpu",))), pool(), Why.POOL_DENIED),
        (waiting(constraints=Constraints(trust="high")), pool(trust="low"), Why.TRUST_TOO_LOW),
        (waiting(), pool(accounts=frozenset({"bob"})), Why.NO_ACCOUNT),
        (waiting(input_sites=frozenset({"b"})), pool(), Why.DATA_ELSEWHERE),
        (waiting(keeps=(KeptOutput(name="p/d"),)), pool(), Why.SITE_KEEPS_NO_DATA),
        (
            waiting(keeps=(KeptOutput(name="p/d", regions=frozenset({"north"})),)),
            pool(region="south", keeps_data=True),
            Why.DATA_MAY_NOT_LEAVE,
        ),
        (waiting(needs_container=True), pool(), Why.NO_CONTAINERS),
        (waiting(options=frozenset({"qos"})), pool(features=frozenset({"options"})), Why.OPTION_REFUSED),
        (waiting(), pool(state=SiteState.DRAINING), Why.SITE_DRAINING),
        (waiting(), pool(reachable=False), Why.SITE_UNREACHABLE),
        (waiting(), pool(up=False), Why.POOL_DOWN),
        (waiting(demand=replace(BIG, nodes=3)), pool(), Why.TOO_FEW_NODES),
        (waiting(demand=replace(BIG, cpus=5, tasks_per_node=2)), pool(), Why.TOO_FEW_CPUS),
        (waiting(demand=Demand(memory_bytes=17 * GIB)), pool(), Why.TOO_LITTLE_MEMORY),
        (waiting(demand=replace(BIG, disk_bytes=2)), pool(disk_bytes_per_node=1), Why.TOO_LITTLE_DISK),
        (waiting(demand=replace(BIG, accelerators=Accelerators(count=1))), pool(), Why.TOO_FEW_ACCELERATORS),
        (
            waiting(demand=replace(BIG, accelerators=Accelerators(count=1, kind="h100"))),
            pool(accelerators_per_node=4, accelerator_kind="a100"),
            Why.WRONG_ACCELERATOR,
        ),
        (waiting(demand=replace(BIG, licences={"matlab": 1})), pool(), Why.NO_LICENCE),
        (waiting(demand=replace(BIG, walltime_seconds=7200)), pool(max_walltime_seconds=3600), Why.WALLTIME_TOO_LONG),
    ],
)
def test_each_reason_has_its_name_its_figures_and_a_remedy(task: WaitingTask, view: PoolView, reason: Why) -> None:
    """A pool that cannot take a task is refused by name, with both figures and something that would help."""
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task]).receipts
    [candidate] = receipt.candidates
    assert candidate.why is reason
    assert candidate.wanted
    assert candidate.offered
    assert receipt.remedy
    assert not receipt.chosen_site


def test_a_site_that_says_no_region_is_asked_for_it() -> None:
    """ "Allow region none" would be no help."""
    task = waiting(constraints=Constraints(regions_allow=("north",)))
    [receipt] = decide(Snapshot(now=NOW, pools=(pool("a", region=""),)), [task]).receipts
    assert receipt.remedy == "To run at a/main: ask its operator to say its region."


def test_an_output_stays_only_where_data_is_kept() -> None:
    """The site that would be sooner keeps none, another is outside of the output's regions; tasks without such an output are not held."""
    views = (
        pool("bare", cpus_per_node=64),
        pool("south", region="south", keeps_data=True),
        pool("north", region="north", keeps_data=True, promised=Promise(cpus=8)),
    )
    keeping = waiting("k", keeps=(KeptOutput(name="p/d", regions=frozenset({"north"})),))
    kept, plain = decide(Snapshot(now=NOW, pools=views), [keeping, waiting("p")]).receipts
    assert kept.chosen_site == "north"
    assert [c.why for c in kept.candidates] == [Why.SITE_KEEPS_NO_DATA, Why.DATA_MAY_NOT_LEAVE, Why.CHOSEN]
    assert plain.chosen_site == "bare"


def test_the_earliest_finish_wins() -> None:
    """An idle pool beats one with a long queue."""
    busy = pool("a", free_cpus=0, queued_jobs=9, queued_cpu_seconds=1e6)
    assert why(waiting(), busy, pool("b", free_cpus=16)) == [Why.LATER_FINISH, Why.CHOSEN]


def test_the_cheapest_wins_when_asked() -> None:
    """With the goal `cheapest` the price decides, not the time."""
    dear = pool("a", free_cpus=16, price_per_cpu_hour=Decimal("1"))
    cheap = pool("b", free_cpus=0, queued_jobs=5, queued_cpu_seconds=1e5, price_per_cpu_hour=Decimal("0.1"))
    assert why(waiting(objective=Objective(goal=Goal.CHEAPEST)), dear, cheap) == [Why.DEARER, Why.CHOSEN]


def test_inputs_far_away_count() -> None:
    """A site that takes long to send the inputs to loses."""
    slow = pool("a", free_cpus=16, bandwidth_bytes_per_second=1e6)
    fast = pool("b", free_cpus=16, bandwidth_bytes_per_second=1e9)
    assert why(waiting(input_bytes=10**10), slow, fast) == [Why.LATER_FINISH, Why.CHOSEN]


def test_tasks_of_one_round_see_each_other() -> None:
    """Promises of the round count: two equal pools share equal tasks, no herd."""
    views = (pool("a", free_cpus=16), pool("b", free_cpus=16))
    tasks = [waiting(f"t{index}", demand=Demand(cpus=8, memory_bytes=GIB)) for index in range(4)]
    sites = [placement.site for placement in decide(Snapshot(now=NOW, pools=views), tasks).placements]
    assert sorted(sites) == ["a", "a", "b", "b"]


def test_a_failed_site_is_avoided_while_another_could_take_it() -> None:
    """After a failure at one site the task goes to another, waits for it if it is full, and returns only if alone."""
    full = pool("b", immediate=True, promised=Promise(jobs=1, cpus=16))
    assert why(waiting(avoid_sites=("a",)), pool("a"), pool("b")) == [Why.FAILED_HERE, Why.CHOSEN]
    assert why(waiting(avoid_sites=("a",)), pool("a"), full) == [Why.FAILED_HERE, Why.FULL_NOW]
    assert why(waiting(avoid_sites=("a",)), pool("a"), pool("b", up=False)) == [Why.CHOSEN, Why.POOL_DOWN]


def test_a_deadline_that_cannot_be_met_names_the_earliest_end() -> None:
    """The receipt offers the earliest end there is."""
    task = waiting(objective=Objective(deadline=datetime.fromtimestamp(NOW + 60, UTC)))
    [receipt] = decide(Snapshot(now=NOW, pools=(pool(free_cpus=16),)), [task]).receipts
    assert receipt.candidates[0].why is Why.MISSES_DEADLINE
    assert receipt.candidates[0].offered in receipt.remedy


def test_a_budget_that_is_too_small_names_the_cheapest_price() -> None:
    """The receipt offers the lowest price there is."""
    task = waiting(objective=Objective(budget=Decimal("0.01")))
    view = pool(free_cpus=16, price_per_cpu_hour=Decimal("6"))
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task]).receipts
    assert receipt.candidates[0].why is Why.OVER_BUDGET
    assert "1.000000" in receipt.remedy


demands = st.builds(
    Demand,
    nodes=st.integers(1, 3),
    cpus=st.integers(1, 10),
    memory_bytes=st.integers(1, 20).map(lambda gib: gib * GIB),
    accelerators=st.builds(Accelerators, count=st.integers(0, 5)),
    walltime_seconds=st.integers(1, 10_000),
)
views = st.builds(
    lambda index, cpus, devices, held: pool(
        f"s{index}",
        cpus_per_node=cpus,
        accelerators_per_node=devices,
        immediate=True,
        promised=Promise(jobs=1, cpus=held),
    ),
    st.integers(0, 99),
    st.integers(1, 16),
    st.integers(0, 4),
    st.integers(0, 8),
)


@settings(max_examples=200)
@given(st.lists(views, max_size=5, unique_by=lambda view: view.site), st.lists(demands, max_size=30))
def test_no_capacity_is_ever_exceeded(pools: list[PoolView], wanted: list[Demand]) -> None:
    """Whatever comes, promises of processors, memory and devices stay within each pool; every task has a receipt."""
    tasks = [waiting(f"t{index}", demand=demand) for index, demand in enumerate(wanted)]
    snapshot = Snapshot(now=NOW, pools=tuple(pools))
    decision = decide(snapshot, tasks)
    assert decide(snapshot, tasks) == decision
    assert [receipt.task_id for receipt in decision.receipts] == [task.id for task in tasks]
    by_id = {task.id: task.demand for task in tasks}
    for view in pools:
        mine = [by_id[placement.task_id] for placement in decision.placements if placement.site == view.site]
        if mine:
            assert view.promised.cpus + sum(d.nodes * d.cpus_per_node for d in mine) <= view.pool.cpus
            assert sum(d.nodes * d.memory_bytes for d in mine) <= view.pool.nodes * view.pool.memory_bytes_per_node
            devices = view.pool.nodes * view.pool.accelerators_per_node
            assert sum(d.nodes * d.accelerators.count for d in mine) <= devices


@settings(max_examples=100)
@given(st.lists(views, min_size=1, max_size=4, unique_by=lambda view: view.site), demands)
def test_the_remedy_is_true(pools: list[PoolView], demand: Demand) -> None:
    """A task that no pool could ever take gets a remedy that names a pool of the snapshot."""
    [receipt] = decide(Snapshot(now=NOW, pools=tuple(pools)), [waiting(demand=demand)]).receipts
    if not receipt.chosen_site and all(c.why is not Why.FULL_NOW for c in receipt.candidates):
        assert any(f"{view.site}/main" in receipt.remedy for view in pools)


def test_our_own_jobs_are_waited_for_by_what_is_left_of_them_also_beside_others() -> None:
    """A stranger's job of 100 s on all 16 processors waits, and ten of ours of an hour's limit that are known to take 16 s."""
    own = OwnShare(running_cpus=16, queued_jobs=9, cpu_seconds=10 * 16 * 3600.0)
    view = pool(
        free_cpus=0,
        queued_jobs=10,
        queued_cpu_seconds=1600.0 + 9 * 16 * 3600.0,
        running_cpu_seconds_left=16 * 3600.0,
        own=own,
        promised=Promise(jobs=10, cpus=30, cpu_seconds=10 * 16 * 16.0),
    )
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [waiting()]).receipts
    wait = receipt.candidates[0].wait
    assert wait is not None
    assert wait.seconds == pytest.approx(2.0 + 100.0 + 160.0)
