"""Histories of the simulated world: a sample on every run, thousands in the soak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REGRESSIONS = Path(__file__).with_name("regressions.txt")


def run_world(*arguments: str, seconds: float) -> dict[str, Any]:
    """Run histories in a process of their own, where the order of sets is fixed; answers what it counted."""
    path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.world", "--json", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def told(result: dict[str, Any]) -> str:
    """What went wrong, each with the command that replays it."""
    return "\n".join(f"python -m tests.world --seed {b['seed']}: {'; '.join(b['problems'])}" for b in result["bad"])


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_a_hundred_histories_keep_every_promise() -> None:
    """Lost 0, doubled 0, everything ended, usage as the site says, over 100 seeds, on two processors."""
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda seeds: run_world("--seeds", seeds, seconds=580), ("1-50", "51-100")))
    for result in halves:
        assert not result["violations"], told(result)
        assert result["histories"] == 50
    assert sum(result["kills"] for result in halves) > 30


@pytest.mark.fault
def test_seeds_that_found_a_bug_stay_good() -> None:
    """Every seed of regressions.txt keeps every promise now."""
    lines = [line.split()[0] for line in REGRESSIONS.read_text().splitlines() if line and not line.startswith("#")]
    for seed in lines:
        result = run_world("--seeds", f"{seed}-{seed}", seconds=60)
        assert not result["violations"], told(result)


@pytest.mark.fault
def test_a_seed_is_a_history() -> None:
    """The same seed twice is the same history, to the last count."""
    first, second = (run_world("--seeds", "21-22", seconds=170) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_thousands_of_histories_keep_every_promise() -> None:
    """2,500 further seeds."""
    result = run_world("--seeds", "10001-12500", seconds=4 * 3600)
    assert not result["violations"], told(result)
    assert result["histories"] >= 2000
