"""A task's time on a pool it never ran on: exact where the truth is simple, honest about its error everywhere."""

from __future__ import annotations

import pytest

from benchmarks.metering import judge, synthetic
from isthmus.domain.capability import Quantity, WorkClass
from isthmus.domain.errors import Invalid
from isthmus.metering.aggregate import by_kind
from isthmus.metering.prediction import LEAST_SIGMA, PARTS, Run, learn, predict, rates_given
from tests.metering.nodes import device, reference_node

pytest.importorskip("scipy")


def rates(**scale: float) -> dict[Quantity, float]:
    """The rates of a whole reference node, some scaled (by the names of the quantities)."""
    (pool,) = by_kind([reference_node(scale={Quantity[name.upper()]: value for name, value in scale.items()})])
    return rates_given(pool, 2)


def test_one_run_is_repeated_on_the_same_pool() -> None:
    """What ran 100 s takes 100 s on a pool of the same rates, and half on one that does twice of everything."""
    profile = learn([Run(pool="a", rates=rates(), seconds=100.0)])
    told = predict(profile, rates())
    assert told.p50 == pytest.approx(100.0, rel=1e-6)
    assert told.source == "class"
    twice = {quantity: 2 * rate for quantity, rate in rates().items()}
    assert predict(profile, twice).p50 == pytest.approx(50.0, rel=1e-6)
    assert told.p10 < told.p50 < told.p90


def test_with_one_pool_the_interval_spans_the_classes() -> None:
    """Nobody knows yet whether the task needs memory or matrices: where only matrices are faster, the interval says so;
    a class named by the user narrows the middle."""
    run = Run(pool="a", rates=rates(), seconds=100.0)
    fast = rates(fp64=8, fp32=8, fp16=8, int8=8)
    told = predict(learn([run]), fast)
    assert told.p10 < 40.0
    assert told.p90 > 90.0
    dense = predict(learn([run], WorkClass.DENSE_FP64), fast)
    serial = predict(learn([run], WorkClass.SERIAL), fast)
    assert dense.p50 < told.p50 < serial.p50
    assert serial.p50 > 90.0


@pytest.mark.parametrize(
    ("quantity", "work"),
    [("fp64", WorkClass.DENSE_FP64), ("memory", WorkClass.MEMORY_BOUND), ("serial", WorkClass.SERIAL)],
)
def test_more_pools_teach_what_the_task_needs(quantity: str, work: WorkClass) -> None:
    """A task that follows one quantity exactly is predicted by it within a tenth, twice as far out as any run, without being told its class."""
    pools = [{}, {quantity: 2.0}, {quantity: 0.5}, {"fp64": 1.5, "serial": 0.8}, {"memory": 3.0}, {"fp64": 0.6, "cache": 2.0}]  # fmt: skip
    part = Quantity[quantity.upper()]
    runs = [
        Run(pool=str(i), rates=rates(**p), seconds=1e3 * rates()[part] / rates(**p)[part]) for i, p in enumerate(pools)
    ]
    profile = learn(runs)
    new = rates(**{"memory": 1.3, "fp64": 0.7, "serial": 1.2, quantity: 4.0})
    told = predict(profile, new)
    assert told.p50 == pytest.approx(250.0, rel=0.1)
    assert profile.prior is work
    assert profile.sigma is not None
    assert profile.sigma < 2 * LEAST_SIGMA


def test_a_roofline_is_learned_where_parts_overlap() -> None:
    """Time = the slower of matrices and memory: no sum of the two fits it, the larger exponents do."""
    runs = []
    for index, (fp64, memory) in enumerate([(1, 1), (4, 1), (1, 4), (4, 4), (0.5, 1), (1, 0.5), (2, 1), (1, 2)]):
        runs.append(Run(pool=str(index), rates=rates(fp64=fp64, memory=memory), seconds=100 / min(fp64, memory)))
    profile = learn(runs)
    assert profile.exponent > 1.0
    assert predict(profile, rates(fp64=3, memory=1)).p50 == pytest.approx(100, rel=0.15)


def test_synthetic_tasks_are_predicted_better_than_by_simpler_means() -> None:
    """On pools left out, noise 5 %: median error under 8 %, far below that of the same time and of units; and the
    interval holds about as often as it says."""
    told = judge(synthetic(8, seed=5))
    assert told["median"] < 0.08
    assert told["median"] < 0.4 * told["units_median"] < 0.4 * told["same_median"]
    assert 0.65 <= told["coverage_80"] <= 0.95


def test_learning_is_deterministic_and_needs_no_order() -> None:
    """The same runs in another order give the same profile."""
    (history,) = synthetic(1, seed=2)
    one, other = learn(history), learn(history[::-1])
    assert one.prior == other.prior
    assert predict(one, history[0].rates).p50 == pytest.approx(predict(other, history[0].rates).p50)


def test_what_a_task_is_given_is_a_part_of_the_node() -> None:
    """Half the processors have half the matrices and memory, but the same thread; devices are the task's own."""
    (pool,) = by_kind([reference_node(cpus=8)])
    half, whole = rates_given(pool, 4), rates_given(pool, 8)
    assert half[Quantity.FP64] == pytest.approx(whole[Quantity.FP64] / 2)
    assert half[Quantity.SERIAL] == whole[Quantity.SERIAL]
    node = reference_node(cpus=8)
    (pool,) = by_kind([type(node)(node="g", measured_at=0.0, seconds=1.0, cpus=8, processor=node.processor, accelerators=(device(), device()))])  # fmt: skip
    one, two = rates_given(pool, 1, 1), rates_given(pool, 1, 2)
    assert two[Quantity.FP16] == 2 * one[Quantity.FP16]
    assert one[Quantity.FP16] == pytest.approx(device().figures[Quantity.FP16].median)
    assert rates_given(pool, 8)[Quantity.FP16] < one[Quantity.FP16]


def test_wrong_histories_are_refused() -> None:
    """No run, no time, and pools without a common figure are Invalid."""
    with pytest.raises(Invalid):
        learn([])
    with pytest.raises(Invalid):
        Run(pool="a", rates=rates(), seconds=0.0)
    with pytest.raises(Invalid):
        learn([Run(pool="a", rates={}, seconds=1.0)])
    profile = learn([Run(pool="a", rates=rates(), seconds=1.0)])
    with pytest.raises(Invalid):
        predict(profile, {PARTS[0]: 1.0})
