"""A sample of the histories of `python -m benchmarks.faults`, on real sites with real kills."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.faults import FAULTS_LOCAL, FAULTS_SLURM, local, slurm_histories
from isthmus.lab.accounts import Account
from isthmus.lab.slurm import SlurmCluster

pytestmark = [pytest.mark.fault, pytest.mark.real, pytest.mark.timeout(300)]


def test_histories_on_this_host() -> None:
    """Seventy faults (fewer where the machine is slow) on tasks of this host, directly and through an agent: none lost, none
    doubled."""
    result = local(70, 75.0, random.SystemRandom().randrange(10**6))
    assert result["told"] == []
    assert result["histories"] >= 5
    assert set(result["faults"]) <= set(FAULTS_LOCAL)


def test_histories_on_slurm(
    slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, postgres_url: str
) -> None:
    """Thirty faults (fewer where the machine is slow) on tasks of a Slurm cluster, with PostgreSQL: none lost, none doubled,
    usage as sacct says."""
    directory = lab_directory / "faults"
    directory.mkdir()
    quick = tuple(fault for fault in FAULTS_SLURM if fault not in ("scancel", "accounting"))
    result = slurm_histories(
        directory,
        slurm_cluster,
        lab_account.name,
        postgres_url,
        30,
        60.0,
        random.SystemRandom().randrange(10**6),
        quick,
    )
    assert result["told"] == []
    assert result["histories"] >= 3
