"""A decision in one sentence reads as English for one place and for several."""

from __future__ import annotations

import pytest

from isthmus.demo.receipts import lost
from isthmus.domain.placement import Candidate, Receipt, Why


@pytest.mark.parametrize(
    ("sites", "sentence"),
    [
        (["here"], "here/local was full"),
        (["here", "there"], "here/local and there/local were full"),
        (["a", "b", "c"], "a/local, b/local and c/local were full"),
    ],
)
def test_several_places_were_full(sites: list[str], sentence: str) -> None:
    """One was, several were."""
    full = tuple(Candidate(site=site, pool="local", why=Why.FULL_NOW) for site in sites)
    assert lost(Receipt(task_id="t", decided_at=0.0, candidates=full)) == sentence
