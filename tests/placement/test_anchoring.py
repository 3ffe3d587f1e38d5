"""The audit of a contested round: a true bound, prices near the LP's, and no flapping."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from isthmus.domain.placement import ScarcePrice, Snapshot
from isthmus.engine.auditing import Auditing
from isthmus.placement import decide
from isthmus.placement.anchoring import Anchor, Asked, anchor, anchored
from tests.placement.test_round import NOW
from tests.placement.test_scarce import PLAIN, QUICK, crowd

ROUND = Asked(snapshot=Snapshot(now=NOW, pools=(QUICK, PLAIN)), tasks=tuple(crowd()))


def test_the_lp_bounds_the_round_and_anchors_its_prices() -> None:
    """Solved to its end, with prices of the same pools; from its own prices on it has nothing to say."""
    found = anchor(ROUND)
    assert found.exact
    assert 0 <= found.gap < 0.5
    assert {price.site for price in found.prices} <= {"quick", "plain"}
    again = anchor(replace(ROUND, snapshot=replace(ROUND.snapshot, prices=found.prices)))
    assert again.drift <= found.drift + 1e-9
    assert decide(replace(ROUND.snapshot, gap=found.gap), ROUND.tasks).receipts[0].round_gap == found.gap


def price(site: str, *by_bucket: float) -> ScarcePrice:
    return ScarcePrice(site=site, pool="main", resource="cpus", bucket_seconds=60.0, by_bucket=by_bucket)


def test_prices_go_half_way_and_stay_when_they_are_good_enough() -> None:
    """A price that the LP does not have fades; a drift of less than half a per cent changes nothing."""
    standing = (price("a", 2.0, 0.0), price("b", 4.0, 4.0))
    found = Anchor(prices=(price("a", 4.0, 2.0), price("c", 2.0, 0.0)), gap=0.1, drift=0.02, classes=3, exact=True)
    assert anchored(standing, found) == (price("a", 3.0, 1.0), price("b", 2.0, 2.0), price("c", 1.0, 0.0))
    assert anchored(standing, replace(found, drift=0.004)) == standing


@pytest.mark.timeout(300)
async def test_an_audit_runs_beside_the_rounds_once_in_a_while_and_is_ended_when_it_takes_too_long() -> None:
    """Its gap is told, its prices are taken once; a second round soon after is not audited; a slow audit is a failure."""
    auditing = Auditing(every=1000.0, limit=250.0)
    auditing.offer(ROUND.snapshot, ROUND.tasks, NOW)
    for _ in range(2000):
        if auditing.audits or auditing.failures:
            break
        auditing.offer(ROUND.snapshot, ROUND.tasks, NOW + 1)
        await asyncio.sleep(0.1)
    assert (auditing.audits, auditing.failures) == (1, 0)
    assert auditing.gap is not None
    assert auditing.adjust(()) == ()
    hasty = Auditing(limit=0.05)
    hasty.offer(ROUND.snapshot, ROUND.tasks, NOW)
    for _ in range(300):
        if hasty.failures:
            break
        await asyncio.sleep(0.1)
    assert (hasty.audits, hasty.failures) == (0, 1)
    hasty.offer(ROUND.snapshot, ROUND.tasks, NOW - 3600)  # the clock was set back
    for _ in range(300):
        if hasty.failures == 2:
            break
        await asyncio.sleep(0.1)
    assert (hasty.audits, hasty.failures) == (0, 2)
    await hasty.stop()
    await auditing.stop()
