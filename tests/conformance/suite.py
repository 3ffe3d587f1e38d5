"""What every kind of site must do, in the words of src/isthmus/sites/port.py. Subclass it and give the fixture `centre`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Unavailable
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Demand, Executor
from isthmus.sites.port import (
    Collected,
    JobFile,
    JobOutput,
    JobRef,
    LogStream,
    Rejected,
    Sighting,
    Site,
    Staged,
    Submitted,
    Uncertain,
)
from tests.conformance.bench import (
    BreakingBlobs,
    Centre,
    finish,
    job_at,
    new_key,
    ref_of,
    said_by,
    sha256_of,
    start,
    wait_for,
)

NASTY = "a 'single' \"double\" $HOME `id` $(id) \\ \\n tab\t line\nbreak 算网融合 ! * ? [x] ; & | < > # ~ %s "


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobStore:
    """The control plane's blob store."""
    return DirectoryBlobStore(tmp_path / "blobs")


@pytest.fixture
async def site(centre: Centre, blobs: DirectoryBlobStore) -> AsyncIterator[Site]:
    """The adapter under test, closed in the end."""
    adapter = centre.make_site(blobs)
    yield adapter
    await adapter.close()


async def collect_one(site: Site, job: object) -> Collected:
    """Collect one job, which must work."""
    outcome = (await site.collect([job]))[job.key]  # type: ignore[attr-defined, list-item]
    assert isinstance(outcome, Collected), outcome
    return outcome


async def content(blobs: DirectoryBlobStore, sha256: str) -> bytes:
    """A stored content."""
    return b"".join([chunk async for chunk in blobs.read(sha256)])


class SiteConformance:
    """The suite."""

    @pytest.fixture
    def centre(self) -> Centre:
        """The centre under test; a subclass gives it."""
        raise NotImplementedError

    async def test_describes_its_pool(self, site: Site, centre: Centre) -> None:
        """The description names the pool that jobs go to, with processors and memory."""
        description = await site.describe()
        pool = {pool.name: pool for pool in description.pools}[centre.pool]
        assert description.kind
        assert pool.cpus >= 1
        assert pool.memory_bytes_per_node > 0

    async def test_shows_the_visible_queue_without_names(self, site: Site, centre: Centre) -> None:
        """Where the pool has a queue of its own, what runs there is a row of it, and no row names a user."""
        job = job_at(centre, "sleep 60")
        refs = await start(site, job)
        seen = (await wait_for(site, centre, refs, {Sighting.RUNNING}))[job.key]
        deadline = time.monotonic() + centre.deadline_seconds
        while True:
            await asyncio.sleep(1.1)  # a description is used again for a while
            description = await site.describe()
            shown = (
                {row.id for row in description.queue.jobs if row.running} if description.queue else set(seen.native_ids)
            )
            if shown & set(seen.native_ids) or time.monotonic() > deadline:
                break
        pool = {pool.name: pool for pool in description.pools}[centre.pool]
        try:
            assert (description.queue is None) == pool.immediate
            if description.queue is not None:
                (row,) = (row for row in description.queue.jobs if row.id in seen.native_ids)
                assert row.running
                assert centre.pool in row.pools
                assert row.processors >= 1
                assert abs((row.started_at or 0.0) - (seen.started_at or 0.0)) < 30
                assert centre.account not in {other.user for other in description.queue.jobs} - {""}
        finally:
            await site.cancel(refs)

    async def test_runs_a_job_and_tells_its_exit_code(self, site: Site, centre: Centre) -> None:
        """A job that exits 0 ends with exit_zero, by the fence that it was submitted with."""
        ended = await finish(site, centre, job_at(centre, "exit 0"))
        assert (ended.reason, ended.exit_code, ended.claim_fence) == (EndReason.EXIT_ZERO, 0, 7)
        assert ended.started_at is not None
        assert ended.ended_at is not None
        assert ended.started_at <= ended.ended_at

    @pytest.mark.parametrize("code", [1, 3, 77])
    async def test_a_failing_job_ends_with_its_own_exit_code(self, site: Site, centre: Centre, code: int) -> None:
        """Any other exit code is told as it was."""
        ended = await finish(site, centre, job_at(centre, f"exit {code}"))
        assert (ended.reason, ended.exit_code) == (EndReason.EXIT_NONZERO, code)

    async def test_a_command_that_does_not_exist_fails(self, site: Site, centre: Centre) -> None:
        """A missing program is the job's failure, with a message in its standard error."""
        job = job_at(centre, command=["no-such-program-anywhere"])
        ended = await finish(site, centre, job)
        assert (ended.reason, ended.exit_code) == (EndReason.EXIT_NONZERO, 127)
        assert b"no-such-program-anywhere" in await site.logs(ref_of(job), LogStream.STDERR, 0, 10_000)

    async def test_both_streams_are_read_by_offset(self, site: Site, centre: Centre) -> None:
        """Standard output and error are apart, and any part of them can be read."""
        job = job_at(centre, "printf 0123456789; printf oops >&2")
        await finish(site, centre, job)
        ref = ref_of(job)
        assert await site.logs(ref, LogStream.STDOUT, 0, 100) == b"0123456789"
        assert await site.logs(ref, LogStream.STDOUT, 4, 3) == b"456"
        assert await site.logs(ref, LogStream.STDOUT, 10, 100) == b""
        assert await site.logs(ref, LogStream.STDERR, 0, 100) == b"oops"

    async def test_environment_and_arguments_arrive_byte_by_byte(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """Quotes, line breaks, dollars and other scripts come through the shell, the scheduler and the transport."""
        script = 'printf "%s|%s|%s" "$NASTY" "$D" "$1"'
        job = job_at(
            centre,
            command=["/bin/sh", "-c", script, "name", NASTY],
            env={"NASTY": NASTY, "D": "not the script's own", "FENCE": "x", "SETSID": "x"},
        )
        ended = await finish(site, centre, job)
        assert ended.exit_code == 0
        said = await site.logs(ref_of(job), LogStream.STDOUT, 0, 10_000)
        assert said.decode() == f"{NASTY}|not the script's own|{NASTY}"

    async def test_a_job_knows_its_place(self, site: Site, centre: Centre) -> None:
        """Task, attempt, fence and pool are in its environment."""
        job = job_at(centre, 'echo "$ISTHMUS_TASK_ID $ISTHMUS_ATTEMPT $ISTHMUS_FENCE $ISTHMUS_POOL"')
        await finish(site, centre, job)
        said = await site.logs(ref_of(job), LogStream.STDOUT, 0, 10_000)
        assert said.decode().split() == [job.task_id, job.key, "7", centre.pool]

    async def test_secrets_reach_the_command_and_nothing_else(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """A secret is in the command's environment, but in no process's arguments and in no file, then or later."""
        secret = f"hush-{new_key()}-'\"\n"
        marker = secret[:20]
        job = job_at(
            centre,
            'printf %s "$HUSH" | sha256sum; ps axww -o args >seen.txt; cat ../* >>seen.txt 2>/dev/null; true',
            secrets={"HUSH": secret},
            outputs=[JobOutput(path="seen.txt")],
        )
        ended = await finish(site, centre, job)
        assert ended.exit_code == 0
        said = await site.logs(ref_of(job), LogStream.STDOUT, 0, 10_000)
        assert said.decode().split()[0] == sha256_of(secret.encode())
        collected = await collect_one(site, job)
        assert marker.encode() not in await content(blobs, collected.files[0].sha256)
        for folder, _, names in os.walk(centre.scratch):
            for name in names:
                path = Path(folder) / name
                if path.is_file():
                    assert marker.encode() not in path.read_bytes(), path

    async def test_inputs_are_there_before_the_job_starts(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """Small files from the blob store lie at their paths, executable where asked."""
        text = await blobs.put_bytes(b"hello\n")
        tool = await blobs.put_bytes(b"#!/bin/sh\necho tool says $1\n")
        job = job_at(
            centre,
            "cat 'data/with space.txt'; bin/tool x; [ ! -x 'data/with space.txt' ]",
            files=[
                JobFile(path="data/with space.txt", blob=text, size_bytes=6),
                JobFile(path="bin/tool", blob=tool, executable=True),
            ],
        )
        ended = await finish(site, centre, job)
        assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 10_000) == b"hello\ntool says x\n"
        assert ended.exit_code == 0

    async def test_a_job_cannot_change_the_content_that_others_get(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """Writing to an input changes the job's own copy only."""
        sha256 = await blobs.put_bytes(f"fresh {new_key()}".encode())
        files = [JobFile(path="in", blob=sha256)]
        await finish(site, centre, job_at(centre, "chmod u+w in; echo spoiled >in; echo spoiled >>in", files=files))
        later = job_at(centre, "sha256sum <in", files=files)
        await finish(site, centre, later)
        assert (await site.logs(ref_of(later), LogStream.STDOUT, 0, 100)).decode().split()[0] == sha256

    async def test_a_large_input_resumes_after_a_broken_stream(
        self, site: Site, centre: Centre, tmp_path: Path
    ) -> None:
        """A transfer that breaks is Uncertain, and the next call goes on from what had arrived."""
        blobs = BreakingBlobs(tmp_path / "breaking", breaks_after=9 * 1024**2)
        big = os.urandom(12 * 1024**2)
        sha256 = await blobs.put_bytes(big)
        adapter = centre.make_site(blobs)
        try:
            job = job_at(centre, "sha256sum <big", files=[JobFile(path="big", blob=sha256, size_bytes=len(big))])
            assert isinstance((await adapter.stage([job]))[job.key], Uncertain)
            await finish(adapter, centre, job)
            said = await adapter.logs(ref_of(job), LogStream.STDOUT, 0, 100)
        finally:
            await adapter.close()
        assert said.decode().split()[0] == sha256
        assert blobs.offsets[0] == 0
        assert blobs.offsets[-1] > 0

    async def test_a_missing_input_is_rejected_by_name(self, site: Site, centre: Centre) -> None:
        """An input that no one has can never be staged."""
        blob, place = (
            job_at(centre, files=[JobFile(path="x", blob="0" * 64)]),
            job_at(centre, files=[JobFile(path="x", path_at_site="/no/such/file")]),
        )
        outcomes = await site.stage([blob, place])
        for job in (blob, place):
            outcome = outcomes[job.key]
            assert isinstance(outcome, Rejected)
            assert outcome.reason is EndReason.INPUT_MISSING

    async def test_a_file_at_the_site_is_used_where_it_is(self, site: Site, centre: Centre) -> None:
        """An input that is at the site already does not travel."""
        source = centre.scratch / f"there-{new_key()}"
        source.write_bytes(b"already there")
        source.chmod(0o644)
        job = job_at(centre, "cat in", files=[JobFile(path="in", path_at_site=str(source))])
        await finish(site, centre, job)
        assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 100) == b"already there"

    async def test_outputs_by_name_pattern_and_directory(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """Declared outputs are in the blob store under their hashes; required ones that matched nothing are named."""
        job = job_at(
            centre,
            "mkdir -p deep/er; printf 1 >one.txt; printf 2 >two.csv; printf 3 >three.csv; printf x >deep/er/x;"
            "printf '#!/bin/sh' >deep/run; chmod 755 deep/run; printf no >unasked; printf 's p' >'deep/a b'",
            outputs=[
                JobOutput(path="one.txt"),
                JobOutput(path="*.csv"),
                JobOutput(path="deep", directory=True),
                JobOutput(path="never"),
                JobOutput(path="no*match", required=False),
            ],
        )
        await finish(site, centre, job)
        collected = await collect_one(site, job)
        found = {file.path: await content(blobs, file.sha256) for file in collected.files}
        assert found == {
            "one.txt": b"1",
            "two.csv": b"2",
            "three.csv": b"3",
            "deep/er/x": b"x",
            "deep/run": b"#!/bin/sh",
            "deep/a b": b"s p",
        }
        assert {file.path for file in collected.files if file.executable} == {"deep/run"}
        assert collected.missing == ("never",)

    async def test_a_large_output_arrives_whole(self, site: Site, centre: Centre, blobs: DirectoryBlobStore) -> None:
        """An output of 12 MiB is in the store with the hash that it has at the site; collecting again is harmless."""
        job = job_at(
            centre,
            "head -c 12582912 /dev/urandom >big; sha256sum <big",
            outputs=[JobOutput(path="big")],
        )
        await finish(site, centre, job)
        collected = await collect_one(site, job)
        said = (await site.logs(ref_of(job), LogStream.STDOUT, 0, 100)).decode().split()[0]
        assert [(file.path, file.sha256, file.size_bytes) for file in collected.files] == [("big", said, 12582912)]
        assert sha256_of(await content(blobs, said)) == said
        assert await collect_one(site, job) == collected

    async def test_streams_outlive_the_directory(self, site: Site, centre: Centre, blobs: DirectoryBlobStore) -> None:
        """Collecting keeps both streams as blobs."""
        job = job_at(centre, "echo said; echo moaned >&2; exit 4")
        await finish(site, centre, job)
        collected = await collect_one(site, job)
        assert collected.stdout is not None
        assert collected.stderr is not None
        await site.clean([ref_of(job)])
        assert await content(blobs, collected.stdout.sha256) == b"said\n"
        assert await content(blobs, collected.stderr.sha256) == b"moaned\n"

    async def test_a_link_out_of_the_directory_is_not_followed(self, site: Site, centre: Centre) -> None:
        """An output that is a link to a file elsewhere at the site is refused, whoever could read it."""
        job = job_at(centre, "ln -s /etc/passwd leak", outputs=[JobOutput(path="leak")])
        await finish(site, centre, job)
        outcome = (await site.collect([job]))[job.key]
        assert isinstance(outcome, Rejected)

    async def test_many_jobs_are_collected_in_one_call(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """Each job of a call gets its own outputs."""
        jobs = [job_at(centre, f"printf {n} >out", outputs=[JobOutput(path="out")]) for n in range(4)]
        await wait_for(site, centre, await start(site, *jobs))
        outcomes = await site.collect(jobs)
        for number, job in enumerate(jobs):
            outcome = outcomes[job.key]
            assert isinstance(outcome, Collected)
            assert await content(blobs, outcome.files[0].sha256) == str(number).encode()

    async def test_steps_run_in_order_until_one_fails(self, site: Site, centre: Centre) -> None:
        """A step that fails ends the job, unless its errors are ignored; each has its own environment and streams."""
        steps = [
            Executor(command=("/bin/sh", "-c", 'printf "$WHO" >first'), env={"WHO": "one"}),
            Executor(command=("/bin/sh", "-c", "exit 9"), ignore_error=True),
            Executor(command=("cat",), stdin="first", stdout="sub/second"),
            Executor(command=("/bin/sh", "-c", 'cat second; printf "$WHO"; exit 5'), workdir="sub"),
            Executor(command=("/bin/sh", "-c", "echo never")),
        ]
        job = job_at(centre, steps=steps)
        ended = await finish(site, centre, job)
        assert (ended.reason, ended.exit_code) == (EndReason.EXIT_NONZERO, 5)
        assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 100) == b"one"

    async def test_a_running_job_is_cancelled(self, site: Site, centre: Centre) -> None:
        """A cancelled job ends, and its processes with it."""
        alive = centre.scratch / f"alive-{new_key()}"
        job = job_at(centre, f"touch {alive}; sleep 300 && touch {alive}.late")
        refs = await start(site, job)
        await wait_for(site, centre, refs, [Sighting.RUNNING])
        await site.cancel(refs)
        ended = (await wait_for(site, centre, refs))[job.key]
        assert ended.reason in (EndReason.CANCELLED_BY_USER, EndReason.CANCELLED_AT_SITE, EndReason.SIGNALLED)
        assert not Path(f"{alive}.late").exists()
        await site.cancel(refs)

    async def test_a_preemptible_job_saves_its_state_and_makes_room(self, site: Site, centre: Centre) -> None:
        """Asked to make room, a running job gets its own signal once, saves within its grace, and ends as preempted."""
        alive = centre.scratch / f"alive-{new_key()}"
        script = f"trap 'echo saved >>state; exit 0' USR1; touch {alive}; while :; do sleep 0.2; done"
        outputs = [JobOutput(path="state", required=False)]
        job = replace(job_at(centre, script, outputs=outputs), signal="USR1", grace_seconds=100)
        refs = await start(site, job)
        await wait_for(site, centre, refs, [Sighting.RUNNING])
        while not alive.exists():
            await asyncio.sleep(0.1)
        gently = [replace(ref, grace_seconds=100) for ref in refs]
        await site.cancel(gently)
        await site.cancel(gently)
        ended = (await wait_for(site, centre, refs))[job.key]
        assert ended.reason is EndReason.PREEMPTED
        collected = (await site.collect([job]))[job.key]
        assert isinstance(collected, Collected)
        assert [(file.path, file.size_bytes) for file in collected.files] == [("state", len("saved\n"))]

    async def test_a_held_job_starts_when_it_is_let_go(self, site: Site, centre: Centre) -> None:
        """It is there and has not started; told to go, twice, it runs once. Another ends by itself when its hold is over, and an order
        that comes after that starts it no more; one that is cancelled while it is held ends as cancelled."""
        count, late = (centre.scratch / f"{name}-{new_key()}" for name in ("held", "late"))
        held = replace(job_at(centre, f"echo ran >>{count}"), hold_seconds=600)
        short = replace(job_at(centre, f"touch {late}"), hold_seconds=1)
        ended = replace(job_at(centre, f"touch {late}"), hold_seconds=600)
        refs = [ref for job in (held, short, ended) for ref in await start(site, job)]
        await wait_for(site, centre, [refs[0], refs[2]], [Sighting.RUNNING])
        over = (await wait_for(site, centre, refs[1:2]))[short.key]
        assert over.reason is EndReason.PEERS_LATE
        assert not over.steps
        await site.let_go(refs[1:2])
        await site.cancel(refs[2:])
        gone = (await wait_for(site, centre, refs[2:]))[ended.key]
        assert gone.reason in (EndReason.CANCELLED_BY_USER, EndReason.CANCELLED_AT_SITE, EndReason.SIGNALLED)
        assert not count.exists()
        await site.let_go(refs[:1])
        await site.let_go(refs[:1])
        done = (await wait_for(site, centre, refs[:1]))[held.key]
        assert done.reason is EndReason.EXIT_ZERO
        assert done.started_at is not None
        assert done.steps[0].started_at - done.started_at > 0.5
        assert count.read_text() == "ran\n"
        assert not late.exists()

    async def test_a_queued_job_is_cancelled_and_never_runs(self, site: Site, centre: Centre) -> None:
        """A job that waits behind a full pool and is cancelled has not started."""
        if centre.full is None:
            pytest.skip("this pool has no queue")
        mark = centre.scratch / f"ran-{new_key()}"
        first = job_at(centre, "sleep 300", demand=centre.full)
        second = job_at(centre, f"touch {mark}", demand=centre.full)
        refs = await start(site, first)
        await wait_for(site, centre, refs, [Sighting.RUNNING])
        refs += await start(site, second)
        assert (await site.observe(refs))[second.key].sighting is Sighting.QUEUED
        await site.cancel(refs[1:])
        await wait_for(site, centre, refs[1:], [Sighting.ENDED])
        await site.cancel(refs)
        await wait_for(site, centre, refs)
        assert not mark.exists()

    async def test_a_key_runs_once_however_often_it_is_submitted(self, site: Site, centre: Centre) -> None:
        """Submitting a key again, at once and after its end, runs the command once."""
        count = centre.scratch / f"count-{new_key()}"
        job = job_at(centre, f"echo ran >>{count}")
        refs = await start(site, job)
        for _ in range(2):
            await site.submit([job])
        await wait_for(site, centre, refs)
        await site.stage([job])
        await site.submit([job])
        later = job_at(centre, "true")  # what was submitted before it has been looked at when it has ended
        await finish(site, centre, later)
        await wait_for(site, centre, refs)
        assert count.read_text() == "ran\n"

    async def test_a_job_is_found_by_its_key_alone(self, site: Site, centre: Centre) -> None:
        """When the answer to a submission was lost, the key leads to the native id; a key unknown leads to none."""
        job = job_at(centre, "sleep 300")
        refs = await start(site, job)
        await wait_for(site, centre, refs, [Sighting.QUEUED, Sighting.RUNNING])
        bare, other = ref_of(job), JobRef(key=new_key(), account=centre.account, pool=centre.pool)
        found = await site.find([bare, other])
        assert len(found[job.key]) >= 1
        assert refs[0].native_id in found[job.key]
        assert found[other.key] == ()
        await site.cancel([bare])
        await wait_for(site, centre, refs)

    async def test_a_key_that_was_never_submitted_is_absent(self, site: Site, centre: Centre) -> None:
        """Absent is said only of what the site was asked for and denies."""
        await finish(site, centre, job_at(centre))
        staged = job_at(centre)
        assert isinstance((await site.stage([staged]))[staged.key], Staged)
        unknown = JobRef(key=new_key(), account=centre.account, pool=centre.pool)
        seen = await site.observe([unknown, ref_of(staged)])
        assert seen[unknown.key].sighting is Sighting.ABSENT
        assert seen[staged.key].sighting is Sighting.ABSENT

    async def test_a_thousand_keys_cost_two_commands(self, site: Site, centre: Centre) -> None:
        """One look at many jobs asks the scheduler twice at most and answers for each."""
        jobs = [job_at(centre, "exit 6") for _ in range(5)]
        refs = await start(site, *jobs)
        await wait_for(site, centre, refs)
        refs += [JobRef(key=new_key(), account=centre.account, pool=centre.pool) for _ in range(995)]
        asked = centre.commands(site) if centre.commands is not None else []
        seen = await site.observe(refs)
        assert len(asked) <= 2, asked
        assert [seen[job.key].exit_code for job in jobs] == [6] * 5
        assert all(seen[ref.key].sighting is Sighting.ABSENT for ref in refs[5:])

    async def test_an_outage_is_never_taken_for_absence(self, site: Site, centre: Centre) -> None:
        """While the site does not answer nothing is absent or ended; afterwards the job is there as before."""
        if centre.outage is None:
            pytest.skip("this centre cannot be broken")
        job = job_at(centre, "echo up; sleep 300")
        refs = await start(site, job)
        await wait_for(site, centre, refs, [Sighting.RUNNING])
        await said_by(site, centre, refs[0])
        unknown = JobRef(key=new_key(), account=centre.account, pool=centre.pool)
        with centre.outage():
            try:
                seen = await site.observe([*refs, unknown])
            except Unavailable:
                seen = {}
            assert all(
                observation.sighting in (Sighting.UNSEEN, Sighting.RUNNING, Sighting.QUEUED)
                for observation in seen.values()
            ), seen
        await wait_for(site, centre, refs, [Sighting.RUNNING])
        await site.cancel(refs)
        await wait_for(site, centre, refs)

    async def test_usage_is_told_once_the_job_has_ended(self, site: Site, centre: Centre) -> None:
        """Times, processors and processor time of an ended job; nothing of one that runs or was never there."""
        job = job_at(centre, "n=0; while [ $n -lt 300000 ]; do n=$((n + 1)); done; sleep 1")
        refs = await start(site, job)
        unknown = JobRef(key=new_key(), account=centre.account, pool=centre.pool)
        await wait_for(site, centre, refs)
        until = time.monotonic() + centre.deadline_seconds
        while not (usage := dict(await site.usage([*refs, unknown]))):  # an accounting may lag behind the end
            assert time.monotonic() < until
            await asyncio.sleep(0.2)
        assert usage.keys() == {job.key}
        used = usage[job.key]
        assert used.elapsed_seconds >= 1
        assert used.cpus >= 1
        assert used.started_at is not None
        assert used.ended_at is not None
        assert used.allocated_cpu_seconds >= used.elapsed_seconds - 1

    async def test_a_job_over_its_walltime_is_ended(self, site: Site, centre: Centre) -> None:
        """The site or the wrapper ends it, and says why."""
        if centre.walltime_seconds is None:
            pytest.skip("this site's shortest walltime is too long for a test")
        demand = Demand(memory_bytes=centre.demand.memory_bytes, walltime_seconds=centre.walltime_seconds)
        ended = await finish(site, centre, job_at(centre, "sleep 300", demand=demand))
        assert ended.reason is EndReason.WALLTIME

    async def test_a_job_over_its_memory_is_ended(self, site: Site, centre: Centre) -> None:
        """Where memory is limited, a job that takes too much ends with that reason."""
        if not centre.memory_is_limited:
            pytest.skip("this site does not limit memory")
        demand = Demand(memory_bytes=32 * 1024**2, walltime_seconds=600)
        hungry = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 300"
        ended = await finish(site, centre, job_at(centre, hungry, demand=demand))
        assert ended.reason is EndReason.OUT_OF_MEMORY

    async def test_cleaning_twice_is_harmless(self, site: Site, centre: Centre) -> None:
        """After a clean no directory and no content of the attempt is left (an empty mark may say that it was here), and
        cleaning again, or what never was, is no error."""
        job = job_at(centre, "mkdir d; touch d/f; chmod 500 d")
        refs = await start(site, job)
        await wait_for(site, centre, refs)
        await site.clean(refs)
        await site.clean([*refs, JobRef(key=new_key(), account=centre.account, pool=centre.pool)])
        left = [path for path in centre.scratch.rglob(job.key) if path.is_dir() or path.stat().st_size]
        assert left == []

    async def test_a_restarted_adapter_knows_the_jobs(
        self, site: Site, centre: Centre, blobs: DirectoryBlobStore
    ) -> None:
        """A new adapter sees, cancels and collects what an older one started."""
        running = job_at(centre, "sleep 300")
        ended = job_at(centre, "printf kept >out; exit 2", outputs=[JobOutput(path="out")])
        refs = await start(site, running, ended)
        await wait_for(site, centre, refs, [Sighting.RUNNING, Sighting.ENDED])
        await site.close()
        fresh = centre.make_site(blobs)
        try:
            seen = await wait_for(fresh, centre, refs, [Sighting.RUNNING, Sighting.ENDED])
            assert seen[running.key].sighting is Sighting.RUNNING
            await wait_for(fresh, centre, refs[1:])
            assert (await collect_one(fresh, ended)).files[0].sha256 == sha256_of(b"kept")
            again = await fresh.submit([running])
            assert isinstance(again[running.key], Submitted | Uncertain | Rejected)
            await fresh.cancel(refs)
            await wait_for(fresh, centre, refs)
        finally:
            await fresh.close()
