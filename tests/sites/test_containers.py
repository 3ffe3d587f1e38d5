"""Steps with images, in the containers that this host has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus.data.directory import DirectoryBlobStore
from isthmus.domain.errors import Refused
from isthmus.domain.lifecycle import EndReason
from isthmus.domain.task import Executor
from isthmus.sites.containers import Containers, absolute_places
from isthmus.sites.plain import LocalSite
from isthmus.sites.port import Collected, Job, JobFile, JobOutput, LogStream, Rejected, Sighting
from tests.conformance.bench import Centre, finish, job_at, ref_of, start, wait_for
from tests.conformance.suite import content

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_podman = pytest.mark.skipif(
    shutil.which("podman") is None or shutil.which("busybox") is None, reason="podman or busybox is not installed"
)


def in_image(script: str, image: str = "any:1", **changes: str) -> Executor:
    """A step in a container."""
    return Executor(command=("/bin/sh", "-c", script), image=image, **changes)  # type: ignore[arg-type]


def make_root_file_system(directory: Path) -> Path:
    """A tiny root file system of busybox."""
    (directory / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, directory / "bin/busybox")
    for name in ("sh", "cat", "ls", "echo", "id", "sleep", "mkdir"):
        (directory / "bin" / name).symlink_to("busybox")
    for name in ("proc", "sys", "dev", "tmp", "etc"):
        (directory / name).mkdir()
    (directory / "etc/motd").write_text("from the image\n")
    return directory


async def output_of(site: LocalSite, job: Job, blobs: DirectoryBlobStore) -> dict[str, bytes]:
    """Collected outputs by path."""
    collected = (await site.collect([job]))[job.key]
    assert isinstance(collected, Collected), collected
    return {file.path: await content(blobs, file.sha256) for file in collected.files}


@needs_bubblewrap
@pytest.mark.parametrize("switched", [False, True])
async def test_the_hosts_system_in_a_sandbox(
    local_site: Callable[..., LocalSite],
    centre: Centre,
    blobs: DirectoryBlobStore,
    request: pytest.FixtureRequest,
    switched: bool,
) -> None:
    """Absolute inputs, outputs, volumes and work directory are at their places, and nothing else of the host is writable."""
    account = request.getfixturevalue("lab_account").name if switched else ""
    site = local_site(images={"*": "host"}, **({"switch_account": "runuser"} if switched else {}))
    sha256 = await blobs.put_bytes(b"given")
    script = (
        "set -e; pwd; cat /data/in/x; cp /data/in/x /data/out/y; echo vol >/vol/f; ! touch /usr/here 2>/dev/null;"
        'cat /vol/f; touch /tmp/mine; printf "%s" "$MINE" >../data/out/env; ls /home /root 2>/dev/null || echo hidden'
    )
    base = job_at(
        centre,
        steps=[in_image(script, workdir="/vol"), in_image("cat /vol/f", stdout="/data/out/z")],
        files=[JobFile(path="/data/in/x", blob=sha256)],
        outputs=[JobOutput(path="/data/out/*"), JobOutput(path="/data", directory=True)],
        env={"MINE": "a 'b"},
    )
    job = Job(**{name: getattr(base, name) for name in Job.__slots__} | {"volumes": ("/vol",), "account": account})
    ended = await finish(site, centre, job)
    said = (await site.logs(ref_of(job), LogStream.STDOUT, 0, 1000)).decode()
    assert ended.exit_code == 0, (said, await site.logs(ref_of(job), LogStream.STDERR, 0, 1000))
    assert said.splitlines() == ["/vol", "givenvol", "hidden"]
    assert await output_of(site, job, blobs) == {
        "/data/in/x": b"given",
        "/data/out/y": b"given",
        "/data/out/env": b"a 'b",
        "/data/out/z": b"vol\n",
    }


@needs_bubblewrap
async def test_a_sandbox_hides_other_attempts(local_site: Callable[..., LocalSite], centre: Centre) -> None:
    """A contained job cannot read another attempt of the same account."""
    site = local_site(images={"*": "host"})
    other = job_at(centre, "echo private >file")
    await finish(site, centre, other)
    job = job_at(centre, steps=[in_image(f"cat {centre.scratch}/root/attempts/{other.key}/work/file; ls ../..")])
    await finish(site, centre, job)
    said = (await site.logs(ref_of(job), LogStream.STDOUT, 0, 1000)).decode()
    assert "private" not in said
    assert other.key not in said


@needs_bubblewrap
async def test_a_sandboxed_job_is_cancelled(local_site: Callable[..., LocalSite], centre: Centre) -> None:
    """Ending the sandbox ends what runs in it."""
    site = local_site(images={"*": "host"})
    refs = await start(site, job_at(centre, steps=[in_image("sleep 600")]))
    await wait_for(site, centre, refs, [Sighting.RUNNING])
    await site.cancel(refs)
    ended = (await wait_for(site, centre, refs))[refs[0].key]
    assert ended.reason is EndReason.CANCELLED_BY_USER


@needs_bubblewrap
async def test_a_root_file_system_at_the_site(
    local_site: Callable[..., LocalSite], centre: Centre, blobs: DirectoryBlobStore, scratch: Path
) -> None:
    """An image may be a directory at the site; it is read-only."""
    image = make_root_file_system(scratch / "image")
    site = local_site(images={"tiny:*": str(image)})
    job = job_at(
        centre,
        steps=[in_image("cat /etc/motd; echo out >/data/o; ! echo x >/etc/motd", image="tiny:1")],
        outputs=[JobOutput(path="/data/o")],
    )
    ended = await finish(site, centre, job)
    assert ended.exit_code == 0, await site.logs(ref_of(job), LogStream.STDERR, 0, 1000)
    assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 1000) == b"from the image\n"
    assert await output_of(site, job, blobs) == {"/data/o": b"out\n"}
    assert (image / "etc/motd").read_text() == "from the image\n"


@pytest.mark.skipif(shutil.which("ch-run") is None, reason="charliecloud is not installed")
@pytest.mark.parametrize("inside", ["", "/sub"])
def test_a_root_file_system_by_charliecloud(centre: Centre, scratch: Path, inside: str) -> None:
    """The image is read-only, /tmp is the job's own, the work directory and a place of the image are the task's."""
    image = make_root_file_system(scratch / "image")
    for name in ("mnt", "data"):
        (image / name).mkdir()
    for name in ("passwd", "group", "hosts", "resolv.conf"):  # charliecloud mounts the host's over them
        (image / "etc" / name).touch()
    directory = scratch / "attempt"
    (directory / "work/sub").mkdir(parents=True)
    (directory / "root/data").mkdir(parents=True)
    containers = Containers(images={"*": str(image)}, runtimes={"ch-run": shutil.which("ch-run") or ""})
    step = in_image("true")
    job = job_at(centre, steps=[step], outputs=[JobOutput(path="/data/o")])
    shell = containers.step(job, 1, step, str(directory), f"{directory}/work{inside}")
    script = "cat /etc/motd; echo out >/data/o; echo here >file; ls /tmp; ! echo x >/etc/motd"
    run = f"D={directory}; unset USER; set -- /bin/sh -c '{script}'\n{shell}\"$@\""
    ended = subprocess.run(["sh", "-c", run], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "from the image\n"), ended.stderr
    assert (directory / "root/data/o").read_text() == "out\n"
    assert (directory / f"work{inside}/file").read_text() == "here\n"
    assert (image / "etc/motd").read_text() == "from the image\n"


@needs_podman
@pytest.mark.real
async def test_an_image_archive_by_podman(
    local_site: Callable[..., LocalSite], centre: Centre, blobs: DirectoryBlobStore, scratch: Path
) -> None:
    """An image may be an archive at the site that podman loads; limits, volumes and environment are those of the task."""
    short = Path(tempfile.mkdtemp(prefix="ip", dir="/tmp"))  # podman wants its places in 50 characters
    stores = f"--root {short}/r --runroot {short}/u --tmpdir {short}/t --cgroup-manager cgroupfs --runtime runc"
    image = make_root_file_system(scratch / "image")
    podman = ["podman", *stores.split()]
    packed = subprocess.run(["tar", "-C", str(image), "-c", "."], check=True, capture_output=True).stdout
    subprocess.run([*podman, "import", "-", "localhost/tiny:1"], input=packed, check=True, capture_output=True)
    archive = scratch / "tiny.tar"
    subprocess.run([*podman, "save", "-o", str(archive), "localhost/tiny:1"], check=True, capture_output=True)
    site = local_site(images={"*": str(archive)}, runtime_flags=stores, limits="watch")
    job = job_at(
        centre,
        steps=[in_image('cat /etc/motd; cat; echo "$X" >/data/o; exit 3', stdin="in")],
        files=[JobFile(path="in", blob=await blobs.put_bytes(b"fed"))],
        outputs=[JobOutput(path="/data/o")],
        env={"X": "a 'b"},
    )
    try:
        ended = await finish(site, centre, job)
        said = await site.logs(ref_of(job), LogStream.STDERR, 0, 2000)
        assert ended.exit_code == 3, said
        assert await site.logs(ref_of(job), LogStream.STDOUT, 0, 1000) == b"from the image\nfed"
        assert await output_of(site, job, blobs) == {"/data/o": b"a 'b\n"}
    finally:
        subprocess.run([*podman, "system", "reset", "-f"], check=False, capture_output=True)
        shutil.rmtree(short, ignore_errors=True)


async def test_an_image_without_a_rule_is_rejected(local_site: Callable[..., LocalSite], centre: Centre) -> None:
    """The rejection tells the operator what to set."""
    job = job_at(centre, steps=[in_image("true", image="unknown:1")])
    outcome = (await local_site().stage([job]))[job.key]
    assert isinstance(outcome, Rejected)
    assert "unknown:1" in outcome.message
    assert "images" in outcome.message


@pytest.mark.parametrize("rule", ["host", "pull", "/images/x", "/images/x.tar"])
def test_without_a_runtime_an_image_is_refused(rule: str, centre: Centre) -> None:
    """Each way needs a program at the site, and the refusal says which."""
    containers = Containers(images={"*": rule}, runtimes={})
    job = job_at(centre, steps=[in_image("true")])
    with pytest.raises(Refused, match=r"Install (bwrap|podman)") as caught:
        containers.step(job, 1, job.steps[0], "/r/attempts/k", "/w")
    assert caught.value.code == "no_container_runtime"


def test_places_do_not_lie_in_each_other(centre: Centre) -> None:
    """Only outermost directories are made writable; a file directly in / is refused."""
    job = job_at(
        centre,
        files=[JobFile(path="/data/in/x", blob="0" * 64), JobFile(path="rel", blob="0" * 64)],
        outputs=[
            JobOutput(path="/data/in/deep", directory=True),
            JobOutput(path="/out/*.csv"),
            JobOutput(path="/out/a/*/b"),
        ],
    )
    assert absolute_places(job) == ["/data/in", "/out"]
    with pytest.raises(Refused, match="directly in /"):
        absolute_places(job_at(centre, outputs=[JobOutput(path="/x")]))
    with pytest.raises(Refused, match="directly in /"):
        absolute_places(job_at(centre, outputs=[JobOutput(path="/*.txt")]))


def test_docker_is_told_limits_user_and_network(centre: Centre, tmp_path: Path) -> None:
    """Docker's daemon cannot be started everywhere: a stand-in prints the words that it is given. The container has the
    task's limits, runs as the caller, not as root, and has a name by which it can be removed."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    containers = Containers(images={"*": "pull"}, runtimes={"docker": str(docker)})
    job = job_at(centre, steps=[in_image("true", image="registry/tool:2")])
    shell = containers.step(job, 1, job.steps[0], "/r/attempts/k", "/r/attempts/k/work")
    told = subprocess.run(["sh", "-c", f'set -- prog "a b"\n{shell}"$@"'], capture_output=True, text=True, check=True)
    words = told.stdout.splitlines()
    assert words[0] == "run"
    assert {
        f"--memory={job.demand.memory_bytes}b",
        f"--cpus={job.demand.cpus_per_node}",
        f"--user={os.getuid()}:{os.getgid()}",
        f"--name=isthmus-{job.key}-1",
        "--workdir=/r/attempts/k/work",
        "--volume=/r/attempts/k/work:/r/attempts/k/work",
    } <= set(words)
    assert words[-3:] == ["registry/tool:2", "prog", "a b"]
    assert f"rm -f isthmus-{job.key}-1" in containers.removal(job, 1, job.steps[0])


def test_no_secret_is_in_a_container_command(centre: Centre) -> None:
    """Variables are passed to podman by name only."""
    containers = Containers(images={"*": "pull"}, runtimes={"podman": "/usr/bin/podman"})
    job = job_at(centre, steps=[in_image("true")], secrets={"HUSH": "very secret"}, env={"A": "open"})
    shell = containers.step(job, 1, job.steps[0], "/r/attempts/k", "/w")
    assert "--env=HUSH" in shell
    assert "very secret" not in shell
