"""Every daemon of the lab, used once as its users will use it."""

from __future__ import annotations

from pathlib import Path

import httpx
import psycopg
import pytest

from isthmus.lab.accounts import Account
from isthmus.lab.errors import LabError
from isthmus.lab.gridengine import GridEngineCell
from isthmus.lab.postgres import PostgresServer
from isthmus.lab.processes import wait_for
from isthmus.lab.s3 import S3Server
from isthmus.lab.slurm import REST_VERSION, SlurmCluster
from isthmus.lab.slurm_config import CGROUPS
from isthmus.lab.sshd import SshServer
from tests.conftest import require

pytestmark = pytest.mark.real


def ended(cluster: SlurmCluster, job: int) -> str:
    """Wait for the end of a job and return its state."""
    over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"}
    wait_for(lambda: cluster.job_state(job) in over, 60, f"job {job}")
    return cluster.job_state(job)


def test_an_ordinary_account_runs_a_job_that_the_accounting_knows(
    slurm_cluster: SlurmCluster, lab_account: Account
) -> None:
    """A job runs as its submitter and appears in sacct with account and comment."""
    job = slurm_cluster.submit("#!/bin/sh\nid -un > who\n", "--comment=mark", user=lab_account.name)
    assert ended(slurm_cluster, job) == "COMPLETED"
    assert (lab_account.home / "who").read_text().strip() == lab_account.name

    def record() -> str:
        fields = "state,user,account,comment"
        return slurm_cluster.run("sacct", "-a", "-n", "-X", "-P", "-j", str(job), "-o", fields)

    expected = f"COMPLETED|{lab_account.name}|research|mark"
    wait_for(lambda: record() == expected, 60, f"the accounting of job {job}")


def test_srun_starts_a_task_on_each_of_two_nodes(slurm_cluster: SlurmCluster, lab_account: Account) -> None:
    """A step over two nodes sees both node names."""
    script = "#!/bin/sh\nsrun -N2 -n2 printenv SLURMD_NODENAME | sort > nodes\n"
    job = slurm_cluster.submit(script, "-N2", user=lab_account.name)
    assert ended(slurm_cluster, job) == "COMPLETED"
    assert (lab_account.home / "nodes").read_text().split() == slurm_cluster.cpu_nodes


def test_a_gpu_job_sees_its_devices(slurm_cluster: SlurmCluster, lab_account: Account) -> None:
    """CUDA_VISIBLE_DEVICES names as many devices as were asked for."""
    script = "#!/bin/sh\necho $CUDA_VISIBLE_DEVICES > devices\n"
    job = slurm_cluster.submit(script, "-p", "gpu", "--gres=gpu:2", "--licenses=matlab:1", user=lab_account.name)
    assert ended(slurm_cluster, job) == "COMPLETED"
    assert (lab_account.home / "devices").read_text().strip() == "0,1"


def test_a_job_outlives_a_crash_of_the_controller(slurm_cluster: SlurmCluster, lab_account: Account) -> None:
    """A running job goes on while slurmctld is dead and is known to the next one."""
    job = slurm_cluster.submit("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.2; done\n", user=lab_account.name)
    wait_for(lambda: slurm_cluster.job_state(job) == "RUNNING", 60, "the job to run")
    slurm_cluster.save_job(job)
    slurm_cluster.kill_controller()
    assert not slurm_cluster.daemons.running("slurmctld")
    slurm_cluster.start_controller()
    slurm_cluster.wait_ready()
    (lab_account.home / "go").touch()
    assert ended(slurm_cluster, job) == "COMPLETED"


@pytest.mark.skipif(not CGROUPS.joinpath("memory").is_dir(), reason="no cgroup v1 memory controller")
def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(lab_directory: Path, lab_account: Account) -> None:
    """Where memory is enforced, such a job ends as OUT_OF_MEMORY and a modest one does not."""
    require("slurm")
    hog = "#!/bin/sh\nhead -c 200000000 /dev/zero | tail -c 200000000 > /dev/null\n"
    strict = SlurmCluster(
        lab_directory / "strict", "strict", nodes=1, gpu_nodes=0, accounting=False, enforce_memory=True
    )
    with strict:
        assert ended(strict, strict.submit(hog, "--mem=50", user=lab_account.name)) == "OUT_OF_MEMORY"
        assert ended(strict, strict.submit(hog, "--mem=600", user=lab_account.name)) == "COMPLETED"
    assert not CGROUPS.joinpath("memory", "slurm_strict-c1").exists()


def test_slurmrestd_answers_the_bearer_of_a_token(slurm_cluster: SlurmCluster, lab_account: Account) -> None:
    """A ping with a token of an ordinary account succeeds; one without is refused."""
    url = slurm_cluster.start_rest() + f"/slurm/{REST_VERSION}/ping"
    try:
        token = slurm_cluster.token(lab_account.name)
        headers = {"X-SLURM-USER-NAME": lab_account.name, "X-SLURM-USER-TOKEN": token}
        with httpx.Client(trust_env=False, timeout=30) as client:
            assert client.get(url, headers=headers).json()["pings"][0]["ping"] == "UP"
            assert client.get(url).status_code == 401
    finally:
        slurm_cluster.stop_rest()


def test_two_clusters_are_strangers(slurm_cluster: SlurmCluster, second_slurm_cluster: SlurmCluster) -> None:
    """Each cluster shows its own nodes only."""
    for cluster in (slurm_cluster, second_slurm_cluster):
        assert set(cluster.run("sinfo", "-h", "-N", "-o", "%N").split()) == set(cluster.nodes)


def test_an_ordinary_account_runs_a_grid_engine_job(gridengine_cell: GridEngineCell, lab_account: Account) -> None:
    """A job with slots and GPUs runs as its submitter, and qacct keeps its exit status."""
    options = ("-pe", "smp", "2", "-l", "gpu=2", "-cwd", "-j", "y", "-o", "qsub.out")
    job = gridengine_cell.submit("id -un; echo $NSLOTS; exit 3", *options, user=lab_account.name)
    wait_for(lambda: gridengine_cell.accounting(job), 90, f"the accounting of job {job}", 0.2)
    assert gridengine_cell.accounting(job)["exit_status"] == "3"
    assert (lab_account.home / "qsub.out").read_text().split() == [lab_account.name, "2"]


def test_a_command_runs_over_ssh_also_after_a_crash_of_the_server(ssh_server: SshServer) -> None:
    """The account logs in by its key, the host is known, and a restarted server is the same host."""
    assert ssh_server.run("id -un").strip() == ssh_server.username
    ssh_server.kill()
    with pytest.raises(LabError):
        ssh_server.run("true")
    ssh_server.start()
    assert ssh_server.run("cat", input_text="over the wire") == "over the wire"


def test_an_object_comes_back_from_s3(s3_server: S3Server) -> None:
    """What is put is got."""
    client = s3_server.client()
    try:
        client.create_bucket(Bucket="first")
        client.put_object(Bucket="first", Key="a/b", Body=b"content")
        assert client.get_object(Bucket="first", Key="a/b")["Body"].read() == b"content"
    finally:
        client.close()


def test_postgres_gives_each_test_a_database_and_keeps_it_through_a_crash(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """A committed row is there after the server was killed and started again."""
    plain = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("create table words (word text)")
        connection.execute("insert into words values ('kept')")
    postgres_server.kill()
    postgres_server.start()
    with psycopg.connect(plain) as connection:
        assert connection.execute("select word from words").fetchone() == ("kept",)
