"""The Isthmus unit: what docs/metering.md defines, and what a unit for prices must hold."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.domain.capability import Quantity, WorkClass
from isthmus.metering import unit
from tests.metering.nodes import device, reference_node

DOCUMENT = Path(__file__).parents[2] / "docs" / "metering.md"
QUANTITIES = sorted(unit.REFERENCE_FIGURES)


def _units(node, accelerator=None, accelerators: int = 0) -> dict[WorkClass, float]:  # type: ignore[no-untyped-def]
    return unit.units(unit.whole_node(node.processor, node.cpus, accelerator, accelerators))


def test_weights_of_each_class_sum_to_one() -> None:
    """So that doubling everything doubles the units."""
    assert {work: math.fsum(weights.values()) for work, weights in unit.WEIGHTS.items()} == {
        work: pytest.approx(1.0) for work in WorkClass
    }


@pytest.mark.parametrize("cpus", [1, 2, 64])
def test_a_processor_of_the_reference_is_one_unit(cpus: int) -> None:
    """So many processors of the reference machine are so many units, in every class and in general."""
    by_class = _units(reference_node(cpus=cpus))
    assert by_class == {work: pytest.approx(cpus) for work in WorkClass}
    general = unit.general(by_class)
    assert general == pytest.approx(cpus)
    assert unit.grade(general * 1.0001) == int(math.log2(cpus))


@given(st.lists(st.floats(0.8, 1.2), min_size=len(QUANTITIES), max_size=len(QUANTITIES)))
def test_the_ratio_of_two_nodes_does_not_depend_on_the_reference(scales: list[float]) -> None:
    """The property for which SPEC and HEPScore take geometric means."""
    scale = dict(zip(QUANTITIES, scales, strict=True))
    one, other = _units(reference_node(scale=scale)), _units(reference_node())
    for work, weights in unit.WEIGHTS.items():
        signed = {q: 1 / scale[q] if q is Quantity.LATENCY else scale[q] for q in weights}
        direct = math.prod(signed[q] ** weight for q, weight in weights.items())
        assert one[work] / other[work] == pytest.approx(direct)


@given(st.sampled_from(QUANTITIES), st.floats(1.01, 10.0))
def test_better_in_any_quantity_is_never_fewer_units(quantity: Quantity, factor: float) -> None:
    """A figure that improves raises some class and lowers none."""
    better = 1 / factor if quantity is Quantity.LATENCY else factor
    before, after = _units(reference_node()), _units(reference_node(scale={quantity: better}))
    assert all(after[work] >= before[work] * (1 - 1e-12) for work in WorkClass)
    assert any(after[work] > before[work] for work in WorkClass)


def test_leaving_out_never_helps() -> None:
    """Without its short formats a node counts with the next wider one; without a figure a class has no units at all."""
    node = reference_node()
    less = {q: f for q, f in node.processor.figures.items() if q not in (Quantity.FP16, Quantity.INT8)}
    processor = type(node.processor)(name="x", kind="cpu", memory_bytes=1, figures=less)
    without = unit.units(unit.whole_node(processor, 2))
    full = _units(node)
    assert without[WorkClass.ML_TRAINING] < full[WorkClass.ML_TRAINING]
    assert without[WorkClass.DENSE_FP64] == full[WorkClass.DENSE_FP64]
    nothing = type(processor)(name="x", kind="cpu", memory_bytes=1, figures={Quantity.SERIAL: less[Quantity.SERIAL]})
    assert unit.units(unit.whole_node(nothing, 2)) == {}
    assert unit.general({}) is None


def test_accelerators_count_where_they_do_more() -> None:
    """Two devices of ten processors each are twenty units of dense work; serial work and storage stay the host's."""
    by_class = _units(reference_node(), device(), 2)
    assert by_class[WorkClass.DENSE_FP64] == pytest.approx(20)
    assert by_class[WorkClass.ML_INFERENCE] == pytest.approx(20)
    assert by_class[WorkClass.SERIAL] == pytest.approx(2)
    assert by_class[WorkClass.IO] == pytest.approx(2)


def test_the_document_defines_what_the_code_computes() -> None:
    """docs/metering.md holds every weight and every reference figure, as the code has them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for work, weights in unit.WEIGHTS.items():
        line = re.search(rf"^\| `{work}` \|(.*)$", text, re.M)
        assert line, work
        told = dict(re.findall(r"`(\w+)` ([0-9.]+)", line[1]))
        assert {name: float(value) for name, value in told.items()} == {q.value: w for q, w in weights.items()}
    for quantity, value in unit.REFERENCE_FIGURES.items():
        line = re.search(rf"^\| `{quantity}` \| ([0-9.e+-]+) \|", text, re.M)
        assert line, quantity
        assert float(line[1]) == value
    assert f"`{unit.REFERENCE}`" in text
