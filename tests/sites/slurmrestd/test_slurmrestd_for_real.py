"""SlurmRestSite against a real slurmrestd: tokens and devices, beside the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.lab.accounts import Account
from isthmus.lab.slurm import SlurmCluster
from isthmus.sites.port import LogStream, Rejected, Sighting, Uncertain
from isthmus.sites.slurmrestd import SlurmRestSite
from tests.sites.attempts import ended, make_job, ref_of, sighted, stage, start, until

pytestmark = [pytest.mark.real]
MIB = 1024**2


@pytest.fixture(scope="module")
def rest_url(slurm_cluster: SlurmCluster) -> Iterator[str]:
    """The session's cluster behind its slurmrestd."""
    yield slurm_cluster.start_rest()
    slurm_cluster.stop_rest()


def open_site(url: str, directory: Path, blobs: Path, **settings: Any) -> SlurmRestSite:
    """A site behind slurmrestd whose files go over this host."""
    config = {
        "switch_account": "runuser",
        "url": url,
        "root": f"{directory}/roots-rest/{{account}}",
        "query_seconds": 0,
    }
    return SlurmRestSite("alpha", config | settings, DirectoryBlobStore(blobs))


def write_token(path: Path, token: str) -> str:
    """A private file with a token."""
    path.touch(mode=0o600)
    path.write_text(token, encoding="ascii")
    return str(path)


async def test_jobs_run_as_the_mapped_account_with_what_they_asked_for(
    rest_url: str, slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> None:
    """Account, home, devices and both nodes arrive; usage equals sacct's; a cancelled job ends."""
    token = write_token(tmp_path / "token", slurm_cluster.token("root"))
    site = open_site(rest_url, lab_directory, tmp_path / "blobs", token_file=token)
    two = Demand(nodes=2, memory_bytes=64 * MIB, walltime_seconds=600)
    devices = Demand(
        cpus=2, memory_bytes=64 * MIB, walltime_seconds=600, accelerators=Accelerators(count=2, kind="a100")
    )
    wide = make_job("srun sh -c 'echo $SLURMD_NODENAME'", pool="cpu", account=lab_account.name, demand=two)
    gpu = make_job(
        'echo "$(id -un) $HOME $CUDA_VISIBLE_DEVICES"; sleep 1', pool="gpu", account=lab_account.name, demand=devices
    )
    long = make_job("sleep 300", pool="cpu", account=lab_account.name)
    bad = make_job("true", pool="nope", account=lab_account.name)
    try:
        ids = await start(site, wide, gpu, long)
        await stage(site, bad)
        assert isinstance((await site.submit([bad]))[bad.key], Rejected)
        seen = await ended(site, wide, gpu)
        assert [one.exit_code for one in seen] == [0, 0]
        assert len((await site.logs(ref_of(wide), LogStream.STDOUT, 0, 1000)).split()) == 2
        said = (await site.logs(ref_of(gpu), LogStream.STDOUT, 0, 1000)).decode()
        assert said == f"{lab_account.name} {lab_account.home} 0,1\n"
        usage = (await until(lambda: site.usage([ref_of(gpu)]), bool))[gpu.key]
        shown = slurm_cluster.run(
            "sacct", "-j", ids[gpu.key], "-X", "-n", "-P", "--format=ElapsedRaw,CPUTimeRAW,AllocCPUS"
        )
        assert f"{usage.elapsed_seconds}|{usage.allocated_cpu_seconds}|{usage.cpus}" == shown
        assert usage.accelerators == 2
        await sighted(site, long, Sighting.RUNNING)
        await site.cancel_native([ids[long.key]])
        (gone,) = await ended(site, long)
        assert gone.reason in {EndReason.CANCELLED_AT_SITE, EndReason.SIGNALLED}
        description = await site.describe()
        assert description.version.endswith(" (v0.0.38)")
        assert {pool.name for pool in description.pools} == {"cpu", "gpu"}
    finally:
        await site.close()


async def test_a_bad_token_is_unavailable_and_a_new_one_is_taken_up(
    rest_url: str, slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> None:
    """With a wrong token nothing is known and no submission is sure; the file is read anew, so a new one works at once."""
    bad = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"
    path = tmp_path / "token"
    write_token(path, bad)
    site = open_site(rest_url, lab_directory, tmp_path / "blobs", token_file=str(path))
    job = make_job("true", pool="cpu", account=lab_account.name)
    try:
        await stage(site, job)
        with pytest.raises(Unavailable) as caught:
            await site.observe([ref_of(job)])
        assert "token" in str(caught.value)
        assert bad not in str(caught.value)
        outcome = (await site.submit([job]))[job.key]
        assert isinstance(outcome, Uncertain)
        assert bad not in outcome.message
        path.write_text(slurm_cluster.token("root"), encoding="ascii")
        assert (await site.observe([ref_of(job)]))[job.key].sighting is Sighting.ABSENT
    finally:
        await site.close()


async def test_a_token_for_each_account_is_made_by_a_command(
    rest_url: str, slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> None:
    """The account's own token is enough to submit as it; nobody needs root's."""
    command = [*slurm_cluster.command_prefix, "scontrol", "token", "username={account}", "lifespan=600"]
    site = open_site(rest_url, lab_directory, tmp_path / "blobs", token_command=command, api_user=lab_account.name)
    job = make_job("exit 5", pool="cpu", account=lab_account.name)
    try:
        await start(site, job)
        (seen,) = await ended(site, job)
        assert seen.exit_code == 5
    finally:
        await site.close()
