"""SlurmSite against a real cluster: what is particular to Slurm, beside the conformance suite."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.queue import QueuedJob
from isthmus.domain.site import Pool
from isthmus.domain.task import Accelerators, Demand
from isthmus.lab.accounts import Account
from isthmus.lab.errors import LabError
from isthmus.lab.slurm import SlurmCluster
from isthmus.sites.port import Job, LogStream, Observation, Rejected, Sighting, Submitted, Uncertain
from isthmus.sites.slurm import SlurmSite, values
from tests.conformance.bench import new_key
from tests.sites.attempts import ended, make_job, ref_of, sighted, stage, start, until
from tests.sites.clusters import open_site

pytestmark = [pytest.mark.real]
MIB = 1024**2


@pytest.fixture(scope="module", autouse=True)
def late_job(slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path) -> Job:
    """A job over its time, started before the other tests, since the shortest limit that Slurm knows is a minute."""
    minute = Demand(memory_bytes=64 * MIB, walltime_seconds=60)
    job = make_job("sleep 300", pool="cpu", account=lab_account.name, demand=minute)

    async def go() -> None:
        site = open_site(slurm_cluster, lab_directory, lab_directory / "late-blobs")
        await start(site, job)
        await site.close()

    asyncio.run(go())
    return job


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


async def test_usage_is_what_sacct_says(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """Elapsed and processor seconds, memory, nodes and GPUs equal the accounting, to the second and the byte."""
    demand = Demand(cpus=2, memory_bytes=64 * MIB, walltime_seconds=600, accelerators=Accelerators(count=2))
    # Longer than JobAcctGatherFrequency, so that memory is sampled.
    job = make_job(
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 7",
        pool="gpu",
        account=lab_account.name,
        demand=demand,
    )
    native_id = (await start(slurm_site, job))[job.key]
    assert await slurm_site.usage([ref_of(job)]) == {}
    await ended(slurm_site, job)
    usage = (await until(lambda: slurm_site.usage([ref_of(job)]), lambda found: job.key in found))[job.key]
    fields = "JobID,ElapsedRaw,CPUTimeRAW,TotalCPU,MaxRSS,AllocCPUS,NNodes,State,AllocTRES"
    shown = slurm_cluster.run("sacct", "-j", native_id, "-n", "-P", "--noconvert", f"--format={fields}")
    whole, *steps = (line.split("|") for line in shown.splitlines())
    assert whole[0] == native_id
    minutes, seconds = whole[3].split(":")[-2:]
    assert usage.elapsed_seconds == int(whole[1])
    assert usage.allocated_cpu_seconds == int(whole[2])
    assert usage.cpu_seconds == pytest.approx(int(minutes) * 60 + float(seconds))
    assert usage.max_rss_bytes == max(int(step[4] or 0) for step in steps) > 0
    assert (usage.cpus, usage.nodes, usage.native_state) == (int(whole[5]), int(whole[6]), whole[7])
    assert (usage.accelerators, usage.native_id, usage.source) == (2, native_id, "sacct")
    assert "gres/gpu=2" in whole[8]


async def test_no_record_of_the_cluster_holds_a_secret(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """Neither what scontrol and sacct tell of a job, its script included, nor any file of the daemons has its secrets."""
    secret = f"hush-{new_key()}"
    job = make_job("sleep 8; printf %s $HUSH | wc -c", pool="cpu", account=lab_account.name)
    job = replace(job, secrets={"HUSH": secret})
    native_id = (await start(slurm_site, job))[job.key]
    await sighted(slurm_site, job, Sighting.RUNNING)
    slurm_cluster.save_job(int(native_id))
    told = slurm_cluster.run("scontrol", "show", "job", "-dd", native_id)
    told += slurm_cluster.run("scontrol", "write", "batch_script", native_id, "-")
    await ended(slurm_site, job)
    told += slurm_cluster.run("sacct", "-j", native_id, "-P", "-o", "ALL")
    assert job.key in told
    assert secret not in told
    for path in slurm_cluster.directory.rglob("*"):
        with contextlib.suppress(OSError):  # sockets, and files that went meanwhile
            assert secret.encode() not in path.read_bytes(), path
    said = await slurm_site.logs(ref_of(job), LogStream.STDOUT, 0, 100)
    assert int(said) == len(secret)


async def test_what_the_cluster_refuses_is_rejected(slurm_site: SlurmSite, lab_account: Account) -> None:
    """An unknown partition, impossible memory and an option that may not be set are Rejected, each with its cause."""
    impossible = Demand(memory_bytes=900 * 1024 * MIB)
    jobs = [
        make_job("true", pool="nope", account=lab_account.name),
        make_job("true", pool="cpu", account=lab_account.name, demand=Demand(nodes=50, memory_bytes=MIB)),
        make_job("true", pool="cpu", account=lab_account.name, demand=impossible),
        make_job("true", pool="cpu", account=lab_account.name, native={"wrap": "id"}),
        make_job("true", pool="cpu", account=lab_account.name),
    ]
    await stage(slurm_site, *jobs)
    outcomes = await slurm_site.submit(jobs)
    refused = [outcome for outcome in (outcomes[job.key] for job in jobs) if isinstance(outcome, Rejected)]
    assert isinstance(outcomes[jobs[0].key], Rejected)
    assert isinstance(outcomes[jobs[3].key], Rejected)
    assert isinstance(outcomes[jobs[4].key], Submitted), "one bad job must not stop the others"
    assert any("artition" in outcome.message for outcome in refused)
    await slurm_site.cancel([ref_of(job) for job in jobs])


async def test_a_submission_that_times_out_after_it_was_accepted_is_found(
    slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path, tmp_path: Path
) -> None:
    """sbatch submits and then hangs: Uncertain, the jobs behind it too; `find` and `observe` see the one that went in."""
    programs = lab_directory / f"bin-{make_job('', pool='x').key}"
    programs.mkdir()
    for name in ("squeue", "sacct", "scancel", "sinfo", "scontrol"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\nexec sleep 60\n')
    (programs / "sbatch").chmod(0o755)
    site = open_site(slurm_cluster, lab_directory, tmp_path / "blobs", bin=str(programs), submit_timeout_seconds=3)
    try:
        lost, behind = (make_job("sleep 300", pool="cpu", account=lab_account.name) for _ in range(2))
        await stage(site, lost, behind)
        outcomes = await site.submit([lost, behind])
        assert isinstance(outcomes[lost.key], Uncertain)
        assert isinstance(outcomes[behind.key], Uncertain)
        found = await site.find([ref_of(lost), ref_of(behind)])
        assert len(found[lost.key]) == 1
        assert found[behind.key] == ()
        await sighted(site, lost, Sighting.RUNNING)
        assert (await site.observe([ref_of(behind)]))[behind.key].sighting is Sighting.ABSENT
        await site.cancel_native(found[lost.key])
        (seen,) = await ended(site, lost)
        assert seen.reason in {EndReason.CANCELLED_AT_SITE, EndReason.SIGNALLED}
    finally:
        await site.close()


async def test_of_two_jobs_with_one_key_one_runs(slurm_site: SlurmSite, lab_account: Account, tmp_path: Path) -> None:
    """A key submitted twice is two jobs; they run one after the other, and the command runs once."""
    job = make_job("echo ran; sleep 1", pool="cpu", account=lab_account.name)
    first = (await start(slurm_site, job))[job.key]
    second = (await slurm_site.submit([job]))[job.key]
    assert isinstance(second, Submitted)
    found = (await slurm_site.find([ref_of(job)]))[job.key]
    assert found == tuple(sorted([first, second.native_id], key=int))
    await ended(slurm_site, job)

    async def both_gone() -> Sequence[str]:
        rows = await slurm_site._scheduler.by_id([first, second.native_id])
        return [row.state for row in rows if row.sighting is not Sighting.ENDED]

    await until(both_gone, lambda left: not left)
    (seen,) = await ended(slurm_site, job)
    assert (seen.reason, seen.native_ids) == (EndReason.EXIT_ZERO, found)
    assert await slurm_site.logs(ref_of(job), LogStream.STDOUT, 0, 1000) == b"ran\n"
    assert (await until(lambda: slurm_site.usage([ref_of(job)]), bool))[job.key].native_id == first


async def test_a_second_start_of_a_requeued_job_does_not_run(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """The site puts a running job back into the queue: its second start loses the claim, the attempt ends as preempted."""
    job = make_job("echo ran; sleep 300", pool="cpu", account=lab_account.name)
    native_id = (await start(slurm_site, job))[job.key]
    await sighted(slurm_site, job, Sighting.RUNNING)
    await until(lambda: slurm_site.logs(ref_of(job), LogStream.STDOUT, 0, 100), bool)
    slurm_cluster.run("scontrol", "update", f"JobId={native_id}", "Requeue=1")
    slurm_cluster.run("scontrol", "requeue", native_id)

    async def settled() -> Observation:
        if slurm_cluster.job_state(int(native_id)) == "PENDING":  # do not wait for the two minutes of a requeue
            with contextlib.suppress(LabError):  # it may have started meanwhile
                slurm_cluster.run("scontrol", "update", f"JobId={native_id}", "StartTime=now")
        return (await slurm_site.observe([ref_of(job)]))[job.key]

    seen = await until(settled, lambda seen: seen.sighting is Sighting.ENDED, 120)
    assert seen.reason is EndReason.PREEMPTED
    assert seen.native_ids == (native_id,)
    assert await slurm_site.logs(ref_of(job), LogStream.STDOUT, 0, 1000) == b"ran\n"


async def test_a_drained_partition_has_nothing_free(slurm_site: SlurmSite, slurm_cluster: SlurmCluster) -> None:
    """Draining the nodes of a partition shows in the description, and a partition that is down is not up."""
    node = slurm_cluster.gpu_nodes[0]

    async def gpu_pool() -> Pool:
        return next(pool for pool in (await slurm_site.describe()).pools if pool.name == "gpu")

    pool = await until(gpu_pool, lambda pool: pool.up and pool.free_cpus == slurm_cluster.cpus_per_node)
    assert (pool.nodes, pool.cpus_per_node) == (1, slurm_cluster.cpus_per_node)
    assert (pool.accelerators_per_node, pool.accelerator_kind) == (4, "a100")
    assert pool.memory_bytes_per_node == slurm_cluster.memory_mib_per_node * MIB
    assert (pool.licences, pool.max_walltime_seconds) == ({"matlab": 4}, 86400)
    slurm_cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        pool = await until(gpu_pool, lambda pool: not pool.up)
        assert pool.free_cpus == 0
    finally:
        slurm_cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    await until(gpu_pool, lambda pool: pool.up)


async def test_a_silent_accounting_proves_nothing(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """While slurmdbd is down an unknown key is UNSEEN, a finished job is ENDED by its result, and usage waits."""
    known, unknown = (make_job("true", pool="cpu", account=lab_account.name) for _ in range(2))
    await stage(slurm_site, unknown)
    slurm_cluster.stop_accounting()
    try:
        seen = (await slurm_site.observe([ref_of(unknown)]))[unknown.key]
        assert seen.sighting is Sighting.UNSEEN
        with pytest.raises(Unavailable):
            await slurm_site.find([ref_of(unknown)])
        await start(slurm_site, known)
        (seen,) = await ended(slurm_site, known)
        assert (seen.reason, seen.exit_code) == (EndReason.EXIT_ZERO, 0)
        with pytest.raises(Unavailable):
            await slurm_site.usage([ref_of(known)])
    finally:
        slurm_cluster.start_accounting()
    await until(lambda: slurm_site.usage([ref_of(known)]), bool, 120)
    assert (await slurm_site.observe([ref_of(unknown)]))[unknown.key].sighting is Sighting.ABSENT


async def test_a_dead_controller_is_unavailable(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """With slurmctld down nothing is known and a submission is Uncertain; the running job is there again afterwards."""
    running, late = (make_job("sleep 300", pool="cpu", account=lab_account.name) for _ in range(2))
    await start(slurm_site, running)
    await stage(slurm_site, late)
    await sighted(slurm_site, running, Sighting.RUNNING)
    slurm_cluster.daemons.stop("slurmctld")
    try:
        with pytest.raises(Unavailable):
            await slurm_site.observe([ref_of(running)])
        assert isinstance((await slurm_site.submit([late]))[late.key], Uncertain)
    finally:
        slurm_cluster.start_controller()
        slurm_cluster.wait_ready()
    assert (await slurm_site.observe([ref_of(running)]))[running.key].sighting is Sighting.RUNNING
    assert await slurm_site.find([ref_of(late)]) == {late.key: ()}
    await slurm_site.cancel([ref_of(running)])
    (seen,) = await ended(slurm_site, running)
    assert seen.reason is EndReason.CANCELLED_BY_USER


async def test_a_lost_node_is_told_from_a_failing_job(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """A job whose node loses power ends as NODE_FAILED, after it was seen RUNNING."""
    lost = make_job("sleep 300", pool="gpu", account=lab_account.name)
    await start(slurm_site, lost)
    await sighted(slurm_site, lost, Sighting.RUNNING)
    node = slurm_cluster.gpu_nodes[0]
    slurm_cluster.kill_node(node)
    try:
        (seen,) = await ended(slurm_site, lost, seconds=120)
        assert seen.reason is EndReason.NODE_FAILED
        assert seen.nodes == (node,)
    finally:
        slurm_cluster.start_node(node)
        slurm_cluster.wait_ready()


async def test_a_job_over_its_time_ends_by_walltime(slurm_site: SlurmSite, late_job: Job) -> None:
    """A job that was given a minute and wants five ends as WALLTIME, whatever the cluster went through meanwhile."""
    (seen,) = await ended(slurm_site, late_job, seconds=150)
    assert seen.reason is EndReason.WALLTIME


async def test_the_visible_queue_has_rows_and_the_sites_own_forecast_of_start(
    slurm_site: SlurmSite, slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """What runs and what waits are rows with sizes, limits and times, no user's name in them; the start that squeue --start
    foretells is in the row, and a held job says so."""
    nodes = str(len(slurm_cluster.gpu_nodes))
    whole = ("-p", "gpu", "-N", nodes, "--exclusive", "-t", "5")
    ids = [
        str(slurm_cluster.submit("#!/bin/sh\nsleep 300", *whole, *more, user=lab_account.name))
        for more in ((), (), ("--hold",))
    ]
    try:

        async def look() -> dict[str, QueuedJob]:
            queue = (await slurm_site.describe()).queue
            assert queue is not None
            return {job.id: job for job in queue.jobs}

        running, waiting, held = ids
        seen = await until(
            look, lambda rows: running in rows and rows[running].running and rows[waiting].expected_at is not None
        )
        assert (seen[running].running, seen[waiting].running, seen[waiting].held) == (True, False, False)
        assert (seen[held].running, seen[held].held, seen[held].expected_at) == (False, True, None)
        assert seen[running].processors == int(slurm_cluster.run("squeue", "-h", "-o", "%C", "-j", running))
        assert seen[running].user == seen[waiting].user != ""
        assert lab_account.name not in str(seen)
        assert [seen[which].limit_seconds for which in (running, waiting)] == [300, 300]
        assert seen[waiting].submitted_at is not None
        assert seen[running].started_at is not None
        told = slurm_cluster.run("squeue", "--start", "-h", "-o", "%S", "-j", waiting).strip()
        assert seen[waiting].expected_at == pytest.approx(values.moment(told) or 0.0, abs=30)
    finally:
        slurm_cluster.run("scancel", *ids)
