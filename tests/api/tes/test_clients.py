"""Clients of other people, unchanged: py-tes, and Snakemake with its TES executor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
import tes

from isthmus.lab.s3 import S3Server
from tests.api.tes.serving import PATIENCE_SECONDS, PYTHON, VENV, Http, TesServer, join_site

SNAKEFILE = """
rule all:
    input: "total.txt"

rule split:
    output: "parts/{n}.txt"
    shell: "seq 1 {wildcards.n} > {output}"

rule square:
    input: "parts/{n}.txt"
    output: "squares/{n}.txt"
    run:
        numbers = [int(line) for line in open(input[0])]
        with open(output[0], "w") as out:
            print(*(n * n for n in numbers), sep="\\n", file=out)

rule total:
    input: "squares/10.txt"
    output: "total.txt"
    shell: "awk '{{ n += $1 }} END {{ print n }}' {input} > {output}"
"""


def shell(script: str, **more: str) -> tes.Executor:
    """An executor that runs a line of shell."""
    return tes.Executor(image="alpine", command=["/bin/sh", "-c", script], **more)


def test_py_tes_runs_a_task(tes_server: TesServer) -> None:
    """py-tes creates a task, waits for it and reads its logs in every view."""
    client = tes_server.client
    task_id = client.create_task(
        tes.Task(
            name="py-tes",
            executors=[shell("cat /in/x > /out/y; echo done", stderr="/out/err"), shell("cat /out/y")],
            inputs=[tes.Input(path="/in/x", content="content\n", type="FILE")],
            outputs=[tes.Output(path="/out/y", url=f"file://{tes_server.files}/py-tes.txt")],
            volumes=["/out"],
            resources=tes.Resources(cpu_cores=1, ram_gb=0.5),
            tags={"client": "py-tes"},
        )
    )
    assert client.wait(task_id, timeout=PATIENCE_SECONDS).state == "COMPLETE"
    full = client.get_task(task_id, "FULL")
    assert [log.stdout for log in full.logs[0].logs] == ["done\n", "content\n"]
    assert full.logs[0].outputs[0].size_bytes == 8
    assert full.inputs[0].content == "content\n"
    assert client.get_task(task_id, "BASIC").tags == {"client": "py-tes"}
    assert client.get_task(task_id, "MINIMAL").executors is None
    assert (tes_server.files / "py-tes.txt").read_text() == "content\n"


def test_py_tes_lists_and_cancels(tes_server: TesServer, http: Http) -> None:
    """py-tes pages through the list, cancels, and reads the service's info where it looks for it."""
    client = tes_server.client
    ids = [client.create_task(tes.Task(executors=[shell("sleep 600")])) for _ in range(3)]
    seen: list[str] = []
    token = None
    while len(seen) < 3:
        page = client.list_tasks(page_size=2, page_token=token)
        seen += [task.id for task in page.tasks]
        token = page.next_page_token
        assert token or len(seen) >= 3
    assert seen[:3] == ids[::-1]
    for task_id in ids:
        client.cancel_task(task_id)
    for task_id in ids:  # py-tes does not know the state CANCELING
        http.ended(task_id, "CANCELED")
    assert client.get_service_info().name == "Isthmus"


def test_py_tes_with_a_password(tes_server: TesServer) -> None:
    """py-tes knows HTTP basic too: the token is the password."""
    client = tes.HTTPClient(f"{tes_server.url}/ga4gh/tes", user="admin", password=tes_server.token, timeout=60)
    assert client.list_tasks() is not None


@pytest.fixture(scope="module")
def snakemake_server(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[TesServer]:
    """A server whose site lets containers use the host's network, for Snakemake's own access to storage, and sees the
    Python environment that runs this test."""
    directory = tmp_path_factory.mktemp("snakemake")
    wheels = directory / "wheels"
    wheels.mkdir()
    _wheel("snakemake-storage-plugin-s3", wheels)
    files = directory / "files"
    files.mkdir()
    (directory / "state").mkdir(mode=0o700)
    server = TesServer(directory / "state", files)
    try:
        server.start()
        environment = {
            "PATH": f"{VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            # Each job installs the storage plugin; from the test's own copy, since nothing else can be reached.
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_FIND_LINKS": str(wheels),
        }
        join_site(server, directory / "site", network="host", binds=f"{PYTHON}:{wheels}", env=environment)
        yield server
    finally:
        server.stop()


@pytest.mark.timeout(600)
def test_snakemake(snakemake_server: TesServer, s3_server: S3Server, tmp_path: Path) -> None:
    """A workflow of three rules runs through the TES executor to the right result."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    store = s3_server.client()
    try:
        store.create_bucket(Bucket="snakemake")
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "GITHUB_WORKSPACE": str(tmp_path),  # the executor reads a log there when a job fails
            "SNAKEMAKE_TES_TOKEN": snakemake_server.token,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": s3_server.access_key,
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": s3_server.secret_key,
        }
        (tmp_path / "funnel.log").touch()
        command = [sys.executable, "-m", "snakemake", "--executor", "tes", "--jobs", "3", "--cores", "1"]
        command += ["--tes-url", f"{snakemake_server.url}/ga4gh/tes", "--container-image", "snakemake"]
        command += ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://snakemake/run"]
        command += ["--storage-s3-endpoint-url", s3_server.endpoint, "--seconds-between-status-checks", "2"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=560, check=False
        )
        assert ran.returncode == 0, ran.stderr[-6000:] + _logs(snakemake_server)
        total = store.get_object(Bucket="snakemake", Key="run/total.txt")["Body"].read()
        assert total == b"385\n"
    finally:
        store.close()


def _logs(server: TesServer) -> str:
    """What the failed tasks say, for a person who reads the failure."""
    told = []
    for task in server.client.list_tasks(view="FULL").tasks:
        for log in task.logs or []:
            told += [f"{task.id} {task.state}", *(log.system_logs or [])]
            told += [(part.stdout or "")[-2000:] + (part.stderr or "")[-4000:] for part in log.logs or []]
    return "\n".join(told)


def _wheel(name: str, directory: Path) -> None:
    """Pack an installed pure distribution as a wheel again."""
    found = distribution(name)
    stem = re.sub(r"[-_.]+", "_", name)
    with zipfile.ZipFile(directory / f"{stem}-{found.version}-py3-none-any.whl", "w") as wheel:
        for file in found.files or []:
            place = Path(str(file.locate()))
            if (
                ".." not in file.parts
                and file.suffix != ".pyc"
                and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json")
            ):
                wheel.write(place, str(file))
