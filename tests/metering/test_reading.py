"""A document from a site is checked before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.domain.capability import NodeCapability, Quantity
from isthmus.domain.errors import Corrupt
from isthmus.metering.bench import FORMAT
from isthmus.metering.reading import read_document
from isthmus.store.documents import dump, load

FIGURE = {"median": 2.0, "p10": 1.0, "p90": 3.0, "samples": 5, "rejected": 1, "by": "numpy"}


def document(**changes: Any) -> dict[str, Any]:
    """A document as the benchmark writes it."""
    return {
        "format": FORMAT, "measured_at": 1.0, "seconds": 60.0, "node": "n1", "processor": "P",
        "given": {"cpus": 4, "cpus_of_node": 8, "quota": None, "memory_bytes": 1024},
        "figures": {"fp64_ops_per_second": FIGURE, "of_a_later_version": FIGURE},
        "accelerators": [{"name": "A", "kind": "amd", "memory_bytes": 1, "figures": {}, "left_out": {}}],
        "left_out": {"int8_ops_per_second": "PyTorch is needed"}, "libraries": {"python": "3.8"},
    } | changes  # fmt: skip


def test_a_document_is_read_and_kept_as_it_is() -> None:
    """What is known is there, what a later version adds is passed over, and the store gives back the same."""
    node = read_document(json.dumps(document()).encode())
    assert node.kind == "4 x P + 1 x A"
    assert list(node.processor.figures) == [Quantity.FP64]
    assert node.processor.figures[Quantity.FP64].error == pytest.approx(0.5)
    assert load(NodeCapability, dump(node)) == node


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"node": 7},
        {"measured_at": "now"},
        {"given": {"cpus": 0, "memory_bytes": 1}},
        {"given": {}},
        {"figures": {"fp64_ops_per_second": {**FIGURE, "median": float("nan")}}},
        {"figures": {"fp64_ops_per_second": {**FIGURE, "median": -1.0}}},
        {"figures": {"fp64_ops_per_second": {**FIGURE, "p90": 1.5}}},
        {"figures": {"fp64_ops_per_second": {**FIGURE, "samples": True}}},
        {"figures": []},
        {"accelerators": [{}]},
        {"left_out": "nothing"},
    ],
    ids=str,
)
def test_what_is_no_such_document_is_corrupt(change: dict[str, Any]) -> None:
    """Wrong types, negative, infinite or disordered figures, lacking fields."""
    with pytest.raises(Corrupt):
        read_document(json.dumps(document(**change)).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"null", b"[" * 100_000, b" " * 2_000_000])
def test_garbage_is_corrupt(content: bytes) -> None:
    """Whatever the bytes are."""
    with pytest.raises(Corrupt):
        read_document(content)


def test_a_name_cannot_steer_a_terminal() -> None:
    """Control characters are left out."""
    assert read_document(json.dumps(document(node="a\x1b[2Jb\n")).encode()).node == "a[2Jb"
