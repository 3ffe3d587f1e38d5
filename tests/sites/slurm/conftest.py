"""Slurm sites of the session's one cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.lab.accounts import Account
from isthmus.lab.slurm import SlurmCluster
from isthmus.sites.slurm import SlurmSite
from tests.sites.clusters import open_site


@pytest.fixture
async def slurm_site(
    slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> AsyncIterator[SlurmSite]:
    """The cluster through its commands on this host, jobs run as the ordinary account."""
    site = open_site(slurm_cluster, lab_directory, tmp_path / "blobs")
    yield site
    await site.close()
