"""TES documents at a Slurm cluster: the same meaning, under an ordinary account, by a batch system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.lab.accounts import Account
from isthmus.lab.slurm import SlurmCluster
from tests.api.tes.serving import Http, TesServer, wait_for

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def slurm_joined(tes_server: TesServer, slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path) -> str:
    """The cluster as a site of the server; its name."""
    config = {
        "switch_account": "runuser",
        "env": slurm_cluster.environment,
        "root": f"{lab_directory}/roots-tes/{{account}}",
        "images": {"*": "host"},
    }
    site = {"name": "alpha", "kind": "slurm", "config": config, "accounts": {"*": lab_account.name}}
    headers = {"Authorization": f"Bearer {tes_server.token}"}
    with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
        answer = client.post(f"{tes_server.url}/v1/sites", json=site)
        assert answer.status_code == 201, answer.text
        wait_for(lambda: client.get(f"{tes_server.url}/v1/sites/alpha").json()["pools"], "the cluster describes itself")
    return "alpha"


@pytest.mark.timeout(300)
def test_steps_run_in_a_batch_job(http: Http, slurm_joined: str, tes_files: Path) -> None:
    """Several executors share a volume in one job, each with its own log; the output arrives, and the job's id is told."""
    body: dict[str, Any] = {
        "name": "batch",
        "inputs": [{"path": "/data/in", "content": "from here\n"}],
        "volumes": ["/vol"],
        "executors": [
            {
                "image": "alpine",
                "command": ["sh", "-c", "cat > /vol/x; echo one; exit 3"],
                "stdin": "/data/in",
                "ignore_error": True,
            },
            {"image": "alpine", "command": ["cat", "/vol/x"], "stdout": "/vol/out"},
            {"image": "alpine", "command": ["id", "-u"]},
        ],
        "outputs": [{"path": "/vol/out", "url": f"file://{tes_files}/batch.txt"}],
        "resources": {"ram_gb": 0.1, "backend_parameters": {"site": slurm_joined, "walltime_seconds": "120"}},
    }
    shown = http.run(body)
    log = shown["logs"][-1]
    assert [step["exit_code"] for step in log["logs"]] == [3, 0, 0]
    assert [step["stdout"] for step in log["logs"]][:2] == ["one\n", "from here\n"]
    assert log["logs"][2]["stdout"].strip() not in ("", str(os.getuid()))
    assert log["metadata"]["native_id"].isdigit()
    assert (tes_files / "batch.txt").read_text() == "from here\n"
