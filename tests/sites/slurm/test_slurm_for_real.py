"""SlurmSite against a real cluster: what is particular to Slurm, beside the conformance suite."""

from __future__ import annotations

import pytest

from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.lab.accounts import Account
from isthmus.sites.port import LogStream
from isthmus.sites.slurm import SlurmSite
from tests.sites.attempts import ended, make_job, ref_of, start

pytestmark = [pytest.mark.real]
MIB = 1024**2


async def test_exit_codes_nodes_and_devices_are_what_was_asked(slurm_site: SlurmSite, lab_account: Account) -> None:
    """A failing job, a job on two nodes whose srun starts a rank on each, and a job with two GPUs end as they should."""
    two_nodes = Demand(nodes=2, cpus=2, memory_bytes=64 * MIB, walltime_seconds=600)
    gpus = Demand(memory_bytes=64 * MIB, walltime_seconds=600, accelerators=Accelerators(count=2, kind="a100"))
    fails = make_job("exit 3", pool="cpu", account=lab_account.name)
    spreads = make_job(
        "srun sh -c 'echo $SLURMD_NODENAME $SLURM_NNODES'", pool="cpu", account=lab_account.name, demand=two_nodes
    )
    computes = make_job("echo devices=$CUDA_VISIBLE_DEVICES; id -un", pool="gpu", account=lab_account.name, demand=gpus)
    await start(slurm_site, fails, spreads, computes)
    failed, spread, computed = await ended(slurm_site, fails, spreads, computes)
    assert (failed.reason, failed.exit_code, failed.claim_fence) == (EndReason.EXIT_NONZERO, 3, 7)
    assert (spread.reason, len(spread.nodes)) == (EndReason.EXIT_ZERO, 2)
    ranks = (await slurm_site.logs(ref_of(spreads), LogStream.STDOUT, 0, 1000)).decode().split("\n")
    assert sorted(line for line in ranks if line) == [f"{node} 2" for node in sorted(spread.nodes)]
    said = (await slurm_site.logs(ref_of(computes), LogStream.STDOUT, 0, 1000)).decode()
    assert said == f"devices=0,1\n{lab_account.name}\n"
    assert computed.exit_code == 0
