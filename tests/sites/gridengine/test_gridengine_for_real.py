"""GridEngineSite against a real cell: what is particular to Grid Engine, beside the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Accelerators, Demand
from isthmus.lab.accounts import Account
from isthmus.lab.gridengine import GridEngineCell
from isthmus.sites.gridengine import GridEngineSite
from isthmus.sites.port import LogStream, Rejected, Sighting, Submitted
from tests.sites.attempts import ended, make_job, ref_of, sighted, stage, start, until

pytestmark = [pytest.mark.real]
MIB = 1024**2


@pytest.fixture
async def site(
    gridengine_cell: GridEngineCell, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> AsyncIterator[GridEngineSite]:
    """The session's cell, jobs run as the ordinary account."""
    config = {
        "switch_account": "runuser",
        "env": gridengine_cell.environment,
        "root": f"{lab_directory}/roots-cell/{{account}}",
        "gpu_kind": "a100",
        "describe_seconds": 0.1,
        "query_seconds": 0,
    }
    adapter = GridEngineSite("cell", config, DirectoryBlobStore(tmp_path / "blobs"))
    yield adapter
    await adapter.close()


async def test_slots_and_devices_are_held_and_counted(
    site: GridEngineSite, gridengine_cell: GridEngineCell, lab_account: Account
) -> None:
    """A job of three slots and two devices: seen in the load while it runs, in qacct's figures when it has ended."""
    demand = Demand(cpus=3, memory_bytes=64 * MIB, walltime_seconds=600, accelerators=Accelerators(count=2))
    job = make_job("echo slots=$NSLOTS; sleep 3", pool="all.q", account=lab_account.name, demand=demand)
    native_id = (await start(site, job))[job.key]
    await sighted(site, job, Sighting.RUNNING)
    (pool,) = (await site.describe()).pools
    assert (pool.name, pool.cpus_per_node, pool.free_cpus) == (
        "all.q",
        gridengine_cell.slots,
        gridengine_cell.slots - 3,
    )
    assert (pool.accelerators_per_node, pool.accelerator_kind) == (gridengine_cell.gpus, "a100")
    (seen,) = await ended(site, job)
    assert (seen.reason, seen.native_ids) == (EndReason.EXIT_ZERO, (native_id,))
    assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 100) == b"slots=3\n"
    usage = (await until(lambda: site.usage([ref_of(job)]), bool))[job.key]
    counted = await until(lambda: _accounting(gridengine_cell, native_id), bool)
    assert usage.elapsed_seconds == int(counted["ru_wallclock"].rstrip("s"))
    assert usage.allocated_cpu_seconds == 3 * usage.elapsed_seconds
    assert usage.cpu_seconds == pytest.approx(float(counted["cpu"].rstrip("s")))
    assert (usage.cpus, usage.accelerators, usage.native_id, usage.source) == (3, 2, native_id, "qacct")


async def _accounting(cell: GridEngineCell, native_id: str) -> dict[str, str]:
    return cell.accounting(int(native_id))


async def test_what_the_cell_refuses_is_rejected(site: GridEngineSite, lab_account: Account) -> None:
    """An unknown queue, several nodes without a parallel environment, an option that may not be set; the rest goes in."""
    jobs = [
        make_job("true", pool="nope.q", account=lab_account.name),
        make_job("true", pool="all.q", account=lab_account.name, demand=Demand(nodes=2)),
        make_job("true", pool="all.q", account=lab_account.name, native={"wrap": "id"}),
        make_job("true", pool="all.q", account=lab_account.name),
    ]
    await stage(site, *jobs)
    outcomes = await site.submit(jobs)
    assert [type(outcomes[job.key]) for job in jobs] == [Rejected, Rejected, Rejected, Submitted]
    await ended(site, jobs[3])


async def test_of_two_jobs_with_one_key_one_runs(site: GridEngineSite, lab_account: Account) -> None:
    """A key submitted twice is two jobs; the second waits for the first and finds the claim."""
    job = make_job("echo ran; sleep 1", pool="all.q", account=lab_account.name)
    first = (await start(site, job))[job.key]
    second = (await site.submit([job]))[job.key]
    assert isinstance(second, Submitted)
    assert (await site.find([ref_of(job)]))[job.key] == tuple(sorted([first, second.native_id], key=int))
    await site.cancel_native([second.native_id])
    (seen,) = await ended(site, job)
    assert (seen.reason, seen.exit_code) == (EndReason.EXIT_ZERO, 0)
    assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 1000) == b"ran\n"


async def test_a_job_killed_at_the_site_is_told_from_one_cancelled_here(
    site: GridEngineSite, gridengine_cell: GridEngineCell, lab_account: Account
) -> None:
    """qdel by somebody else is CANCELLED_AT_SITE, by this system CANCELLED_BY_USER."""
    theirs, ours = (make_job("sleep 300", pool="all.q", account=lab_account.name) for _ in range(2))
    ids = await start(site, theirs, ours)
    await sighted(site, theirs, Sighting.RUNNING)
    await sighted(site, ours, Sighting.RUNNING)
    gridengine_cell.run("qdel", ids[theirs.key])
    await site.cancel([ref_of(ours)])
    killed, cancelled = await ended(site, theirs, ours)
    assert killed.reason is EndReason.CANCELLED_AT_SITE
    assert cancelled.reason is EndReason.CANCELLED_BY_USER
