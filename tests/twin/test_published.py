"""The site schedulers repeat what others published, job by job.

SC'15: Gaussier, Glesser, Reis, Trystram, "Improving backfilling by using machine learning to predict running times".
Logs: Parallel Workloads Archive (Feitelson, Tsafrir, Krakov, JPDC 2014); KTH by Lars Malinowsky, CTC by Dan Dwyer and
Steve Hotovy, SDSC-SP2 by Victor Hazlewood.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.twin.readers import read_swf
from isthmus.twin.schedulers import bounded_slowdown, simulate
from isthmus.twin.schedulers.simulate import Estimates, Scheduler

LOGS = {"KTH-SP2": 100, "CTC-SP2": 338, "SDSC-SP2": 128}
PUBLISHED = {"easy": (92.5765, 49.5713, 87.8703), "easy-sjbf": (69.4054, 30.0411, 84.8889)}


@pytest.mark.parametrize("name", LOGS)
def test_waits_and_slowdowns_are_those_of_sc15(traces: Path, name: str) -> None:
    """Each job waits as long as in the SC'15 artefact, and the mean bounded slowdown agrees to four decimals."""
    log = read_swf(traces / "pwa" / f"{name}.sc15-rebuilt.swf.gz")
    reference = np.load(traces / "reference-sc15" / f"{name}.waits.npz")
    assert log.bad_lines == ()
    assert np.array_equal(reference["id"], log.job_id)
    cases: list[tuple[Scheduler, Estimates, str]] = [
        ("easy", "requested", "EASY"),
        ("easy", "actual", "EASY_clairvoyant"),
        ("easy-sjbf", "actual", "EASYpp_SJBF_clairvoyant"),
    ]
    for scheduler, estimates, column in cases:
        waits = simulate(log, LOGS[name], scheduler, estimates)
        assert np.array_equal(waits, reference[column]), (column, float((waits == reference[column]).mean()))
    for kind in ("easy", "easy-sjbf"):
        slowdown = bounded_slowdown(simulate(log, LOGS[name], kind, "requested"), log.run_seconds).mean()
        assert round(float(slowdown), 4) == PUBLISHED[kind][list(LOGS).index(name)]


def test_conservative_on_kth_is_that_of_pyss(traces: Path) -> None:
    """The mean bounded slowdown of conservative backfilling on KTH is what pyss gives."""
    log = read_swf(traces / "pwa" / "KTH-SP2.sc15-rebuilt.swf.gz")
    assert bounded_slowdown(simulate(log, 100, "conservative"), log.run_seconds).mean() == pytest.approx(
        88.997, abs=5e-4
    )
