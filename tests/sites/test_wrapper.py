"""The wrapper by itself, under every POSIX shell at hand: claims, signals, leftovers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus.domain.errors import Refused
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Demand, Executor
from isthmus.sites.containers import Containers
from isthmus.sites.plain import LocalSite
from isthmus.sites.port import Job, JobOutput, LogStream, Sighting
from isthmus.sites.traces import Result, parse_result
from isthmus.sites.wrapper import make_environment, make_script, make_secrets
from tests.conformance.bench import Centre, finish, job_at, ref_of, start, wait_for

NO_CONTAINERS = Containers(images={}, runtimes={})
SHELLS = [words for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(words[0])]


def place(job: Job, directory: Path, *, enforce_walltime: bool = True) -> Path:
    """Put an attempt's directory where the wrapper expects it; returns the script."""
    (directory / "work").mkdir(parents=True)
    script = make_script(
        job,
        directory=str(directory),
        containers=NO_CONTAINERS,
        grace_seconds=1,
        enforce_walltime=enforce_walltime,
    )
    (directory / "job.sh").write_bytes(script)
    (directory / "env").write_bytes(make_environment(job, "here"))
    if job.secrets:
        (directory / "secrets").write_bytes(make_secrets(job))
    return directory / "job.sh"


def result_of(directory: Path) -> Result:
    """The result that the wrapper wrote."""
    result = parse_result((directory / "result").read_text())
    assert result is not None
    return result


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition, for so long at most."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Each shell in turn."""
    return list(request.param)


def test_of_many_copies_one_runs(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """Copies started at the same moment leave one line and one result, and each exits 0."""
    directory = tmp_path / "attempt with 'quote"
    script = place(job_at(centre, "echo ran >>../count"), directory)
    copies = [subprocess.Popen([*shell, str(script)]) for _ in range(8)]
    assert [copy.wait(60) for copy in copies] == [0] * 8
    assert (directory / "count").read_text() == "ran\n"
    assert result_of(directory).reason is EndReason.EXIT_ZERO


def test_exit_code_is_the_wrappers_own_too(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """A batch system sees the command's exit code as the wrapper's."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "exit 42"), directory)
    assert subprocess.run([*shell, str(script)], check=False, timeout=60).returncode == 42
    assert result_of(directory).exit_code == 42


def test_secrets_are_gone_before_the_command_starts(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """The command sees its secret in the environment and no file of it."""
    directory = tmp_path / "a"
    job = job_at(centre, 'test -e ../secrets && exit 1; test "$KEY" = "a b"', secrets={"KEY": "a b"})
    subprocess.run([*shell, str(place(job, directory))], check=False, timeout=60)
    assert result_of(directory).reason is EndReason.EXIT_ZERO


def test_a_stubborn_command_is_killed_after_the_grace(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """TERM reaches the command's whole group, and KILL follows when it is ignored."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "trap '' TERM; touch up; while :; do sleep 1; done"), directory)
    process = subprocess.Popen([*shell, str(script)])
    wait_until((directory / "work/up").exists)
    process.terminate()
    process.wait(60)
    assert result_of(directory).reason is EndReason.SIGNALLED


def test_a_command_may_end_in_its_own_way_on_term(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """A command that handles TERM has the grace to do so; cancelled is told from other signals by the mark."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "trap 'echo saved >saved; exit 5' TERM; touch up; sleep 60 & wait"), directory)
    process = subprocess.Popen([*shell, str(script)])
    wait_until((directory / "work/up").exists)
    (directory / "cancelled").touch()
    process.terminate()
    process.wait(60)
    assert (directory / "work/saved").read_text() == "saved\n"
    assert (result_of(directory).reason, result_of(directory).exit_code) == (EndReason.CANCELLED_BY_USER, 5)


@pytest.mark.parametrize("mark", ["", "cancelled", "preempted"])
def test_a_job_that_is_done_when_it_is_told_to_stop_is_done(
    tmp_path: Path, centre: Centre, shell: list[str], mark: str
) -> None:
    """TERM between the end of the last step and the result does not make a job that ended well run again."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "echo ran"), directory)
    text = script.read_text()
    at_the_end = '[ "$step" -gt 1 ] && step=1\n'
    assert text.count(at_the_end) == 1
    told = f': >"$D/{mark}"; ' if mark else ""
    script.write_text(text.replace(at_the_end, f"{told}kill -TERM $$\n{at_the_end}"))
    assert subprocess.run([*shell, str(script)], check=False, timeout=60).returncode == 0
    assert (result_of(directory).reason, result_of(directory).exit_code) == (EndReason.EXIT_ZERO, 0)


@pytest.mark.parametrize("after", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
def test_a_signal_at_any_moment_leaves_no_process(tmp_path: Path, centre: Centre, after: float) -> None:
    """Whenever TERM comes, the wrapper ends, and nothing of the command goes on."""
    directory = tmp_path / "a"
    mark = f"3{os.getpid()}{int(after * 1000)}"
    process = subprocess.Popen(["/bin/sh", str(place(job_at(centre, f"sleep {mark}"), directory))])
    time.sleep(after)
    process.terminate()
    process.wait(60)
    listed = lambda: subprocess.run(["pgrep", "-f", f"^sleep {mark}$"], check=False, capture_output=True).stdout  # noqa: E731
    wait_until(lambda: not listed())


def test_what_a_step_leaves_running_ends_with_it(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """A background process of the command does not outlive it."""
    directory = tmp_path / "a"
    subprocess.run([*shell, str(place(job_at(centre, "sleep 600 & echo $! >pid"), directory))], check=False, timeout=60)
    pid = int((directory / "work/pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_walltime_is_enforced(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """A command that is over its time is ended for that reason, and the watcher goes with it."""
    directory = tmp_path / "a"
    demand = Demand(walltime_seconds=1)
    script = place(job_at(centre, "sleep 600", demand=demand), directory)
    subprocess.run([*shell, str(script)], check=False, timeout=60)
    assert result_of(directory).reason is EndReason.WALLTIME
    assert subprocess.run(["pgrep", "-f", str(script)], check=False, capture_output=True).stdout == b""


def test_processor_time_is_limited_where_there_are_no_control_groups(
    tmp_path: Path, centre: Centre, shell: list[str]
) -> None:
    """A process may use what the task's processors have in its walltime, and a grace; at a batch system nothing is set."""
    demand = Demand(walltime_seconds=100, cpus=3)
    said = {}
    for enforced in (True, False):
        directory = tmp_path / str(enforced)
        job = job_at(centre, "ulimit -S -t; ulimit -H -t", demand=demand)
        script = place(job, directory, enforce_walltime=enforced)
        subprocess.run([*shell, str(script)], check=False, timeout=60)
        said[enforced] = (directory / "stdout").read_text().split()
    soft, hard = said[True]
    assert 300 <= int(soft) <= 330
    assert hard == "unlimited"
    assert said[False] == ["unlimited", "unlimited"]


def test_a_job_cancelled_before_its_start_does_not_run(tmp_path: Path, centre: Centre, shell: list[str]) -> None:
    """A mark that is there before the claim ends the attempt without running anything."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "touch ran"), directory)
    (directory / "cancelled").touch()
    assert subprocess.run([*shell, str(script)], check=False, timeout=60).returncode == 0
    result = result_of(directory)
    assert (result.reason, result.exit_code) == (EndReason.CANCELLED_BY_USER, None)
    assert not (directory / "work/ran").exists()


def test_a_late_copy_of_a_cleaned_attempt_does_nothing(tmp_path: Path, centre: Centre) -> None:
    """A copy that starts when the directory is gone exits 0 and makes nothing."""
    directory = tmp_path / "a"
    script = place(job_at(centre, "touch ran"), directory).rename(tmp_path / "spooled.sh")
    shutil.rmtree(directory)
    assert subprocess.run(["/bin/sh", str(script)], check=False, timeout=60).returncode == 0
    assert not directory.exists()


def test_absolute_paths_need_a_container(centre: Centre) -> None:
    """A task with an absolute path and no image is refused with a remedy."""
    job = job_at(centre, outputs=[JobOutput(path="/data/out")])
    with pytest.raises(Refused, match="Give every step an image"):
        make_script(job, directory="/x", containers=NO_CONTAINERS)


async def test_a_killed_wrapper_is_a_failed_node_once_its_command_is_gone(
    local_site: Callable[..., LocalSite], centre: Centre
) -> None:
    """kill -9 of the wrapper: the command that goes on without it is ended, and only then the attempt has ended."""
    site = local_site()
    job = job_at(centre, "echo $$; exec sleep 600")
    refs = await start(site, job)
    await wait_for(site, centre, refs, [Sighting.RUNNING])
    while not (said := await site.logs(ref_of(job), LogStream.STDOUT, 0, 100)):
        await asyncio.sleep(0.05)
    os.kill(int(refs[0].native_id.split(".")[0]), signal.SIGKILL)
    ended = (await wait_for(site, centre, refs))[job.key]
    assert (ended.reason, ended.exit_code, ended.claim_fence) == (EndReason.NODE_FAILED, None, 7)
    stat = Path(f"/proc/{int(said)}/stat")
    assert not stat.exists() or " Z " in stat.read_text()


async def test_a_wrapper_killed_before_its_result_is_there_has_still_ended_well(
    local_site: Callable[..., LocalSite], centre: Centre, scratch: Path
) -> None:
    """The command ended with 0, the result could not be written, the wrapper is killed: the attempt is not made again."""
    site = local_site()
    job = job_at(centre, r"p=$(sed 's/.* pid=\([0-9]*\).*/\1/' ../claim); mkdir ../result.$p")
    refs = await start(site, job)
    directory = scratch / "root" / "attempts" / job.key
    deadline = time.monotonic() + 60
    while not (directory / "exit").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await site.observe(refs))[job.key].sighting is Sighting.RUNNING
    os.kill(int(refs[0].native_id.split(".")[0]), signal.SIGKILL)
    ended = (await wait_for(site, centre, refs))[job.key]
    assert (ended.reason, ended.exit_code, ended.claim_fence) == (EndReason.EXIT_ZERO, 0, 7)
    assert job.key in await site.usage(refs)


async def test_an_empty_claim_still_counts(local_site: Callable[..., LocalSite], centre: Centre, scratch: Path) -> None:
    """A claim whose writing was cut short is a claim: nobody else may run the job, and it is not absent."""
    site = local_site()
    job = job_at(centre, "touch ran")
    await site.stage([job])
    directory = scratch / "root" / "attempts" / job.key
    (directory / "claim").touch()
    await site.submit([job])
    seen = (await site.observe([ref_of(job)]))[job.key]
    assert seen.sighting is not Sighting.ABSENT
    assert seen.claim_fence is None
    assert not (directory / "work/ran").exists()


async def test_redirections_may_fail_as_the_steps_own_error(
    local_site: Callable[..., LocalSite], centre: Centre
) -> None:
    """A standard input that does not exist fails the job with a message."""
    job = job_at(centre, steps=[Executor(command=("cat",), stdin="no/such")])
    ended = await finish(local_site(), centre, job)
    assert ended.reason is EndReason.EXIT_NONZERO
