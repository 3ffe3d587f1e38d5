"""The row of a home site: its own users start no later than they would alone, whatever guests want; without the row they do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.placement import Claim, Estimate, Gang, HomeLine, PoolView, Promise, Snapshot, WaitingTask, Why
from isthmus.domain.site import Pool
from isthmus.domain.task import Accelerators, Constraints, Demand, Objective
from isthmus.placement import decide

NOW = 1e6
GIB = 1024**3
HORIZON = 60  # seconds on the grid that the test itself counts on


@dataclass(frozen=True, slots=True)
class Small:
    """A pool of `cpus`, what runs there, what its own users have waiting, and guests who want it."""

    cpus: int
    running: list[tuple[int, int]]
    own: list[tuple[int, int]]
    guests: list[tuple[int, int, int]]  # processors, seconds, 90 % quantile


jobs = st.tuples(st.integers(1, 6), st.integers(1, 12))
worlds = st.builds(
    Small,
    st.integers(4, 8),
    st.lists(jobs, max_size=3),
    st.lists(jobs, min_size=1, max_size=4),
    st.lists(
        jobs.flatmap(lambda job: st.tuples(st.just(job[0]), st.just(job[1]), st.integers(job[1], 12))), max_size=5
    ),
).map(lambda one: replace_running(one))


def replace_running(one: Small) -> Small:
    """What runs fits, and what waits could."""
    kept: list[tuple[int, int]] = []
    for cpus, seconds in one.running:
        if sum(held for held, _ in kept) + cpus <= one.cpus:
            kept.append((cpus, seconds))
    return replace(one, running=kept, own=[(min(cpus, one.cpus), seconds) for cpus, seconds in one.own])


def task(name: str, cpus: int, seconds: int, late: int, home: str, **limits: tuple[str, ...]) -> WaitingTask:
    run = Estimate(seconds=seconds, source="learned", p10=1, p50=seconds, p90=late)
    demand = Demand(cpus=cpus, memory_bytes=1024**2, walltime_seconds=100)
    return WaitingTask(
        id=name,
        user="ada",
        home=home,
        demand=demand,
        objective=Objective(),
        constraints=Constraints(**limits),
        run=run,
    )


def decided(one: Small, *, row: bool, at_site: int) -> tuple[list[tuple[int, int]], list[str]]:
    """Guests that start at the site (processors, 90 % quantile), and the own tasks that were placed; the first `at_site` of what its own users
    have waiting waits in the site's queue already, the rest in the service, behind all guests."""
    claims = [Claim(cpus=cpus, seconds=seconds) for cpus, seconds in one.own[:at_site]]
    own = [task(f"own{i}", *job, job[1], "a") for i, job in enumerate(one.own[at_site:])]
    guests = [task(f"guest{i}", *guest, "") for i, guest in enumerate(one.guests)]
    running = [Claim(cpus=cpus, seconds=seconds) for cpus, seconds in one.running]
    busy = sum(claim.cpus for claim in running)
    view = PoolView(
        site="a",
        pool=Pool(name="main", cpus_per_node=one.cpus, memory_bytes_per_node=GIB, immediate=True),
        promised=Promise(jobs=len(running), cpus=busy, cpu_seconds=sum(c.cpus * c.seconds for c in running)),
        home=HomeLine(running=tuple(running), waiting=tuple(claims)) if row else None,
    )
    snapshot = Snapshot(now=NOW, pools=(view,), homebound=tuple(own) if row else ())
    placed = {one.task_id for one in decide(snapshot, [*guests, *own]).placements}
    started = [(cpus, late) for i, (cpus, _, late) in enumerate(one.guests) if f"guest{i}" in placed]
    return started, sorted(placed)


def starts(cpus: int, holding: list[tuple[int, int]], own: list[tuple[int, int]]) -> list[int]:
    """When each of a site's own starts, second by second: in order, each as soon as there is room to its end beside all before it."""
    free = [cpus] * (HORIZON * 2)
    for held, seconds in holding:
        for second in range(seconds):
            free[second] -= held
    found = []
    for wanted, seconds in own:
        begin = next(
            at
            for at in range(HORIZON * 2)
            if all(left >= wanted for left in free[at : at + seconds]) and at < HORIZON * 2 - seconds
        )
        for second in range(begin, begin + seconds):
            free[second] -= wanted
        found.append(begin)
    return found


@given(worlds, st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_with_the_row_no_own_user_starts_later_than_alone(one: Small, at_site: int) -> None:
    """Whatever guests are let in, each of the site's own jobs has the start that it has without them."""
    guests, _ = decided(one, row=True, at_site=at_site)
    alone = starts(one.cpus, one.running, one.own)
    assert starts(one.cpus, [*one.running, *guests], one.own) == alone


WORLD = Small(cpus=4, running=[(2, 5)], own=[(4, 5)], guests=[(2, 10, 12), (2, 3, 4)])


def test_without_the_row_an_own_user_starts_later() -> None:
    """Two idle processors, an own task that wants four in 5 s: without the row the long guest takes them, with it the short one only."""
    guests, _ = decided(WORLD, row=False, at_site=0)
    assert guests == [(2, 12)]
    assert starts(4, [*WORLD.running, *guests], WORLD.own) == [12]
    guests, _ = decided(WORLD, row=True, at_site=0)
    assert guests == [(2, 4)]
    assert starts(4, [*WORLD.running, *guests], WORLD.own) == starts(4, WORLD.running, WORLD.own) == [5]


def test_a_guest_is_told_why_with_figures() -> None:
    """The reason has a name, what was wanted and what there is; the row's cost is in the receipt, as the plan that it had."""
    view = PoolView(
        site="a",
        pool=Pool(name="main", cpus_per_node=4, memory_bytes_per_node=GIB, immediate=True),
        home=HomeLine(running=(Claim(cpus=2, seconds=50.0),), waiting=(Claim(cpus=4, seconds=50.0),)),
        promised=Promise(jobs=1, cpus=2, cpu_seconds=100.0),
    )
    [receipt] = decide(Snapshot(now=NOW, pools=(view,)), [task("t", 2, 90, 120, "b")]).receipts
    [candidate] = receipt.candidates
    assert candidate.why is Why.HOME_FIRST
    assert (candidate.wanted, candidate.offered) == (
        "2 processors for 2m 00s",
        "0 processors beside 1 waiting of its own users",
    )
    assert candidate.finish_seconds is not None
    assert "own users" in receipt.remedy


def test_guests_do_not_queue_at_a_home_site() -> None:
    """A full batch pool takes a task of its own people into its queue, and no guest; where the row is off both wait there."""
    pool = Pool(name="main", cpus_per_node=4, memory_bytes_per_node=GIB, free_cpus=0, running_cpu_seconds_left=400.0)
    line = HomeLine(running=(Claim(cpus=4, seconds=100.0),))
    for home, row, chosen in (("a", line, "a"), ("", line, ""), ("", None, "a")):
        snapshot = Snapshot(now=NOW, pools=(PoolView(site="a", pool=pool, home=row),))
        [receipt] = decide(snapshot, [task("t", 1, 10, 20, home)]).receipts
        assert receipt.chosen_site == chosen


def test_devices_are_kept_too() -> None:
    """An own job that waits for the only free device has it kept, although there are processors enough."""
    pool = Pool(name="gpu", cpus_per_node=64, memory_bytes_per_node=GIB, accelerators_per_node=2, free_cpus=60)
    line = HomeLine(
        running=(Claim(cpus=1, accelerators=1, seconds=30.0),), waiting=(Claim(cpus=1, accelerators=2, seconds=60.0),)
    )
    guest = task("t", 1, 90, 90, "")
    with_device = replace(
        guest, demand=Demand(cpus=1, memory_bytes=1024**2, accelerators=Accelerators(count=1), walltime_seconds=100)
    )
    snapshot = Snapshot(now=NOW, pools=(PoolView(site="a", pool=pool, home=line),))
    plain, device = decide(snapshot, [guest, replace(with_device, id="u")]).receipts
    assert plain.chosen_site == "a"
    assert device.candidates[0].why is Why.HOME_FIRST
    assert device.candidates[0].offered.startswith("0 accelerators")


def test_an_own_task_that_goes_elsewhere_leaves_its_room_to_guests() -> None:
    """The room planned for it at home is a guest's in the same round, once the task has a better place."""
    home = PoolView(
        site="a",
        pool=Pool(name="main", cpus_per_node=4, memory_bytes_per_node=GIB, immediate=True),
        home=HomeLine(running=(Claim(cpus=2, seconds=50.0),)),
        promised=Promise(jobs=1, cpus=2, cpu_seconds=100.0),
    )
    away = PoolView(site="b", pool=Pool(name="main", cpus_per_node=4, memory_bytes_per_node=GIB, immediate=True))
    own, guest = task("own", 4, 60, 60, "a"), task("t", 2, 90, 120, "", sites_allow=("a",))
    snapshot = Snapshot(now=NOW, pools=(home, away), homebound=(own,))
    decision = decide(snapshot, [own, guest])
    assert [(one.task_id, one.site) for one in decision.placements] == [("own", "b"), ("t", "a")]
    assert [one.task_id for one in decide(replace(snapshot, pools=(home,)), [own, guest]).placements] == []


def test_a_guest_that_may_be_held_counts_with_its_hold() -> None:
    """What fits beside the plans of the own users for its run does not for its run and the longest that it may be held until the other part of
    its gang is there."""
    home = HomeLine(running=(Claim(cpus=4, seconds=20),), waiting=(Claim(cpus=8, seconds=10),))
    pool = Pool(name="main", cpus_per_node=8, memory_bytes_per_node=GIB, immediate=True)
    views = (
        PoolView(site="a", pool=pool, promised=Promise(jobs=1, cpus=4, cpu_seconds=80.0), home=home),
        PoolView(site="b", pool=pool),
    )

    def gang(hold: float) -> list[WaitingTask]:
        return [
            replace(task(f"g{part}", 2, 5, 8, ""), gang=Gang(id="g", part=part, parts=2, hold_seconds=hold))
            for part in range(2)
        ]

    assert len(decide(Snapshot(now=NOW, pools=views), gang(10)).placements) == 2
    late = decide(Snapshot(now=NOW, pools=views), gang(60))
    assert not late.placements
    assert {c.why for c in late.receipts[0].candidates if c.site == "a"} == {Why.HOME_FIRST}
