"""The workspace in bulk, and against damage."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.sites.matching import fits, literal_start, matches
from isthmus.sites.plain import LocalSite
from isthmus.sites.plain.devices import Devices
from isthmus.sites.port import (
    Collected,
    Job,
    JobFile,
    JobOutput,
    JobRef,
    LogStream,
    Rejected,
    Sighting,
    Staged,
    Uncertain,
)
from isthmus.sites.settings import Settings
from isthmus.sites.staging import place_below
from isthmus.sites.traces import parse_claim, parse_result, parse_traces
from isthmus.sites.transport import ScriptedTransport
from isthmus.sites.workspace import WORKSPACE_HELP, Workspace
from tests.conformance.bench import Centre, finish, job_at, new_key, ref_of, start, wait_for
from tests.conformance.test_plain_sites import _commands


async def test_many_jobs_are_staged_with_few_commands(
    local_site: Callable[..., LocalSite], centre: Centre, blobs: DirectoryBlobStore, scratch: Path
) -> None:
    """Four hundred jobs with inputs of their own cost a handful of commands, also when staged again."""
    site = local_site()
    jobs = []
    for number in range(400):
        sha256 = await blobs.put_bytes(f"input {number}".encode())
        jobs.append(job_at(centre, files=[JobFile(path="in", blob=sha256)]))
    asked = _commands(site)
    outcomes = await site.stage(jobs)
    assert all(isinstance(outcome, Staged) for outcome in outcomes.values())
    assert len(asked) <= 5
    assert (scratch / "root/attempts" / jobs[399].key / "work/in").read_text() == "input 399"
    again = await site.stage(jobs)
    assert all(isinstance(outcome, Staged) for outcome in again.values())
    assert len(asked) <= 7


async def test_ten_thousand_keys_are_observed_with_one_command(
    local_site: Callable[..., LocalSite], centre: Centre
) -> None:
    """One script answers for ten thousand attempts."""
    site = local_site()
    refs = await start(site, *(job_at(centre) for _ in range(3)))
    await wait_for(site, centre, refs)
    refs += [JobRef(key=new_key()) for _ in range(9_997)]
    asked = _commands(site)
    seen = await site.observe(refs)
    assert len(asked) == 1
    assert [seen[ref.key].reason for ref in refs[:3]] == [EndReason.EXIT_ZERO] * 3
    assert sum(observation.sighting is Sighting.ABSENT for observation in seen.values()) == 9_997


async def test_nothing_is_known_of_an_account_without_a_root(local_site: Callable[..., LocalSite]) -> None:
    """Before anything was staged the site cannot say that a job is absent: its root may just not be mounted."""
    site = local_site()
    ref = JobRef(key=new_key())
    assert (await site.observe([ref]))[ref.key].sighting is Sighting.UNSEEN
    with pytest.raises(Unavailable):
        await site.find([ref])


async def test_a_root_that_was_replaced_is_noticed(
    local_site: Callable[..., LocalSite], centre: Centre, scratch: Path
) -> None:
    """An empty directory in the root's place is not taken for a site that knows no job."""
    site = local_site()
    job = job_at(centre)
    await finish(site, centre, job)
    shutil.rmtree(scratch / "root")
    with pytest.raises(Unavailable):
        await site.observe([ref_of(job)])
    other = local_site()
    await other.stage([job_at(centre)])
    with pytest.raises(Unavailable):
        await site.observe([ref_of(job)])


async def test_a_submitted_job_whose_directory_is_gone_is_unseen(
    local_site: Callable[..., LocalSite], centre: Centre, scratch: Path
) -> None:
    """Without its directory the claim cannot be asked, so the job is not absent."""
    site = local_site()
    job = job_at(centre, "sleep 1")
    refs = await start(site, job)
    await wait_for(site, centre, refs)
    shutil.rmtree(scratch / "root/attempts" / job.key)
    assert (await site.observe(refs))[job.key].sighting is Sighting.UNSEEN
    assert isinstance((await site.collect([job]))[job.key], Uncertain)


async def test_a_damaged_result_is_not_an_end(
    local_site: Callable[..., LocalSite], centre: Centre, scratch: Path
) -> None:
    """Garbage in the place of a result is not believed."""
    site = local_site()
    job = job_at(centre, "sleep 600")
    refs = await start(site, job)
    await wait_for(site, centre, refs, [Sighting.RUNNING])
    (scratch / "root/attempts" / job.key / "result").write_text("reason=whatever code=0\n")
    assert (await site.observe(refs))[job.key].sighting is Sighting.RUNNING
    (scratch / "root/attempts" / job.key / "result").unlink()
    await site.cancel(refs)
    await wait_for(site, centre, refs)


async def test_a_blob_that_arrived_damaged_is_not_used(
    local_site: Callable[..., LocalSite], centre: Centre, blobs: DirectoryBlobStore, scratch: Path
) -> None:
    """What the site's own hash denies never becomes an input; the next try starts anew."""
    site = local_site()
    big = b"x" * 3_000_000
    sha256 = await blobs.put_bytes(big)
    await site.stage([job_at(centre)])
    part = scratch / "root/blobs" / sha256[:2] / f"{sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"y" * 1_000_000)
    job = job_at(centre, files=[JobFile(path="in", blob=sha256)])
    assert isinstance((await site.stage([job]))[job.key], Uncertain)
    assert isinstance((await site.stage([job]))[job.key], Staged)


async def test_one_jobs_unreadable_outputs_do_not_hold_up_the_others(
    local_site: Callable[..., LocalSite], centre: Centre, request: pytest.FixtureRequest
) -> None:
    """What cannot be listed is that job's own trouble."""
    account = request.getfixturevalue("lab_account").name
    site = local_site(switch_account="runuser")
    bad, good = (
        Job(
            **{
                name: getattr(job_at(centre, script, outputs=[JobOutput(path="d", directory=True)]), name)
                for name in Job.__slots__
            }
            | {"account": account}
        )
        for script in ("mkdir d d/e; chmod 0 d/e", "mkdir d; echo x >d/x")
    )
    await wait_for(site, centre, await start(site, bad, good))
    outcomes = await site.collect([bad, good])
    assert isinstance(outcomes[bad.key], Uncertain)
    assert isinstance(outcomes[good.key], Collected)
    await site.clean([JobRef(key=job.key, account=account) for job in (bad, good)])
    assert not list((centre.scratch / "root" / account / "attempts").iterdir())


@pytest.mark.parametrize("path", ["../x", "a/../../x", "", "a\nb", ".", "/", "/../x"])
async def test_no_path_leaves_the_attempt(local_site: Callable[..., LocalSite], centre: Centre, path: str) -> None:
    """A path that would is rejected before anything reaches the site."""
    job = job_at(centre, files=[JobFile(path=path, blob="0" * 64)])
    assert isinstance((await local_site().stage([job]))[job.key], Rejected)


async def test_a_key_that_is_none_reaches_no_shell(local_site: Callable[..., LocalSite], centre: Centre) -> None:
    """Keys are checked before anything else."""
    site = local_site()
    for key in ("../../etc", "a b", "", "x" * 26, "$(touch /tmp/x)"):
        job = Job(**{name: getattr(job_at(centre), name) for name in Job.__slots__} | {"key": key})
        assert isinstance((await site.stage([job]))[key], Rejected)


def test_traces_are_read_or_refused_whole() -> None:
    """An answer that is cut short, or from another root, is no answer."""
    key = new_key()
    claim = "fence=3 host=n1 pid=12 start=34 boot=b at=1.5 cpus=2 gpus=0,1"
    text = f"!boot b n1\n{key}|dsca||{claim}|\n!end\n"
    trace = parse_traces(text, "x")[key]
    assert trace.claim == parse_claim(claim)
    assert (trace.alive, trace.cpus, trace.staged) == (True, 2, True)
    elsewhere = parse_traces(text.replace("!boot b n1", "!boot c n2").replace("dsca", "dscn"), "x")[key]
    assert elsewhere.alive is None
    for damaged in (text.removesuffix("!end\n"), "", "!other root\n", "!no root\n", "motd\n" + text):
        with pytest.raises(Unavailable):
            parse_traces(damaged, "x")


def test_a_result_needs_reason_and_fence() -> None:
    """Anything else is damage."""
    result = parse_result("fence=3 reason=exit_nonzero code=4 started=1.5 ended=2.5 cpu=0.25 rss=10 step=1")
    assert result is not None
    assert (result.exit_code, result.cpu_seconds, result.max_rss_bytes) == (4, 0.25, 10)
    for damaged in ("", "fence=3", "reason=exit_zero", "fence=x reason=exit_zero", "fence=1 reason=nonsense"):
        assert parse_result(damaged) is None


async def test_garbage_from_the_site_is_unavailable(blobs: DirectoryBlobStore) -> None:
    """A site that prints something else is not believed."""
    for answer in ("welcome to the cluster\n", b"\xff\xfe\x00"):
        transport = ScriptedTransport(answers=[("", answer)])
        workspace = Workspace(transport, blobs, Settings({}, WORKSPACE_HELP), site="x")
        with pytest.raises(Unavailable):
            await workspace.traces([JobRef(key=new_key())])


def test_patterns() -> None:
    """Wildcards match part by part; ** any number of parts."""
    assert fits("a/*.csv", "a/b.csv")
    assert not fits("a/*.csv", "a/b/c.csv")
    assert fits("a/**/c", "a/b/b/c")
    assert fits("a/**/c", "a/c")
    assert literal_start("root/data/x*/y") == "root/data"
    assert matches(JobOutput(path="d", directory=True), "w/d", "w/d/e/f")
    assert not matches(JobOutput(path="d", directory=True), "w/d", "w/d")
    assert matches(JobOutput(path="odd[1]"), "w/odd[1]", "w/odd[1]")
    assert place_below("/data/x") == "root/data/x"
    assert place_below("a//b") == "work/a/b"


def test_accelerators_are_not_given_twice() -> None:
    """Held ones are not free; asking again gives the same; a claim tells a new adapter what is held."""
    devices = Devices()
    devices.offer(3)
    assert devices.take("a", 2) == (0, 1)
    assert devices.take("a", 2) == (0, 1)
    assert devices.take("b", 2) is None
    assert devices.take("b", 1) == (2,)
    devices.give_back("a")
    devices.note("c", "1")
    assert devices.take("d", 1) == (0,)
    assert devices.take("e", 0) == ()


async def test_accelerators_are_assigned(local_site: Callable[..., LocalSite], centre: Centre) -> None:
    """Jobs that ask for accelerators see different ones, and one too many is rejected."""
    from isthmus.domain.task import Accelerators, Demand
    from isthmus.sites.port import LogStream, Submitted

    site = local_site(gpus=2, gpu_kind="a100")
    pool = (await site.describe()).pools[0]
    assert (pool.accelerators_per_node, pool.accelerator_kind) == (2, "a100")
    demand = Demand(accelerators=Accelerators(count=1), memory_bytes=64 * 1024**2)
    jobs = [job_at(centre, "echo $CUDA_VISIBLE_DEVICES; sleep 600", demand=demand) for _ in range(3)]
    await site.stage(jobs)
    outcomes = await site.submit(jobs)
    assert [isinstance(outcomes[job.key], Submitted) for job in jobs] == [True, True, False]
    refs = [ref_of(job) for job in jobs[:2]]
    until = time.monotonic() + 60
    said: set[bytes] = set()
    while said != {b"0\n", b"1\n"}:
        assert time.monotonic() < until
        said = {await site.logs(ref, LogStream.STDOUT, 0, 10) for ref in refs}
    await site.cancel(refs)
    usage = await wait_for(site, centre, refs)
    assert len(usage) == 2
    assert {used.accelerators for used in (await site.usage(refs)).values()} == {1}


async def test_content_unused_for_long_is_swept(
    local_site: Callable[..., LocalSite], centre: Centre, blobs: DirectoryBlobStore, scratch: Path
) -> None:
    """Cleaning also drops old content and what killed commands left; fresh content stays, and dropped content comes anew."""
    site = local_site(cache_days=3)
    jobs = [job_at(centre, files=[JobFile(path="in", blob=await blobs.put_bytes(text))]) for text in (b"old", b"new")]
    await site.stage(jobs)
    old, new = (scratch / "root/blobs" / job.files[0].blob[:2] / job.files[0].blob for job in jobs)
    left = scratch / "root/incoming/left"
    left.mkdir()
    (left / "secrets").touch()
    for path in (old, left):
        os.utime(path, (time.time() - 5 * 86400,) * 2)
    await site.clean([ref_of(job) for job in jobs])
    assert (old.exists(), new.exists(), left.exists()) == (False, True, False)
    again = job_at(centre, files=jobs[0].files)
    answers = await site.stage([jobs[0], again])
    assert isinstance(answers[again.key], Staged)
    assert not isinstance(answers[jobs[0].key], Staged)  # a request that comes late does not bring an attempt back


@pytest.mark.parametrize("root", ["~/isthmus-test", "{scratch}/of-{account}", "{scratch}/shared/root"])
@pytest.mark.parametrize("switch", ["runuser", "sudo"])
async def test_each_account_has_a_root_of_its_own(
    local_site: Callable[..., LocalSite],
    centre: Centre,
    scratch: Path,
    root: str,
    switch: str,
    request: pytest.FixtureRequest,
) -> None:
    """A root may be in the account's home, named after it, or below a common directory; only its owner can enter."""
    account = request.getfixturevalue("lab_account")
    site = local_site(root=root.replace("{scratch}", str(scratch)), switch_account=switch)
    job = Job(
        **{name: getattr(job_at(centre, "pwd; stat -c %U,%a ../../.."), name) for name in Job.__slots__}
        | {"account": account.name}
    )
    refs = await start(site, job)
    await wait_for(site, centre, refs)
    where, owner = (await site.logs(refs[0], LogStream.STDOUT, 0, 1000)).decode().split()
    expected = {
        "~/isthmus-test": f"{account.home}/isthmus-test",
        "{scratch}/of-{account}": f"{scratch}/of-{account.name}",
        "{scratch}/shared/root": f"{scratch}/shared/root/{account.name}",
    }[root]
    assert where == f"{expected}/attempts/{job.key}/work"
    assert owner == f"{account.name},700"
    await site.clean(refs)


async def test_an_account_that_may_not_be_asked_is_not_absent(
    local_site: Callable[..., LocalSite], blobs: DirectoryBlobStore
) -> None:
    """When the site may no longer act as an account, nothing is said of its jobs."""
    ref = JobRef(key=new_key(), account="daemon")
    off, unmade = local_site(), local_site(switch_account="runuser", root="/proc/no/{account}")
    for call in (off.find, off.observe, off.usage, off.clean, unmade.find):
        with pytest.raises(Unavailable):
            await call([ref])
    assert (await unmade.observe([ref]))[ref.key].sighting is Sighting.UNSEEN
    assert await unmade.usage([ref]) == {}
    described = await local_site(root="/proc/no/root").describe()
    assert any("/proc/no/root" in note for note in described.notes)
