"""SlurmSite over prepared answers: load, cut-off answers and broken pipes that a healthy cluster does not give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from isthmus.domain.errors import Unavailable
from isthmus.sites.batch.asking import read_talk
from isthmus.sites.batch.site import BatchSite
from isthmus.sites.port import Job, JobRef, Sighting, Submitted, Uncertain
from isthmus.sites.slurm.scheduler import SlurmCommands
from isthmus.sites.traces import Trace
from isthmus.sites.transport import CommandResult, ScriptedTransport
from tests.sites.attempts import make_job, ref_of


class StagedWorkspace:
    """A workspace in which every attempt is staged and none has started."""

    async def traces(self, refs: Sequence[JobRef]) -> dict[str, Trace]:
        """Staged, no claim."""
        return {ref.key: Trace(directory=True, staged=True) for ref in refs}

    async def mark_cancelled(self, refs: Sequence[JobRef]) -> None:
        """Nothing to mark."""

    async def attempt_directory(self, account: str, key: str) -> str:
        """Somewhere."""
        return f"/r/{account}/{key}"


def answering(squeue: str, sacct: str, *, squeue_code: int = 0, sacct_code: int = 0) -> Any:
    """What a script prints that runs squeue or sacct."""

    def answer(_: str, script: bytes) -> CommandResult:
        text, code = (squeue, squeue_code) if b"squeue" in script else (sacct, sacct_code)
        whole = f"{text}\n#isthmus-end {code} 1795704300\n".encode()
        return CommandResult(exit_code=0, stdout=whole, stderr=b"error: something" if code else b"")

    return answer


def site_over(answer: Any) -> tuple[BatchSite, ScriptedTransport]:
    """A site whose every command is answered by a function."""
    transport = ScriptedTransport(answers=[("/bin/sh -s", answer)])
    scheduler = SlurmCommands(transport)
    return BatchSite("x", transport=transport, workspace=StagedWorkspace(), scheduler=scheduler), transport  # type: ignore[arg-type]


def line(job: Job, number: int, state: str) -> str:
    """A line of squeue."""
    return f"{number}|operator|{state}|None|1795704151|1795704152|1795704219|0:10|1|n1|{job.key}"


async def test_ten_thousand_jobs_cost_two_commands() -> None:
    """Half of them run, half are unknown: one squeue, one sacct, an answer for each."""
    jobs = [make_job("true", pool="p") for _ in range(10_000)]
    squeue = "\n".join(line(job, number, "RUNNING") for number, job in enumerate(jobs[:5000], 1))
    site, transport = site_over(answering(squeue, ""))
    seen = await site.observe([ref_of(job) for job in jobs])
    assert len(transport.asked) == 2
    assert all(seen[job.key].sighting is Sighting.RUNNING for job in jobs[:5000])
    assert all(seen[job.key].sighting is Sighting.ABSENT for job in jobs[5000:])


async def test_a_strangers_job_with_the_key_as_its_name_is_not_the_attempt() -> None:
    """Somebody else's job of that name is neither seen nor ended nor billed."""
    job = make_job("true", pool="p")
    strange = line(job, 7, "RUNNING").replace("|operator|", "|mallory|")
    record = f"7|mallory|COMPLETED|0:0|1|1|2|1|1|1|00:01||||1||n1|{job.key}"
    site, transport = site_over(answering(strange, record))
    assert (await site.observe([ref_of(job)]))[job.key].sighting is Sighting.ABSENT
    assert await site.find([ref_of(job)]) == {job.key: ()}
    assert await site.usage([ref_of(job)]) == {}
    await site.cancel([ref_of(job)])
    assert not any(b"scancel" in script for _, _, script in transport.asked)


async def test_running_jobs_do_not_burden_the_accounting() -> None:
    """When the queue answers everything, sacct is not asked."""
    job = make_job("true", pool="p")
    site, transport = site_over(answering(line(job, 1, "RUNNING"), ""))
    await site.observe([ref_of(job)])
    assert len(transport.asked) == 1


@pytest.mark.parametrize(
    ("squeue", "sacct", "sacct_code"),
    [("garbage", "", 0), ("", "garbage", 0), ("", "", 1), ("1|operator|RUNN", "", 0)],
)
async def test_garbage_and_failures_are_unseen(squeue: str, sacct: str, sacct_code: int) -> None:
    """An answer that is not understood, or a silent accounting, proves no absence; `find` refuses to answer."""
    job = make_job("true", pool="p")
    site, _ = site_over(answering(squeue, sacct, sacct_code=sacct_code))
    assert (await site.observe([ref_of(job)]))[job.key].sighting is Sighting.UNSEEN
    with pytest.raises(Unavailable):
        await site.find([ref_of(job)])


async def test_a_queue_that_fails_is_unavailable() -> None:
    """Whatever it printed before."""
    job = make_job("true", pool="p")
    site, _ = site_over(answering(line(job, 1, "RUNNING"), "", squeue_code=1))
    with pytest.raises(Unavailable, match="squeue failed"):
        await site.observe([ref_of(job)])


async def test_a_cut_off_answer_is_unavailable() -> None:
    """Without its end mark an answer may lack jobs."""
    job = make_job("true", pool="p")
    site, _ = site_over(lambda _line, _script: CommandResult(exit_code=0, stdout=b"", stderr=b""))
    with pytest.raises(Unavailable, match="cut off"):
        await site.observe([ref_of(job)])
    with pytest.raises(Unavailable):
        read_talk("rows\n#isthmus-end 0 1\n#isthmus-end 0", 2)


async def test_a_broken_pipe_leaves_the_unanswered_uncertain() -> None:
    """Of three submissions in one command one was answered before the pipe broke."""
    jobs = [make_job("true", pool="p") for _ in range(3)]
    said = f"#isthmus-job {jobs[0].key} 0\n41\n#isthmus-done {jobs[0].key}\n#isthmus-job {jobs[1].key} 0\n4"
    site, transport = site_over(lambda _line, _script: CommandResult(exit_code=-9, stdout=said.encode(), stderr=b""))
    outcomes = await site.submit(jobs)
    assert outcomes[jobs[0].key] == Submitted(native_id="41")
    assert isinstance(outcomes[jobs[1].key], Uncertain)
    assert isinstance(outcomes[jobs[2].key], Uncertain)
    assert len(transport.asked) == 1


async def test_a_scheduler_that_stops_answering_is_left_alone() -> None:
    """After a portion without all answers the next portions are not sent."""
    jobs = [make_job("true", pool="p") for _ in range(250)]
    site, transport = site_over(lambda _line, _script: CommandResult(exit_code=0, stdout=b"", stderr=b""))
    outcomes = await site.submit(jobs)
    assert len(outcomes) == 250
    assert all(isinstance(outcome, Uncertain) for outcome in outcomes.values())
    assert len(transport.asked) == 1


async def test_no_key_or_account_of_a_job_reaches_a_shell_unquoted() -> None:
    """The script quotes every word."""
    job = make_job("true", pool="a b; touch /x")
    site, transport = site_over(lambda _line, _script: CommandResult(exit_code=0, stdout=b"", stderr=b""))
    await site.submit([job])
    assert b"'--partition=a b; touch /x'" in transport.asked[0][2]


async def test_a_cluster_that_hides_jobs_proves_no_absence() -> None:
    """With PrivateData=jobs an ordinary account does not see others' jobs, so their absence means nothing."""
    config = "PrivateData = accounts,jobs\nAccountingStorageType = accounting_storage/slurmdbd\n"

    def answer(line: str, script: bytes) -> CommandResult:
        if b"scontrol show config" in script:
            return CommandResult(
                exit_code=0, stdout=f"{config}\n#isthmus-end 0 5\n\n#isthmus-end 0 5\n".encode(), stderr=b""
            )
        return answering("", "")(line, script)  # type: ignore[no-any-return]

    site, _ = site_over(answer)
    own, other = make_job("true", pool="p"), make_job("true", pool="p", account="ada")
    assert (await site.observe([ref_of(own)]))[own.key].sighting is Sighting.ABSENT
    seen = (await site.observe([ref_of(other)]))[other.key]
    assert seen.sighting is Sighting.UNSEEN
    assert "PrivateData" in seen.message
