"""Joint placement keeps every capacity, bounds what any answer could cost, and comes near the optimum."""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.instances import federation, make_world, random_network, shortest_paths
from isthmus.placement.joint.audit import audit, every_option, model
from isthmus.placement.joint.columns import columns
from isthmus.placement.joint.problem import Answer, Budget, Prices, Problem, no_paths, no_prices
from isthmus.placement.joint.single import choose
from isthmus.placement.joint.solve import solve
from tests.placement.small import small_problem, used

pytestmark = pytest.mark.timeout(900)  # the first test compiles, which takes long on a busy machine
seeds = st.integers(0, 10**6)
budgets = st.builds(Budget, sweeps=st.sampled_from([0, 1, 5, 40]), passes=st.integers(0, 3))


def assert_whole(problem: Problem, answer: Answer) -> None:
    """Within every capacity, the cost as said, no later than the deadline where that is hard."""
    pools, links = used(problem, answer)
    assert (pools <= problem.capacity * (1 + 1e-6) + 1e-9).all()
    assert (links <= problem.link_capacity * (1 + 1e-6) + 1e-9).all()
    options = zip(answer.pool, answer.path, answer.bucket, strict=True)
    costs = [problem.cost_of(t, *(int(part) for part in option)) for t, option in enumerate(options)]
    assert sum(costs) == pytest.approx(answer.primal)
    assert np.isfinite(costs).all()
    assert answer.dual <= answer.primal + 1e-6


def optimum(problem: Problem) -> float:
    """The integer program's optimum, by HiGHS."""
    c = columns(problem)
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.passModel(model(problem, c, np.ones(len(problem.volume)), every_option(problem, c), whole=True))
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(solver.getObjectiveValue())


@settings(max_examples=60, deadline=None)
@given(seeds, budgets)
def test_bound_relaxation_optimum_and_answer_are_in_order(seed: int, budget: Budget) -> None:
    """dual <= LP = its own bound <= integer optimum <= primal, whatever the budget; no capacity is exceeded."""
    problem = small_problem(seed)
    answer = solve(problem, None, budget)
    assert_whole(problem, answer)
    relaxed = audit(problem, answer.prices)
    assert relaxed.exact
    best = optimum(problem)
    assert answer.dual <= relaxed.value + 1e-6
    assert relaxed.value <= best + 1e-6
    assert best <= answer.primal + 1e-6


def test_small_rounds_come_near_the_optimum() -> None:
    """Over 60 small tight problems, where whole tasks fit worst, the cost is at most 3 % above the optimum in all."""
    problems = [small_problem(seed) for seed in range(60)]
    ours = sum(solve(problem, None, Budget(sweeps=100, passes=4)).primal for problem in problems)
    assert ours <= 1.03 * sum(optimum(problem) for problem in problems)


@settings(max_examples=40, deadline=None)
@given(seeds, budgets)
def test_the_same_problem_gets_the_same_answer(seed: int, budget: Budget) -> None:
    """Two calls agree in every bit, and change nothing of what they were given."""
    problem = small_problem(seed)
    start = Prices(
        pools=np.full(problem.capacity.shape, 0.1),
        links=np.full(problem.link_capacity.shape, 0.1),
        homes=np.zeros(0),
    )
    one, other = solve(problem, start, budget), solve(small_problem(seed), start, budget)
    assert (one.primal, one.dual) == (other.primal, other.dual)
    assert np.array_equal(one.pool, other.pool)
    assert np.array_equal(one.path, other.path)
    assert np.array_equal(one.bucket, other.bucket)
    assert (start.pools == 0.1).all()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_warm_prices_never_lower_the_bound(seed: int) -> None:
    """From the prices of a round, another round on the same tasks proves at least the same bound."""
    problem = small_problem(seed)
    first = solve(problem, None, Budget(sweeps=30, passes=0))
    again = solve(problem, first.prices, Budget(sweeps=5, passes=0))
    assert again.dual >= first.dual - 1e-9 * abs(first.dual)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_moves_and_ejections_keep_capacity_and_only_gain(seed: int) -> None:
    """More passes cost no more and stay within every capacity."""
    problem = small_problem(seed)
    placed, moved = (solve(problem, None, Budget(sweeps=20, passes=passes)) for passes in (0, 4))
    assert_whole(problem, moved)
    assert moved.primal <= placed.primal + 1e-9


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_homes_are_counted_and_the_bound_holds_with_them(seed: int) -> None:
    """Home rows keep the bound below every answer that keeps them, and what is above is told."""
    problem = small_problem(seed, homes=2)
    answer = solve(problem, None, Budget(sweeps=40, passes=2))
    pools, _ = used(problem, answer)
    assert (pools <= problem.capacity * (1 + 1e-6) + 1e-9).all()
    options = list(zip(answer.pool, answer.path, answer.bucket, strict=True))
    for home in range(2):
        mine = [problem.cost_of(t, *map(int, options[t])) for t in np.flatnonzero(problem.home == home)]
        assert answer.home_excess[home] == pytest.approx(max(0.0, sum(mine) - problem.alone[home]))
    if not answer.home_excess.any():
        assert answer.dual <= answer.primal + 1e-6


def test_a_home_row_protects_its_users() -> None:
    """Two tasks want the one good place; the one whose home would be worse off than alone gets it, dearer for all."""
    problem = Problem(
        cost=np.array([[1.0, 5.0], [1.0, 9.0]]),
        demand=np.ones((2, 1)),
        capacity=np.array([[[1.0]], [[2.0]]]),
        duration=np.ones((2, 2), np.int16),
        lead=np.zeros((2, 2), np.int16),
        window=np.ones((2, 2), np.int16),
        volume=np.zeros(2),
        source=np.full(2, -1, np.int32),
        paths=no_paths(2),
        link_capacity=np.zeros((0, 1)),
        delay_cost=np.zeros(2),
        due=np.full((2, 2), 1, np.int16),
        late_cost=np.zeros(2),
        defer_cost=np.full(2, 50.0),
        home=np.array([0, 1], np.int32),
        alone=np.array([np.inf, np.inf]),
    )
    assert solve(problem).pool.tolist() == [1, 0]
    kept = solve(replace(problem, alone=np.array([2.0, np.inf])), None, Budget(sweeps=200))
    assert kept.pool.tolist() == [0, 1]
    assert not kept.home_excess.any()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_one_task_alone_gets_its_cheapest_place(seed: int) -> None:
    """Without prices the choice is the optimum of the problem with that task only."""
    problem = small_problem(seed)
    only = replace(
        problem,
        **{
            name: getattr(problem, name)[:1]
            for name in ("cost", "demand", "duration", "lead", "window", "volume", "source", "delay_cost", "due")
        },
        late_cost=problem.late_cost[:1],
        defer_cost=problem.defer_cost[:1],
        home=problem.home[:1],
    )
    choice = choose(only, no_prices(only))
    assert choice.cost == pytest.approx(optimum(only))
    assert choice.scarce == 0.0


def test_a_round_of_a_federation_is_near_its_relaxation() -> None:
    """1,500 tasks with data over 30 sites: at most 3 % above the certified bound, the LP between the two, warm or cold."""
    world = make_world(30, random_network(40, 72, 1), 2)
    first, second = (federation(world, 1500, seed) for seed in (3, 4))
    cold = solve(first, None, Budget(sweeps=200, passes=3))
    warm = solve(second, cold.prices, Budget(sweeps=40, passes=3))
    assert_whole(second, warm)
    assert cold.gap <= 0.03
    assert warm.gap <= 0.03
    relaxed = audit(second, warm.prices)
    assert relaxed.exact
    assert warm.dual <= relaxed.value * (1 + 1e-9)
    assert solve(second, relaxed.prices, Budget(sweeps=1)).dual == pytest.approx(relaxed.value, rel=1e-5)


def test_alike_tasks_are_one_class_of_the_audit() -> None:
    """Forty copies of a task are one class, and the LP's value is that of forty tasks."""
    one = small_problem(3)
    names = ("cost", "demand", "duration", "lead", "window", "volume", "source", "delay_cost", "due", "late_cost")
    many = replace(one, **{n: np.repeat(getattr(one, n)[:1], 40, axis=0) for n in (*names, "defer_cost", "home")})
    found = audit(many, no_prices(many))
    assert (found.classes, found.exact) == (1, True)
    assert found.value == pytest.approx(found.bound)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("demand", np.full((1, 1), -1.0)),
        ("defer_cost", np.array([np.inf])),
        ("window", np.zeros((1, 1), np.int16)),
        ("cost", np.array([[np.nan]])),
        ("cost", np.zeros((0, 1))),
        ("volume", np.zeros(2)),
        ("volume", np.zeros(1, np.float32)),
        ("source", np.array([1], np.int32)),
    ],
)
def test_a_wrong_column_is_named(field: str, value: object) -> None:
    """A column of the wrong shape, kind or range is refused by name."""
    good = Problem(
        cost=np.ones((1, 1)),
        demand=np.ones((1, 1)),
        capacity=np.ones((1, 1, 1)),
        duration=np.ones((1, 1), np.int16),
        lead=np.zeros((1, 1), np.int16),
        window=np.ones((1, 1), np.int16),
        volume=np.zeros(1),
        source=np.full(1, -1, np.int32),
        paths=no_paths(1),
        link_capacity=np.zeros((0, 1)),
        delay_cost=np.zeros(1),
        due=np.ones((1, 1), np.int16),
        late_cost=np.zeros(1),
        defer_cost=np.ones(1),
        home=np.full(1, -1, np.int32),
        alone=np.zeros(0),
    )
    with pytest.raises(ValueError, match=field):
        replace(good, **{field: value})


def test_shortest_paths_are_the_shortest() -> None:
    """Yen's paths on a small network are all loopless paths there are, in order of latency, up to the count asked for."""
    network = random_network(9, 12, 5)
    around: dict[int, list[tuple[int, int]]] = {node: [] for node in range(9)}
    for link, (a, b) in enumerate(network.ends.tolist()):
        around[a].append((b, link))
        around[b].append((a, link))

    def walks(node: int, seen: frozenset[int], links: tuple[int, ...]) -> list[tuple[int, ...]]:
        if node == 8:
            return [links]
        onward = [(other, link) for other, link in around[node] if other not in seen]
        return [walk for other, link in onward for walk in walks(other, seen | {other}, (*links, link))]

    for source in range(8):
        every = sorted(walks(source, frozenset({source}), ()), key=lambda walk: network.seconds[list(walk)].sum())
        found = [tuple(path) for path in shortest_paths(network, source, 8, 4)]
        assert found == every[:4]
