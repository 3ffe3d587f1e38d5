"""Flows share links max-min fairly."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.twin.federation.flows import fair_rates


def rates(paths: Any, active: Any, capacity: Any) -> Any:
    """Rates by pair."""
    rate = np.zeros(len(paths))
    busy = np.flatnonzero(np.array(active))
    fair_rates(np.array(paths), np.array(active), busy, np.array(capacity, dtype=float), rate)
    return rate


def test_the_example_of_the_textbook() -> None:
    """One long flow shares two links with a short one each: the narrow link decides first (Bertsekas, Gallager)."""
    got = rates([[0, 1], [0, -1], [1, -1]], [1, 1, 1], [1.0, 2.0])
    assert got.tolist() == [0.5, 0.5, 1.5]
    assert rates([[0, 1], [0, -1], [1, -1]], [1, 3, 1], [1.0, 2.0]).tolist() == [0.25, 0.25, 1.75]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_flow_has_a_bottleneck(data: Any) -> None:
    """No link carries more than it can; each flow crosses a full link on which no flow is faster: that is max-min fair."""
    links = data.draw(st.integers(1, 5))
    path = st.lists(st.integers(0, links - 1), min_size=1, max_size=3, unique=True)
    drawn = data.draw(st.lists(path, min_size=1, max_size=8))
    active = data.draw(st.lists(st.integers(0, 4), min_size=len(drawn), max_size=len(drawn)))
    capacity = data.draw(st.lists(st.integers(1, 50), min_size=links, max_size=links))
    got = rates([(*one, *[-1] * (3 - len(one))) for one in drawn], active, capacity)
    load = np.zeros(links)
    fastest = np.zeros(links)
    for one, flows, rate in zip(drawn, active, got, strict=True):
        if flows:
            load[one] += flows * rate
            fastest[one] = np.maximum(fastest[one], rate)
    assert (load <= np.array(capacity) * (1 + 1e-9)).all()
    full = load >= np.array(capacity) * (1 - 1e-9)
    for one, flows, rate in zip(drawn, active, got, strict=True):
        if flows:
            assert any(full[link] and rate >= fastest[link] * (1 - 1e-9) for link in one)
