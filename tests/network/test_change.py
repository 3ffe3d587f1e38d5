"""Changes are told once, noise is not told, and a figure says how good it is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.network.measurement.change import Change, Sensitivity, Watched, observe
from isthmus.network.measurement.figures import PathFigures, Spread
from isthmus.network.measurement.linkstate import LinkState

USUAL = Sensitivity()


def run(values: list[float], sensitivity: Sensitivity = USUAL) -> list[tuple[int, Change]]:
    """The changes that values tell, with their places."""
    watched, told = Watched(), []
    for place, value in enumerate(values):
        watched, change = observe(watched, value, sensitivity)
        if change is not None:
            told.append((place, change))
    return told


def noise(count: int, seed: int, mean: float = 100.0) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(mean, 1.0) for _ in range(count)]


def test_noise_raises_next_to_nothing() -> None:
    """Five alarms at most in 100,000 values of normal noise, each cleared."""
    told = run(noise(100_000, seed=1))
    assert sum(change is Change.RAISED for _place, change in told) <= 5


@pytest.mark.parametrize("seed", range(10))
def test_a_step_is_raised_once_within_a_few_values_and_cleared_once(seed: int) -> None:
    """Five deviations up for fifty values, then as before."""
    values = noise(200, seed) + noise(50, seed + 100, mean=105.0) + noise(100, seed + 200)
    told = run(values)
    assert [change for _place, change in told] == [Change.RAISED, Change.CLEARED]
    assert 200 <= told[0][0] < 206
    assert 250 <= told[1][0] < 262


def test_a_single_outlier_raises_nothing_however_large() -> None:
    """A packet that waited a second in a process that slept is no change of the path."""
    values = noise(200, seed=3)
    values[100] = 1e9
    assert run(values) == []


def test_a_figure_that_flaps_is_raised_once() -> None:
    """Every other value is bad: it is not cleared between, since good ones never come in a row."""
    flapping = [value for pair in zip(noise(90, 4), noise(90, 5, mean=120.0), strict=True) for value in pair]
    told = run(noise(100, seed=6) + flapping)
    assert [change for _place, change in told] == [Change.RAISED]


def test_a_level_that_stays_becomes_usual() -> None:
    """After a while it is settled; the next rise is told again."""
    sensitivity = Sensitivity(settle_count=50)
    told = run(noise(100, 7) + noise(200, 8, mean=110.0) + noise(100, 9, mean=120.0), sensitivity)
    assert [change for _place, change in told] == [Change.RAISED, Change.SETTLED, Change.RAISED, Change.SETTLED]


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1e9), max_size=300))
def test_raised_and_ended_take_turns(values: list[float]) -> None:
    """Whatever comes, nothing is raised twice or cleared twice."""
    kinds = [change is Change.RAISED for _place, change in run(values)]
    assert all(kind is (place % 2 == 0) for place, kind in enumerate(kinds))


def test_what_is_no_figure_is_refused() -> None:
    """Not a number, and infinity."""
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="no measured figure"):
            observe(Watched(), value, USUAL)


def session(delay: float, lost: int = 0, clock_error: float = math.inf) -> PathFigures:
    """A hundred packets there and back."""
    there = Spread(least=delay, p50=delay, p99=delay, greatest=delay)
    both = Spread(least=2 * delay, p50=2 * delay, p99=2 * delay, greatest=2 * delay)
    return PathFigures(
        sent=100,
        received=100 - lost,
        lost_forward=lost,
        lost_backward=0,
        two_way=both,
        forward=there,
        backward=there,
        forward_variation_seconds=1e-5,
        clock_error_seconds=clock_error,
    )


def test_a_delay_is_as_good_as_the_clocks() -> None:
    """With good clocks one way within their error; else half of both ways, which may be wrong by as much."""
    good, _changes = LinkState().with_session(session(0.02, clock_error=0.001), at=5.0)
    assert good.delay_seconds is not None
    assert (good.delay_seconds.value, good.delay_seconds.error) == (0.02, 0.001)
    poor, _changes = LinkState().with_session(session(0.02), at=5.0)
    assert poor.delay_seconds is not None
    assert (poor.delay_seconds.value, poor.delay_seconds.error) == (0.02, 0.02)
    assert poor.delay_seconds.age_seconds(7.5) == 2.5
    assert poor.delay_seconds.age_seconds(4.0) == 0.0


def test_no_loss_seen_is_not_no_loss() -> None:
    """0 of 100: the Wilson interval reaches to 3.7 %; 10 of 100 lies between 5.5 and 17.5 %."""
    none, _changes = LinkState().with_session(session(0.02), at=0.0)
    assert none.loss is not None
    assert none.loss.value == 0.0
    assert none.loss.error == pytest.approx(0.037, abs=0.0005)
    some, _changes = LinkState().with_session(session(0.02, lost=10), at=0.0)
    assert some.loss is not None
    assert some.loss.value + some.loss.error >= 0.1743
    assert some.loss.value - some.loss.error <= 0.0552


def test_without_an_answer_only_the_loss_is_known_and_old_figures_keep_their_time() -> None:
    """A dead path: all is lost; the delay is that of before, and says so."""
    state, _changes = LinkState().with_session(session(0.02), at=1.0)
    state, _changes = state.with_session(PathFigures(sent=100, received=0, lost_forward=100, lost_backward=0), at=9.0)
    assert state.loss is not None
    assert state.delay_seconds is not None
    assert (state.loss.value, state.loss.measured_at, state.delay_seconds.measured_at) == (1.0, 9.0, 1.0)


def test_a_brownout_is_told_by_delay_and_loss_and_a_link_event_once() -> None:
    """From 20 to 60 ms and to 5 % loss; the link goes down once."""
    state = LinkState().with_up(True, 0.0)
    told: list[dict[str, Change]] = []
    for place in range(60):
        worse = place >= 40
        state, changes = state.with_session(session(0.06 if worse else 0.02, lost=5 if worse else 0), at=float(place))
        told += [changes] if changes else []
    names = [name for changes in told for name in changes]
    assert sorted(names) == ["delay", "loss"]
    down = state.with_up(False, 70.0).with_up(False, 71.0)
    assert (down.up, down.up_since) == (False, 70.0)
