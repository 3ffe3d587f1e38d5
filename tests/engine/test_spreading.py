"""The tree of a version that goes to several sites: nearest first, no target before itself, as short as a tree of whole ways can be made so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.engine.spreading import tree

FAR = {("a", "b"): 9.0, ("a", "c"): 1.0, ("c", "b"): 1.0, ("a", "d"): 2.0, ("c", "d"): 5.0, ("b", "d"): 5.0}


def seconds(one: str, other: str) -> float:
    return FAR.get((one, other), FAR.get((other, one), 100.0))


def test_the_nearest_joins_first_and_passes_on() -> None:
    """b is far from a and near to c, so it comes from c; d comes from a."""
    assert tree({"a"}, {"b", "c", "d"}, seconds) == {"c": "a", "b": "c", "d": "a"}


def test_of_places_as_near_one_that_has_all_is_taken() -> None:
    """Nobody waits for somebody that still receives without a gain."""
    assert tree({"a"}, {"b", "c"}, lambda _one, _other: 1.0) == {"b": "a", "c": "a"}


@given(st.dictionaries(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), st.floats(0, 10)))
def test_every_target_is_reached_from_a_source(far: dict[tuple[str, str], float]) -> None:
    """No circle, whatever the distances; and no target farther than directly from the nearest source."""
    sources, targets = {"a", "b"}, {"c", "d", "e", "f"}
    parents = tree(sources, targets, lambda one, other: far.get((one, other), 11.0))
    for target in targets:
        at, steps = target, 0
        while at not in sources:
            at, steps = parents[at], steps + 1
            assert steps <= len(targets)
        direct = min(far.get((source, target), 11.0) for source in sources)
        assert far.get((parents[target], target), 11.0) <= direct
