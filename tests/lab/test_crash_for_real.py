"""A laboratory whose owner is killed is removed to the last process, account and file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.lab import packages
from isthmus.lab.accounts import exists
from isthmus.lab.centres import Laboratory
from isthmus.lab.proc import alive, process_id, with_environment
from isthmus.lab.processes import STATE, State, remove_stale

pytestmark = pytest.mark.real

OWNER = """
import json, sys, time
from isthmus.lab.centres import Laboratory
from isthmus.lab.processes import wait_for

lab = Laboratory().start()
north = lab.slurm["north"]
jobs = [north.submit("#!/bin/sh\\nsleep 600\\n", user=name) for name in (lab.account.name, "root")]
wait_for(lambda: all(north.job_state(job) == "RUNNING" for job in jobs), 60, "the jobs to run")
lab.ssh.run("nohup setsid sleep 600 > /dev/null 2>&1 &")
print(json.dumps({"directory": str(lab.directory), "account": lab.account.name}), flush=True)
time.sleep(600)
"""


@pytest.fixture
def orphaned() -> dict[str, str]:
    """What a laboratory was before its owner was killed."""
    if reasons := Laboratory.missing():
        if packages.can_install():
            pytest.fail("; ".join(reasons), pytrace=False)
        pytest.skip("; ".join(reasons))
    source = Path(__file__).parents[2] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(source)}
    ) as owner:
        assert owner.stdout is not None
        try:
            line = owner.stdout.readline()
        finally:
            owner.kill()
    found: dict[str, str] = json.loads(line)
    return found


@pytest.mark.parametrize("way", ["clean", "remove_stale"])
def test_nothing_is_left_of_a_laboratory_whose_owner_was_killed(orphaned: dict[str, str], way: str) -> None:
    """Daemons, jobs, session leftovers, the account, the data in memory and the directory are gone."""
    directory = Path(orphaned["directory"])
    states = [State.read(path.parent) for path in directory.glob(f"**/{STATE}")]
    processes = [known for state in states for known in state.processes.values()]
    assert len(processes) >= 14
    assert all(alive(known) for known in processes)
    paths = [Path(path) for state in states for path in state.paths]
    assert paths
    if way == "clean":
        Laboratory.clean(directory)
    else:
        remove_stale()
    assert not any(alive(known) for known in processes)
    configuration = directory / "north" / "etc" / "slurm.conf"
    assert with_environment("SLURM_CONF", str(configuration)) == []
    assert not exists(orphaned["account"])
    assert not any(path.exists() for path in [*paths, directory])


def test_a_laboratory_starts_works_and_ends() -> None:
    """Both clusters run a job of the laboratory's account, which also logs in; then all is gone."""
    if Laboratory.missing():
        pytest.skip("; ".join(Laboratory.missing()))
    with Laboratory() as lab:
        for cluster in lab.slurm.values():
            cluster.run("srun", "true", user=lab.account.name)
        assert lab.ssh.run("id -un").strip() == lab.account.name
        pid = lab.slurm["south"].daemons.pid("slurmctld")
    assert process_id(pid) is None
    assert not lab.directory.exists()
