"""Data on its way to a task: the best source, route and window; no link is promised more than it has; no label is broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.placement import Candidate, Snapshot, WaitingTask, Why
from isthmus.domain.roads import HOME, Carriage, Held, Piece, Roads, Route, Way
from isthmus.domain.task import Constraints, Demand, Goal, Objective
from isthmus.placement import Decision, decide, impossible
from isthmus.placement.carrying import promises
from tests.placement.test_round import GIB, NOW, pool, waiting

MB = 10**6
WAYS = {"thin": Way(bytes_per_second=10 * MB), "fat": Way(bytes_per_second=100 * MB, source="measured", low=80 * MB)}
THIN, FAT = Route(links=("thin",), latency_seconds=0.01), Route(links=("fat",), latency_seconds=0.1)
BOTH = Roads(links=WAYS, routes={("b", "a"): (THIN, FAT)})


def reads(
    task_id: str = "t", size: int = 1000 * MB, name: str = "corpus@1", at: str = "b", **fields: object
) -> WaitingTask:
    regions = fields.pop("regions", frozenset())
    piece = Piece(name=name, size_bytes=size, places=frozenset({at}) if at else frozenset(), regions=regions)  # type: ignore[arg-type]
    return waiting(task_id, data=(piece,), **fields)


def placed(roads: Roads, *tasks: WaitingTask, sites: str = "a") -> Decision:
    views = tuple(pool(site, free_cpus=16) for site in sites)
    return decide(Snapshot(now=NOW, pools=views, roads=roads), tasks)


def only(decision: Decision) -> Candidate:
    [receipt] = decision.receipts
    [candidate] = receipt.candidates
    return candidate


def test_the_faster_path_is_taken_and_its_window_and_quantiles_are_told() -> None:
    """1 GB over 100 MB/s: ten seconds and the latency; nine times out of ten within what the link's low quantile gives."""
    candidate = only(placed(BOTH, reads()))
    [one] = candidate.transfers
    assert (one.source, one.target, one.links, one.begins) == ("b", "a", ("fat",), NOW)
    assert one.ends == pytest.approx(NOW + 10.1)
    assert candidate.transfer is not None
    assert candidate.transfer.seconds == pytest.approx(10.1)
    assert candidate.transfer.source == "measured"
    assert candidate.transfer.p90 == pytest.approx(12.6)
    assert candidate.late_seconds == pytest.approx((candidate.finish_seconds or 0) + 2.5)


def test_the_cheaper_path_is_taken_when_asked_and_its_price_is_part_of_the_task_s() -> None:
    """With the goal `cheapest` the slow path that costs nothing wins; `soonest` pays for the fast one."""
    roads = replace(BOTH, routes={("b", "a"): (THIN, replace(FAT, price_per_gigabyte=Decimal("0.5")))})
    cheap = only(placed(roads, reads(objective=Objective(goal=Goal.CHEAPEST))))
    assert (cheap.transfers[0].links, cheap.price) == (("thin",), Decimal(0))
    soon = only(placed(roads, reads()))
    assert (soon.transfers[0].links, soon.price) == (("fat",), Decimal("0.5"))


def test_what_was_promised_of_a_link_is_not_there_for_others() -> None:
    """While half of the fat link is promised a transfer runs at the other half; a full one is left until it is free."""
    half = only(
        placed(replace(BOTH, held=(Held(link="fat", begins=NOW, ends=NOW + 4, bytes_per_second=50 * MB),)), reads())
    )
    assert [(s.begins - NOW, s.ends - NOW, s.bytes_per_second) for s in half.transfers[0].stretches] == [
        (0, 4, 50 * MB),
        (4, pytest.approx(12), 100 * MB),
    ]
    full = only(
        placed(replace(BOTH, held=(Held(link="fat", begins=NOW, ends=NOW + 60, bytes_per_second=100 * MB),)), reads())
    )
    assert (full.transfers[0].links, full.transfers[0].begins) == (("fat",), NOW + 60)
    longer = Held(link="fat", begins=NOW, ends=NOW + 600, bytes_per_second=100 * MB)
    assert only(placed(replace(BOTH, held=(longer,)), reads())).transfers[0].links == ("thin",)


def test_tasks_of_a_round_share_data_that_comes_to_the_same_site() -> None:
    """The second task waits for the transfer of the first and pays nothing for it; the third needs other data."""
    decision = placed(BOTH, reads("t1"), reads("t2"), reads("t3", name="other@1"))
    first, second, third = (receipt.candidates[0] for receipt in decision.receipts)
    assert not first.transfers[0].shared
    assert second.transfers[0].shared
    assert second.transfer is not None
    assert second.transfer.seconds == pytest.approx(10.1)
    assert third.transfers[0].begins == pytest.approx(NOW + 10)
    assert third.transfers[0].held_up


def test_data_that_is_there_or_is_coming_does_not_move() -> None:
    """A site that holds it wins; one to which it is promised gets the task when it is there."""
    there = placed(BOTH, reads(), sites="ab")
    assert there.placements[0].site == "b"
    assert not there.placements[0].transfers
    coming = only(placed(replace(BOTH, coming={("corpus@1", "a"): NOW + 3}), reads()))
    assert coming.transfer is not None
    assert (coming.transfers[0].shared, coming.transfer.seconds) == (True, 3.0)


def test_two_pieces_of_one_task_do_not_get_the_same_room() -> None:
    """Each takes what the other leaves."""
    pieces = tuple(Piece(name=f"d{n}", size_bytes=1000 * MB, places=frozenset({"b"})) for n in range(2))
    roads = replace(BOTH, routes={("b", "a"): (FAT,)})
    candidate = only(placed(roads, waiting(data=pieces)))
    assert [one.begins - NOW for one in candidate.transfers] == [0, pytest.approx(10)]
    assert candidate.transfer is not None
    assert candidate.transfer.seconds == pytest.approx(20.1)


def test_uploads_take_the_way_from_the_service_where_one_is_known() -> None:
    """Else they take what the site declares, as before."""
    known = replace(BOTH, routes={(HOME, "a"): (FAT,)})
    assert only(placed(known, waiting(input_bytes=100 * MB))).transfers[0].source == HOME
    unknown = only(placed(BOTH, waiting(input_bytes=100 * MB)))
    assert unknown.transfers == ()
    assert unknown.transfer is not None
    assert (unknown.transfer.seconds, unknown.transfer.source) == (2.0, "declared")


@pytest.mark.parametrize(
    ("task", "roads", "why", "helps"),
    [
        (reads(regions=frozenset({"eu"})), BOTH, Why.DATA_MAY_NOT_LEAVE, "ask its operator to say its region"),
        (reads(at=""), BOTH, Why.NO_REPLICA, "whole somewhere"),
        (reads(regions=frozenset({""})), Roads(home_region="eu"), Why.NO_PATH, "isthmus data cp"),
        (
            reads(),
            replace(
                BOTH, held=tuple(Held(link=x, begins=0, ends=NOW + 10**7, bytes_per_second=100 * MB) for x in WAYS)
            ),
            Why.PATH_FULL,
            "as soon as the path has room",
        ),
    ],
)
def test_each_reason_of_the_data_has_its_name_its_figures_and_a_remedy(
    task: WaitingTask, roads: Roads, why: Why, helps: str
) -> None:
    """A site that cannot get the data is refused by name."""
    [receipt] = placed(roads, task).receipts
    [candidate] = receipt.candidates
    assert candidate.why is why
    assert candidate.wanted
    assert candidate.offered
    assert helps in receipt.remedy


def test_without_a_map_data_goes_through_the_service_unless_it_may_not_leave() -> None:
    """Nobody declared a network: twice over the site's own line, and the estimate says so."""
    candidate = only(placed(Roads(), reads(size=100 * MB)))
    assert candidate.transfer is not None
    assert (candidate.transfer.seconds, candidate.transfer.source) == (4.0, "through the service")
    kept = replace(pool("a", free_cpus=16), region="eu")
    task = reads(size=100 * MB, regions=frozenset({"eu"}))
    for home, why in (("us", Why.NO_PATH), ("eu", Why.CHOSEN)):
        snapshot = Snapshot(now=NOW, pools=(kept,), roads=Roads(home_region=home))
        assert decide(snapshot, [task]).receipts[0].candidates[0].why is why


def test_a_deadline_that_the_network_cannot_keep_is_refused_with_the_end_that_can_be() -> None:
    """100 GB over 100 MB/s is more than a quarter of an hour, on an idle pool and an empty network."""
    from datetime import UTC, datetime

    task = reads(size=100_000 * MB, objective=Objective(deadline=datetime.fromtimestamp(NOW + 900, UTC)))
    error = impossible(Snapshot(now=NOW, pools=(pool("a", free_cpus=16),), roads=BOTH), task)
    assert error is not None
    assert error.field == "objective.deadline"


def over_promised(roads: Roads, carriages: Iterable[Carriage]) -> float:
    """The largest share of a link that is promised at any moment."""
    held = [*roads.held, *promises(carriages)]
    by_link = defaultdict(list)
    for one in held:
        by_link[one.link].append(one)
    worst = 0.0
    for link, many in by_link.items():
        for edge in {one.begins for one in many}:
            rate = sum(one.bytes_per_second for one in many if one.begins <= edge < one.ends)
            worst = max(worst, rate / roads.links[link].bytes_per_second)
    return worst


names = st.sampled_from(["l0", "l1", "l2", "l3"])
routes = st.lists(names, min_size=1, max_size=3, unique=True).map(
    lambda links: Route(links=tuple(links), latency_seconds=0.01 * len(links), price_per_gigabyte=Decimal(len(links)))
)
pairs = [(one, other) for one in "abc" for other in "abc" if one != other]
maps = st.builds(
    Roads,
    links=st.fixed_dictionaries(
        {f"l{n}": st.builds(Way, bytes_per_second=st.sampled_from([1e6, 7e6, 5e7])) for n in range(4)}
    ),
    routes=st.fixed_dictionaries({pair: st.lists(routes, max_size=3).map(tuple) for pair in pairs}),
)
pieces = st.builds(
    Piece,
    name=st.sampled_from(["d0", "d1", "d2", "d3"]),
    size_bytes=st.integers(0, 2000).map(lambda size: size * MB),
    places=st.frozensets(st.sampled_from("abc"), max_size=2),
    regions=st.frozensets(st.sampled_from(["ra", "rb"]), max_size=1),
)
tasks_with_data = st.builds(
    lambda data, cpus, goal: waiting(
        data=tuple({piece.name: piece for piece in data}.values()),
        demand=Demand(cpus=cpus, memory_bytes=GIB, walltime_seconds=300),
        objective=Objective(goal=goal),
        constraints=Constraints(),
    ),
    st.lists(pieces, max_size=3),
    st.integers(1, 8),
    st.sampled_from([Goal.SOONEST, Goal.CHEAPEST]),
)


@settings(max_examples=150, deadline=None)
@given(roads=maps, tasks=st.lists(tasks_with_data, max_size=12))
def test_links_are_never_over_promised_labels_hold_and_all_is_the_same_again(
    roads: Roads, tasks: list[WaitingTask]
) -> None:
    """Whatever the map and the tasks: within every link, every label kept, each byte of each transfer in its stretches."""
    views = tuple(pool(site, region=f"r{site}") for site in "abc")
    many = [replace(task, id=f"t{number}") for number, task in enumerate(tasks)]
    snapshot = Snapshot(now=NOW, pools=views, roads=roads)
    decision = decide(snapshot, many)
    moved = [one for placement in decision.placements for one in placement.transfers]
    assert over_promised(roads, moved) <= 1 + 1e-9
    by_id = {task.id: task for task in many}
    for placement in decision.placements:
        at = {"a": "ra", "b": "rb", "c": "rc"}[placement.site]
        for piece in by_id[placement.task_id].data:
            assert not piece.regions or at in piece.regions
            if placement.site not in piece.places:
                assert any(one.name == piece.name for one in placement.transfers)
    for one in moved:
        if one.stretches:
            sent = sum((s.ends - s.begins) * s.bytes_per_second for s in one.stretches)
            assert sent == pytest.approx(one.size_bytes)
    assert decide(snapshot, many) == decision


def test_a_contested_link_has_a_price_and_the_receipt_names_it() -> None:
    """Sixty tasks with data at b and room at a and c: the thin link to a is scarce, and some are told so."""
    roads = Roads(
        links={"to-a": Way(bytes_per_second=10 * MB), "to-c": Way(bytes_per_second=20 * MB)},
        routes={("b", "a"): (Route(links=("to-a",)),), ("b", "c"): (Route(links=("to-c",)),)},
    )
    views = (pool("a", nodes=100, free_cpus=800), pool("c", nodes=100, free_cpus=800))
    many = [
        reads(
            f"t{n}",
            size=(100 + 20 * (n % 10)) * MB,
            name=f"d{n}@1",
            demand=Demand(memory_bytes=GIB, walltime_seconds=20),
        )
        for n in range(60)
    ]
    decision = decide(Snapshot(now=NOW, pools=views, roads=roads), many)
    assert decision.contested
    assert len(decision.placements) == 60
    assert {price.link for price in decision.prices if price.link} <= {"to-a", "to-c"}
    assert any(price.link for price in decision.prices)
    assert over_promised(roads, [one for placement in decision.placements for one in placement.transfers]) <= 1 + 1e-9


SLICED = Roads(
    links={"fat": Way(bytes_per_second=50 * MB), "cut/fat": Way(bytes_per_second=40 * MB)},
    routes={("b", "a"): (Route(links=("fat",)),)},
    sliced={("own", "b", "a"): (Route(links=("cut/fat",)),)},
)


def test_a_slice_is_its_project_s_first_and_nobody_else_s() -> None:
    """Data of the slice's project is promised its part before anything of what others share; then it shares; others never have the part."""
    tasks = [
        reads("x", name="other/d@1"),
        reads("1", name="own/a@1"),
        reads("2", name="own/b@1"),
        reads("3", name="own/c@1"),
        reads("y", name="else/d@1"),
    ]
    receipts = placed(SLICED, *tasks).receipts
    ways = {r.task_id: next(c for c in r.candidates if c.why is Why.CHOSEN).transfers[0] for r in receipts}
    assert (ways["x"].links, ways["x"].bytes_per_second) == (("fat",), pytest.approx(50 * MB))
    assert (ways["1"].links, ways["1"].begins) == (("cut/fat",), NOW)
    assert ways["1"].bytes_per_second == pytest.approx(40 * MB)
    assert (ways["2"].links, ways["2"].begins) == (("cut/fat",), pytest.approx(NOW + 25))
    assert ways["3"].links == ("fat",)  # its slice is promised for 50 s; beside it is room from 20 s on
    assert ways["y"].links == ("fat",)
    alone = only(placed(SLICED, reads(name="own/a@1"))).transfers[0]
    assert alone.links == ("cut/fat",)  # sooner by a quarter over the rest, which is left for others


def test_a_slice_that_is_far_slower_is_not_waited_for() -> None:
    """With a tenth of what is free beside it, it goes over the link that all share."""
    thin = replace(SLICED, links={**SLICED.links, "cut/fat": Way(bytes_per_second=5 * MB)})
    assert only(placed(thin, reads(name="own/a@1"))).transfers[0].links == ("fat",)


def test_bound_data_is_promised_no_way_over_a_relay_outside_of_its_regions() -> None:
    """The faster way leads over a site in the south; data of the north takes the other one, or none."""
    over = Route(links=("fat",), relays=frozenset({"south"}))
    roads = replace(BOTH, routes={("b", "a"): (over, THIN)}, home_region="")
    north = frozenset({"north"})
    view = pool("a", region="north", free_cpus=16)

    def links(roads: Roads, task: WaitingTask) -> tuple[Why, tuple[str, ...]]:
        [receipt] = decide(Snapshot(now=NOW, pools=(view,), roads=roads), [task]).receipts
        [one] = receipt.candidates
        return one.why, one.transfers[0].links if one.transfers else ()

    assert links(roads, reads()) == (Why.CHOSEN, ("fat",))
    assert links(roads, reads(regions=north)) == (Why.CHOSEN, ("thin",))
    assert links(replace(roads, routes={("b", "a"): (over,)}), reads(regions=north)) == (Why.NO_PATH, ())
    inside = replace(over, relays=north)
    assert links(replace(roads, routes={("b", "a"): (inside, THIN)}), reads(regions=north)) == (Why.CHOSEN, ("fat",))
