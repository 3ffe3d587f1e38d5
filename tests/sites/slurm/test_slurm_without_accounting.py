"""A cluster without slurmdbd that limits memory: what can be said when the queue is all there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Demand
from isthmus.lab.accounts import Account
from isthmus.lab.slurm import SlurmCluster
from isthmus.lab.slurm_config import CGROUPS
from isthmus.sites.port import Sighting
from isthmus.sites.slurm import SlurmSite
from tests.conftest import require
from tests.sites.attempts import ended, make_job, ref_of, stage, start, until
from tests.sites.clusters import open_site

pytestmark = [pytest.mark.real]
MIB = 1024**2


@pytest.fixture(scope="module")
def bare_cluster(lab_directory: Path, lab_account: Account) -> Iterator[SlurmCluster]:
    """One node, no accounting, memory enforced where control groups are at hand."""
    require("slurm")
    limited = (CGROUPS / "memory").is_dir()
    directory = lab_directory / "gamma"
    with SlurmCluster(directory, "gamma", nodes=1, gpu_nodes=0, accounting=False, enforce_memory=limited) as cluster:
        yield cluster


@pytest.fixture
async def site(bare_cluster: SlurmCluster, lab_directory: Path, tmp_path: Path) -> AsyncIterator[SlurmSite]:
    """The cluster through its commands."""
    adapter = open_site(bare_cluster, lab_directory, tmp_path / "blobs")
    yield adapter
    await adapter.close()


async def test_what_is_known_without_an_accounting(site: SlurmSite, lab_account: Account) -> None:
    """Ends come from results and the queue, absence from queue and directory, usage from the wrapper; it says so."""
    demand = Demand(cpus=2, memory_bytes=64 * MIB, walltime_seconds=600)
    good = make_job("sleep 1; exit 4", pool="cpu", account=lab_account.name, demand=demand)
    unknown = make_job("true", pool="cpu", account=lab_account.name)
    await stage(site, unknown)
    native_id = (await start(site, good))[good.key]
    (seen,) = await ended(site, good)
    assert (seen.reason, seen.exit_code, seen.native_ids) == (EndReason.EXIT_NONZERO, 4, (native_id,))
    assert (await site.observe([ref_of(unknown)]))[unknown.key].sighting is Sighting.ABSENT
    assert await site.find([ref_of(unknown), ref_of(good)]) == {unknown.key: (), good.key: (native_id,)}
    usage = (await until(lambda: site.usage([ref_of(good), ref_of(unknown)]), bool))[good.key]
    assert (usage.source, usage.cpus, usage.native_id) == ("wrapper", 2, native_id)
    assert usage.elapsed_seconds >= 1
    description = await site.describe()
    assert "accounting" not in description.features
    assert any("no accounting" in note for note in description.notes)


async def test_a_job_over_its_memory_ends_by_that(
    site: SlurmSite, bare_cluster: SlurmCluster, lab_account: Account
) -> None:
    """A job that takes four times what it asked for is OUT_OF_MEMORY, not just a failing command."""
    if not bare_cluster.enforce_memory:
        pytest.skip("no control groups of version 1")
    demand = Demand(memory_bytes=50 * MIB, walltime_seconds=600)
    job = make_job(
        "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}", pool="cpu", account=lab_account.name, demand=demand
    )
    await start(site, job)
    (seen,) = await ended(site, job)
    assert seen.reason is EndReason.OUT_OF_MEMORY
