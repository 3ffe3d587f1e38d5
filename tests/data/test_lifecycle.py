"""Which copies leave a full site: the least seconds saved for each byte of room, never what must stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.lifecycle import HALF_LIFE_SECONDS, Copy, faded, make_room


def _copy(name: str, size: int, heat: float, **more: object) -> Copy:
    return Copy(key=("p", name, 1), size_bytes=size, heat=heat, cached=True, **more)  # type: ignore[arg-type]


def test_the_least_value_leaves_first() -> None:
    """Of equally warm copies the large one frees more for what it costs; of equally large ones the cold one goes."""
    small, large, hot = _copy("small", 10, 1.0), _copy("large", 10_000_000, 1.0), _copy("hot", 10_000_000, 9.0)
    assert make_room([small, hot, large], 1, has_cold=False).drop == (large,)
    assert make_room([small, hot, large], 10_000_001, has_cold=False).drop == (large, hot)


def test_what_must_stay_stays() -> None:
    """Pinned, busy and last copies are never dropped; what people asked for goes cold where that is possible."""
    pinned, busy = _copy("pinned", 5, 0.0, pinned=True), _copy("busy", 5, 0.0, busy=True)
    last = _copy("last", 5, 0.0, elsewhere=False)
    kept = Copy(key=("p", "kept", 1), size_bytes=5, heat=0.0)
    room = make_room([pinned, busy, last, kept], 20, has_cold=False)
    assert (room.drop, room.chill, room.missing_bytes) == ((), (), 20)
    room = make_room([pinned, busy, last, kept], 20, has_cold=True)
    assert (room.drop, set(room.chill), room.missing_bytes) == ((), {last, kept}, 10)


def test_heat_halves_in_a_week() -> None:
    """And is nothing where nobody ever used it."""
    assert faded(8.0, 0.0, HALF_LIFE_SECONDS) == 4.0
    assert faded(8.0, None, 5.0) == 0.0
    assert faded(8.0, 100.0, 50.0) == 8.0  # a clock that was set back heats nothing


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 100), st.booleans(), st.booleans()), max_size=12),
    st.integers(1, 10**9),
)
def test_no_more_leaves_than_is_needed(rows: list[tuple[int, float, bool, bool]], needed: int) -> None:
    """Without the last one that leaves there would be too little room, and the count of what is missing is right."""
    copies = [
        _copy(str(index), size, heat, pinned=pinned, busy=busy) for index, (size, heat, pinned, busy) in enumerate(rows)
    ]
    room = make_room(copies, needed, has_cold=False)
    freed = sum(copy.size_bytes for copy in room.drop)
    assert room.missing_bytes == max(0, needed - freed)
    assert freed - (room.drop[-1].size_bytes if room.drop else 0) < needed
    assert not any(copy.pinned or copy.busy for copy in room.drop)
