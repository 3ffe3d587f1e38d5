"""The benchmark inside a real Slurm job, asked for through a real service, under an ordinary account."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from isthmus.lab.accounts import Account
from isthmus.lab.slurm import CPU_PARTITION, SlurmCluster
from tests.client.service import RunningService

pytestmark = pytest.mark.real


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    """A running service, called with its administrator's token."""
    running = RunningService(tmp_path / "state")
    try:
        running.start()
        headers = {"Authorization": f"Bearer {running.profile.token}"}
        with httpx.Client(base_url=running.profile.url, headers=headers, trust_env=False, timeout=60) as client:
            yield client
    finally:
        running.stop()


def until(what: Callable[[], Any], seconds: float = 120) -> Any:
    """What `what` answers once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def python_for_everybody(directory: Path) -> tuple[str, bool]:
    """A Python that any account may run, and whether it has NumPy: the system's own, which is lent the NumPy of the tests
    where both are of one version and the account may read it."""
    numpy = pytest.importorskip("numpy")
    packages = Path(numpy.__file__).parents[1]
    open_to_all = all(path.stat().st_mode & 0o001 for path in (packages, *packages.parents))
    told = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    if not open_to_all or told.stdout.strip() != str(sys.version_info[:2]):
        return "/usr/bin/python3", False
    script = directory / "python-with-numpy"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec /usr/bin/python3 "$@"\n')
    script.chmod(0o755)
    return str(script), True


@pytest.mark.timeout(300)
def test_a_pool_of_a_cluster_is_measured(
    http: httpx.Client, slurm_cluster: SlurmCluster, lab_account: Account, lab_directory: Path
) -> None:
    """Two nodes of a partition are measured by two jobs of the batch system; the node's name is that which Slurm's host
    has, the processors are those that the job was given, and the capability is stored with date and error."""
    config = {
        "switch_account": "runuser",
        "env": slurm_cluster.environment,
        "root": f"{lab_directory}/roots-bench/{{account}}",
    }
    site = {"name": "alpha", "kind": "slurm", "config": config, "accounts": {"*": lab_account.name}}
    assert http.post("/v1/sites", json=site).status_code == 201
    until(lambda: http.get("/v1/sites/alpha").json()["pools"])
    begun = time.time()
    python, with_numpy = python_for_everybody(lab_directory)
    wish = {"pools": [CPU_PARTITION], "nodes": 2, "seconds": 3, "python": python}
    made = http.post("/v1/sites/alpha/benchmarks", json=wish)
    assert made.status_code == 201, made.text
    assert len(made.json()["items"]) == 2

    def done() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = http.get("/v1/sites/alpha/benchmarks").json()["items"]
        return rows if all(row["state"] != "due" for row in rows) else []

    rows = until(done, 240)
    assert [row["state"] for row in rows] == ["done", "done"], rows
    for row in rows:
        (attempt,) = http.get(f"/v1/tasks/{row['task_id']}/attempts").json()["items"]
        assert attempt["native_id"].isdigit()
    (found,) = http.get("/v1/sites/alpha/capabilities").json()["items"]
    capability = found["capability"]
    assert found["pool"] == CPU_PARTITION
    assert capability["cpus"] == len(os.sched_getaffinity(0))
    assert begun - 1 < capability["measured_at"] < time.time() + 1
    assert capability["processor"]["figures"]["serial_passes_per_second"]["p90"] > 0
    assert (capability.get("general") is not None) == with_numpy
    http.post("/v1/sites/alpha:leave", json={"force": True})
