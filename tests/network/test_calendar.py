"""The calendar: what is promised fits and is met, also after moving others, also after a failure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.domain.errors import Conflict, Invalid, NotFound
from isthmus.network.admission import admit, affected, replan
from isthmus.network.calendar import Booking, Calendar, Transfer
from isthmus.network.paths import Constraints, shortest_paths
from isthmus.network.survival import Guard
from isthmus.network.topology import Link, Topology
from isthmus.network.trees import distribution_trees
from tests.network.drawn import topologies

SLOT = 10.0


def fits(calendar: Calendar) -> bool:
    """No link is promised beyond its capacity in any slot, counted afresh from the promises; room is the rest."""
    used = sum((booking.use(len(calendar.capacity)) for booking in calendar.bookings.values()), np.zeros(1))
    within = bool((used <= calendar.capacity * (1 + 1e-6)).all())
    return within and np.allclose(calendar.capacity - used, calendar.room, atol=1e-5 * calendar.capacity.max())


def met(calendar: Calendar, key: str) -> bool:
    """All bytes inside the window, never over the rate cap, each route from source to a target."""
    booking = calendar.bookings[key]
    transfer, window = booking.transfer, calendar.window(booking.transfer)
    inside = booking.rates[:, window.start : window.stop]
    assert booking.rates.sum() == pytest.approx(inside.sum())
    assert (booking.rates.sum(axis=0) <= transfer.rate_cap_bits_per_second * (1 + 1e-6)).all()
    assert window.start * SLOT >= transfer.release_seconds - 1e-6
    assert window.stop * SLOT <= transfer.deadline_seconds + 1e-6
    return calendar.sent_bytes(booking) == pytest.approx(transfer.volume_bytes, rel=1e-5)


def ring(count: int = 4, capacity: float = 8e6) -> Topology:
    """A ring in both directions: link 2i from i to i + 1, link 2i + 1 back."""
    names = [str(node) for node in range(count)]
    links = []
    for node in range(count):
        ends = names[node], names[(node + 1) % count]
        for source, target in (ends, ends[::-1]):
            links.append(Link(source=source, target=target, capacity_bits_per_second=capacity))
    return Topology.of(names, links)


def transfer(key: str, megabytes: float, release: float, deadline: float, **more: object) -> Transfer:
    """From node 0 to node 1."""
    given = {
        "id": key,
        "source": 0,
        "targets": (1,),
        "volume_bytes": megabytes * 1e6,
        "release_seconds": release,
        "deadline_seconds": deadline,
    }
    return Transfer(**(given | more))  # type: ignore[arg-type]


def test_only_whole_slots_inside_the_window_are_used() -> None:
    """A release inside a slot waits for the next; a deadline inside a slot uses none of it."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=10)
    assert calendar.window(transfer("a", 1, 5, 39)) == range(1, 3)
    assert calendar.window(transfer("a", 1, 0, 40)) == range(4)
    assert calendar.window(transfer("a", 1, 0, 40), now_slot=2) == range(2, 4)
    assert len(calendar.window(transfer("a", 1, 11, 19))) == 0


def test_what_fits_exactly_is_admitted_and_a_byte_more_is_not() -> None:
    """1 MB/s over two slots of 10 s carry 20 MB, not 20.1 MB; the old calendar stays as it was."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    full = admit(calendar, transfer("a", 20, 0, 20), [(0,)])
    assert full is not None
    assert fits(full)
    assert met(full, "a")
    assert full.finish_seconds(full.bookings["a"]) == 20
    assert not calendar.bookings
    assert admit(calendar, transfer("a", 20.1, 0, 20), [(0,)]) is None
    assert admit(full, transfer("b", 1, 0, 20), [(0,)]) is None
    with pytest.raises(Conflict):
        admit(full, transfer("a", 1, 20, 40), [(0,)])
    with pytest.raises(Invalid):
        admit(full, transfer("b", 1, 20, 40), [(99,)])


def test_a_second_path_carries_what_the_first_cannot() -> None:
    """Both ways round the ring carry 40 MB in two slots, where the rate cap lets them."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    routes = [(0,), (7, 5, 3)]
    assert admit(calendar, transfer("a", 40, 0, 20), routes) is not None
    assert admit(calendar, transfer("a", 40, 0, 20, rate_cap_bits_per_second=12e6), routes) is None
    capped = admit(calendar, transfer("a", 30, 0, 20, rate_cap_bits_per_second=12e6), routes)
    assert capped is not None
    assert met(capped, "a")


def test_an_early_promise_makes_way_for_an_urgent_transfer() -> None:
    """A patient transfer had the first slots; it moves to later ones, and both deadlines hold."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    patient = admit(calendar, transfer("patient", 20, 0, 40), [(0,)])
    assert patient is not None
    urgent = transfer("urgent", 20, 0, 20)
    assert admit(patient, urgent, [(0,)], move_others=False) is None
    both = admit(patient, urgent, [(0,)])
    assert both is not None
    assert fits(both)
    assert met(both, "patient")
    assert met(both, "urgent")


def test_what_was_sent_does_not_move() -> None:
    """At slot 1 the first slot is history: only the rest of the patient transfer makes way."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    patient = admit(calendar, transfer("patient", 20, 0, 40), [(0,)])
    assert patient is not None
    later = admit(patient, transfer("urgent", 10, 10, 20), [(0,)], now_slot=1)
    assert later is not None
    assert later.bookings["patient"].rates[0].tolist() == pytest.approx([8e6, 0, 8e6, 0])
    assert admit(patient, transfer("urgent", 20, 0, 20), [(0,)], now_slot=1) is None


def test_over_booking_is_a_conflict_and_releasing_gives_back() -> None:
    """A calendar refuses promises beyond its room, whoever planned them."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=2, share=0.5)
    booking = Booking(transfer=transfer("a", 1, 0, 20), routes=((0,),), rates=np.full((1, 2), 4e6))
    held = calendar.book([booking])
    with pytest.raises(Conflict):
        held.book([replace(booking, transfer=transfer("b", 1, 0, 20))])
    assert held.release("a", from_slot=1).sent_bytes(booking, before_slot=1) == pytest.approx(5e6)
    assert np.array_equal(held.release("a").room, calendar.room)
    assert not held.release("a").bookings
    with pytest.raises(NotFound):
        held.release("b")


def test_a_failure_moves_only_what_was_on_the_link() -> None:
    """The transfer on the failed link goes the other way round; one that never used it stays as it was."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=6)
    one = admit(calendar, transfer("one", 30, 0, 60), [(0,)])
    assert one is not None
    two = admit(one, transfer("two", 20, 0, 60, source=2, targets=(3,)), [(4,)])
    assert two is not None
    assert [booking.transfer.id for booking in affected(two, {0}, now_slot=1)] == ["one"]
    after = replan(two, {0, 1}, {"one": [(7, 5, 3)]}, now_slot=1)
    assert after.missed == ()
    assert (after.lost_bytes, after.moved_bytes) == (pytest.approx(20e6), pytest.approx(0.0, abs=1.0))
    assert np.array_equal(after.calendar.bookings["two"].rates, two.bookings["two"].rates)
    assert fits(after.calendar)
    assert met(after.calendar, "one")


def test_others_move_only_when_the_lost_ones_do_not_fit_without() -> None:
    """The way round is full until 30 s with a patient transfer: it makes way, and by no more than it must."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=8)
    urgent = admit(calendar, transfer("urgent", 20, 0, 30), [(0,)])
    assert urgent is not None
    both = admit(urgent, transfer("patient", 30, 0, 80, source=3, targets=(2,)), [(5,)])
    assert both is not None
    after = replan(both, {0, 1}, {"urgent": [(7, 5, 3)]}, now_slot=1)
    assert after.missed == ()
    assert after.moved_bytes == pytest.approx(10e6, rel=1e-6)
    assert met(after.calendar, "urgent")
    assert met(after.calendar, "patient")
    assert fits(after.calendar)


def test_what_cannot_be_saved_is_named() -> None:
    """Without another route the transfer is missed; what it had sent stays on record."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    held = admit(calendar, transfer("a", 30, 0, 40), [(0,)])
    assert held is not None
    after = replan(held, {0}, {}, now_slot=1)
    assert after.missed == ("a",)
    assert after.calendar.sent_bytes(after.calendar.bookings["a"]) == pytest.approx(10e6)


@pytest.mark.parametrize(
    "wrong",
    [{"megabytes": 0}, {"release": 40}, {"targets": (0,)}, {"targets": ()}, {"rate_cap_bits_per_second": 0.0}],
)
def test_an_impossible_transfer_is_refused(wrong: dict[str, object]) -> None:
    """Nothing to send, no time, no target, no rate."""
    with pytest.raises(Invalid):
        transfer("a", **({"megabytes": 1, "release": 0, "deadline": 40} | wrong))  # type: ignore[arg-type]


@st.composite
def asked(draw: st.DrawFn, nodes: int) -> list[Transfer]:
    """Transfers to one or several targets, in the order of their releases."""
    made = []
    for number in range(draw(st.integers(1, 12))):
        ends = draw(st.lists(st.integers(0, nodes - 1), min_size=2, max_size=3, unique=True))
        release = draw(st.floats(0, 80))
        made.append(
            Transfer(
                id=str(number),
                source=ends[0],
                targets=tuple(ends[1:]),
                volume_bytes=draw(st.floats(1e8, 4e10)),
                release_seconds=release,
                deadline_seconds=release + draw(st.floats(5, 80)),
                rate_cap_bits_per_second=draw(st.sampled_from([math.inf, 5e8, 3e9])),
            )
        )
    return sorted(made, key=lambda one: one.release_seconds)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), topology=topologies())
def test_every_promise_fits_and_is_met_and_a_failure_breaks_none_unnamed(
    data: st.DataObject, topology: Topology
) -> None:
    """After each admission all promises hold; after a link failure all hold but those that are named as missed."""
    calendar = Calendar.empty(topology, slot_seconds=SLOT, slots=16)
    failed = frozenset({data.draw(st.integers(0, topology.link_count - 1))})
    again = {}
    for one in data.draw(asked(topology.node_count)):
        if len(one.targets) > 1:
            routes = distribution_trees(topology, one.source, one.targets, topology.weight, 2)
        else:
            ends = one.source, one.targets[0]
            routes = [path.links for path in shortest_paths(topology, *ends, topology.weight, 3)]
            limits = Constraints(avoid_links=failed)
            again[one.id] = [path.links for path in shortest_paths(topology, *ends, topology.weight, 3, limits)]
        calendar = admit(calendar, one, routes, now_slot=int(one.release_seconds // SLOT)) or calendar
        assert fits(calendar)
        assert all(met(calendar, key) for key in calendar.bookings)
    now = data.draw(st.integers(0, 15))
    after = replan(calendar, failed, again, now_slot=now)
    assert fits(after.calendar)
    for key, booking in after.calendar.bookings.items():
        assert met(after.calendar, key) or key in after.missed
        assert not booking.use(topology.link_count)[list(failed), now:].any()
        past = calendar.bookings[key].use(topology.link_count)[:, :now]
        assert np.allclose(booking.use(topology.link_count)[:, :now], past)


def test_a_transfer_that_loses_its_only_route_is_missed() -> None:
    """Nothing is left of a promise whose only link fails before it began; the calendar names it and goes on."""
    topology = Topology.of("ab", [Link(source="a", target="b", capacity_bits_per_second=8e6)])
    one = Transfer(id="one", source=0, targets=(1,), volume_bytes=1e7, release_seconds=0.0, deadline_seconds=8 * SLOT)
    calendar = admit(Calendar.empty(topology, slot_seconds=SLOT, slots=8), one, [(0,)], now_slot=0)
    assert calendar is not None
    after = replan(calendar, frozenset({0}), {}, now_slot=0)
    assert set(after.missed) == {"one"}
    assert not after.calendar.bookings["one"].use(topology.link_count).any()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 5), st.integers(1, 5)),
        min_size=1,
        max_size=8,
    )
)
def test_on_one_link_admission_is_exact(rows: list[tuple[int, int, int]]) -> None:
    """A transfer is refused only when no schedule at all exists: the demand of some interval would exceed the link.

    The criterion is that of processor demand for pre-emptive deadlines (Baruah, Howell, Rosier, 1990).
    """
    topology = Topology.of("ab", [Link(source="a", target="b", capacity_bits_per_second=8e6)])
    calendar = Calendar.empty(topology, slot_seconds=SLOT, slots=10)
    kept: list[tuple[int, int, int]] = []
    for number, (megabytes, first, length) in enumerate(rows):
        trial = [*kept, (megabytes, first, first + length)]
        possible = all(
            sum(size for size, start, end in trial if begin <= start and end <= finish) <= 10 * (finish - begin)
            for begin in range(10)
            for finish in range(begin + 1, 11)
        )
        after = admit(calendar, transfer(f"{number}", megabytes, first * SLOT, (first + length) * SLOT), [(0,)])
        assert (after is not None) == possible
        if after is not None:
            calendar, kept = after, trial
            assert fits(calendar)
            assert all(met(calendar, key) for key in calendar.bookings)


def test_in_need_the_share_that_was_not_promised_is_used() -> None:
    """A calendar that promises three quarters of each link saves with the whole what three quarters could not."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4, share=0.75)
    first = admit(calendar, transfer("a", 15, 0, 30), [(0,)])
    assert first is not None
    both = admit(first, transfer("b", 28, 0, 40, targets=(2,)), [(7, 5)])
    assert both is not None
    routes = {"a": [(7, 5, 3)]}
    assert len(replan(both, {0}, routes, now_slot=1).missed) == 1
    whole = replan(both, {0}, routes, now_slot=1, capacity=both.topology.capacity_bits_per_second)
    assert whole.missed == ()
    assert all(met(whole.calendar, key) for key in "ab")
    assert fits(whole.calendar)


def test_as_few_as_possible_are_given_up_and_they_get_what_is_left() -> None:
    """Of one large and two small transfers the large one is given up; both small ones are met."""
    calendar = Calendar.empty(ring(), slot_seconds=SLOT, slots=4)
    for key, megabytes, route in (("large", 35, (0,)), ("small", 12, (7, 5, 3)), ("tiny", 8, (7, 5, 3))):
        after = admit(calendar, transfer(key, megabytes, 0, 40), [route])
        assert after is not None
        calendar = after
    found = replan(calendar, {0}, {"large": [(7, 5, 3)]}, now_slot=0)
    assert found.missed == ("large",)
    assert met(found.calendar, "small")
    assert met(found.calendar, "tiny")
    assert found.calendar.sent_bytes(found.calendar.bookings["large"]) == pytest.approx(20e6)


def test_a_guard_refuses_what_one_failure_would_break() -> None:
    """Both ways round are promised in full: whichever fails, the other carries only one of the two transfers."""
    topology = ring()
    calendar = Calendar.empty(topology, slot_seconds=SLOT, slots=4)
    ways = {"short": (0,), "long": (7, 5, 3)}
    cables = [frozenset({link, link + 1}) for link in range(0, 8, 2)]

    def guard(most: int) -> Guard:
        return Guard(
            cables=cables,
            around=lambda _, cable: [way for way in ways.values() if cable.isdisjoint(way)],
            capacity=topology.capacity_bits_per_second,
            most=most,
        )

    first = admit(calendar, transfer("one", 30, 0, 40), [ways["short"]], guard=guard(0))
    assert first is not None
    assert guard(0).broken(first, cables[0], 0) == 0
    other = transfer("two", 30, 0, 40)
    assert admit(first, transfer("small", 9, 0, 40), [ways["long"]], guard=guard(0)) is not None
    assert admit(first, other, [ways["long"]], guard=guard(0)) is None
    both = admit(first, other, [ways["long"]], guard=guard(1))
    assert both is not None
    assert [guard(1).broken(both, cable, 0) for cable in cables] == [1, 1, 1, 1]
    assert len(replan(both, cables[0], {"one": [ways["long"]]}, now_slot=0).missed) == 1
    assert guard(1).broken(both, cables[0], 3) == 0  # in the last slot "one" has nothing left to send


@settings(max_examples=40, deadline=None)
@given(data=st.data(), topology=topologies())
def test_what_a_guard_finds_whole_replanning_keeps_whole(data: st.DataObject, topology: Topology) -> None:
    """A new promise takes no cable that it uses beyond the limit; where nothing is counted as broken nothing is missed."""
    most = data.draw(st.integers(0, 2))
    calendar = Calendar.empty(topology, slot_seconds=SLOT, slots=16, share=0.8)

    def ways(one: Transfer, cable: frozenset[int] = frozenset()) -> list[tuple[int, ...]]:
        limits = Constraints(avoid_links=cable)
        ends = one.source, one.targets[0]
        return [path.links for path in shortest_paths(topology, *ends, topology.weight, 3, limits)]

    cables = [frozenset({link}) for link in range(topology.link_count)]
    whole = topology.capacity_bits_per_second
    guard = Guard(cables=cables, around=ways, capacity=whole, most=most)
    for one in data.draw(asked(topology.node_count)):
        if len(one.targets) > 1:
            continue
        now = int(one.release_seconds // SLOT)
        after = admit(calendar, one, ways(one), now_slot=now, guard=guard)
        if after is not None:
            used = after.bookings[one.id].use(topology.link_count).any(axis=1)
            for cable in cables:
                if used[list(cable)].any():
                    assert guard.broken(after, cable, now) <= max(most, guard.broken(calendar, cable, now))
            calendar = after
    now = data.draw(st.integers(0, 15))
    for cable in cables:
        again = {key: ways(booking.transfer, cable) for key, booking in calendar.bookings.items()}
        missed = replan(calendar, cable, again, now_slot=now, capacity=whole).missed
        assert not missed or guard.broken(calendar, cable, now)
