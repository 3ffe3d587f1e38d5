"""Work is handed out once, whoever fails, and estimates of the end follow promises and what is seen."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.transfer import pieces
from isthmus.data.transfer.forecast import PAYLOAD_SHARE, Forecast
from isthmus.data.transfer.port import Content, Window
from isthmus.data.transfer.work import Carrier, Unit, What, Work

SIZES = st.lists(st.sampled_from([0, 10, 4000, 600_000, 1024**2, 1024**2 + 1, 3_000_000]), min_size=1, max_size=60)


def contents_of(sizes: list[int]) -> list[Content]:
    """Contents of these sizes, each another."""
    return [Content(blake3=blake3(str(n).encode()).hexdigest(), size_bytes=size) for n, size in enumerate(sizes)]


def parts(contents: list[Content], unit: Unit) -> list[tuple[int, int]]:
    """(content, piece) pairs that a unit stands for; piece -1 is the whole of a small one, -2 a list."""
    if unit.what is What.BUNDLE:
        return [(index, -1) for index in range(unit.index, unit.index + unit.number)]
    return [(unit.index, -2 if unit.what is What.LIST else unit.number)]


@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, have=st.sets(st.integers(0, 59)), choices=st.lists(st.integers(0, 5), max_size=400))
def test_everything_is_fetched_and_nothing_that_is_here(sizes: list[int], have: set[int], choices: list[int]) -> None:
    """Streams that answer, put back and die in any sequence: each part comes, and counts as new exactly once."""
    contents = contents_of(sizes)
    have = {index for index in have if index < len(sizes)}
    work = Work(contents, set(have), {}, set(), {"a"})
    carriers = [Carrier("a") for _ in range(3)]
    for carrier in carriers:
        work.join(carrier)
    came: list[tuple[int, int]] = []

    def answer(carrier: Carrier) -> None:
        unit, is_new = work.came(carrier)
        if is_new:
            came.extend(parts(contents, unit))

    for step, choice in enumerate(choices):
        carrier = carriers[step % 3]
        carrier.bytes_per_second = float(1 + choice)
        if choice <= 2:
            work.take(carrier)
        elif choice == 3 and carrier.asked:
            answer(carrier)
        elif choice == 4 and carrier.asked:
            work.put_back(carrier)
        elif choice == 5:
            work.leave(carrier)
            work.join(carrier)
    for carrier in carriers[1:]:
        work.leave(carrier)
    while work.take(carriers[0]) or carriers[0].asked:
        answer(carriers[0])
    assert work.is_idle
    wanted = [
        part
        for index, content in enumerate(contents)
        if index not in have
        for part in (
            [(index, -1)]
            if pieces.is_small(content.size_bytes)
            else [(index, -2), *((index, number) for number in range(pieces.piece_count(content.size_bytes)))]
        )
    ]
    assert sorted(came) == sorted(wanted)


def test_an_idle_stream_takes_over_what_a_slow_one_owes() -> None:
    """And not when it would come sooner as it is."""
    contents = contents_of([3_000_000])
    work = Work(contents, set(), {}, {0}, {"a"})
    slow, fast = Carrier("a"), Carrier("a")
    for carrier in (slow, fast):
        work.join(carrier)
    while work.take(slow):
        pass
    last = slow.asked[-1]
    slow.bytes_per_second = fast.bytes_per_second = 1e9
    assert work.take(fast) is None
    slow.bytes_per_second = 1e4
    assert work.take(fast) == last
    assert work.came(fast) == (last, True)
    while slow.asked:
        unit, is_new = work.came(slow)
        assert is_new is (unit != last)
    assert work.is_idle


def test_nobody_takes_near_the_end_what_it_would_bring_after_the_others() -> None:
    """And the fastest always does, when it has nothing else to do."""
    contents = contents_of([40_000_000])
    work = Work(contents, set(), {}, {0}, {"a"})
    slow, fast = Carrier("a"), Carrier("a")
    for carrier in (slow, fast):
        work.join(carrier)
    slow.bytes_per_second, fast.bytes_per_second = 1e6, 40e6
    taken = {slow: 0, fast: 0}
    while not work.is_idle:
        for carrier, most in ((slow, 1_000_000), (fast, 8_000_000)):
            while carrier.asked_bytes < most and work.take(carrier):
                pass
        for _ in range(20):
            if fast.asked:
                taken[fast] += work.came(fast)[0].bytes
        if slow.asked:
            taken[slow] += work.came(slow)[0].bytes
    assert sum(taken.values()) == pytest.approx(40_000_000, rel=0.02)
    assert 0 < taken[slow] < 4_000_000
    assert not slow.asked


@given(size=st.integers(0, 2**45))
def test_pieces_cover_a_content(size: int) -> None:
    """End to end, none longer than it may be, and not too many while they can grow."""
    count = pieces.piece_count(size)
    assert count <= 4096 or pieces.piece_bytes(size) == pieces.MOST_BYTES
    if count:
        begin, length = pieces.span(size, count - 1)
        assert begin + length == size
        assert 0 < length <= pieces.piece_bytes(size)


def test_the_end_is_foretold_from_promises() -> None:
    """Half now, a pause, the rest later; and never, when the promises are too small."""
    windows = (Window(start=0, end=10, bytes_per_second=100), Window(start=50, end=60, bytes_per_second=100))
    forecast = Forecast([windows], None)
    assert forecast.predict(0, 1500 * PAYLOAD_SHARE) == pytest.approx(
        55, abs=0.7
    )  # some hundredths of a promise are never used
    assert forecast.predict(0, 2500 * PAYLOAD_SHARE) is None
    forecast.observe(0, 8, round(400 * PAYLOAD_SHARE))  # half of what was promised
    assert forecast.predict(8, 150 * PAYLOAD_SHARE) == pytest.approx(50.8, abs=0.1)


def test_the_end_is_foretold_from_the_recent_rate() -> None:
    """Where nothing is promised."""
    forecast = Forecast([()], None)
    assert forecast.predict(0, 100) is None
    for second in range(20):
        forecast.observe(second, second + 1, 10 if second < 10 else 20)
    assert forecast.predict(20, 100) == pytest.approx(25, rel=0.1)
