"""Parts that start together on two real Slurm clusters, through the service in a process of its own, which is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from isthmus.client import Client
from isthmus.client.records import Task
from isthmus.lab.accounts import Account
from isthmus.lab.slurm import CPU_PARTITION, SlurmCluster
from tests.client.service import RunningService

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
T = TypeVar("T")
# Says when it began, tells the other part that it is there, and ends well only when the other is there at the same time.
MEET = """
date +%s.%N >>{place}/began.$ISTHMUS_PART
: >{place}/here.$ISTHMUS_PART
n=0
until [ -e {place}/here.$((1 - ISTHMUS_PART)) ]; do n=$((n + 1)); [ "$n" -gt 150 ] && exit 9; sleep 0.2; done
sleep 2
rm {place}/here.$ISTHMUS_PART
echo "part $ISTHMUS_PART of $ISTHMUS_PARTS at $ISTHMUS_SITE, all at $ISTHMUS_PEERS"
"""


@dataclass(frozen=True)
class Federation:
    """A service, a client of it, and a directory that every account may write to."""

    service: RunningService
    clusters: dict[str, SlurmCluster]
    account: str
    place: Path

    def client(self) -> Client:
        return Client(url=self.service.profile.url, token=self.service.profile.token)


def until(found: Callable[[], T], seconds: float = 120.0) -> T:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.2)
    return value


@pytest.fixture
def federation(
    slurm_cluster: SlurmCluster,
    second_slurm_cluster: SlurmCluster,
    lab_account: Account,
    lab_directory: Path,
    tmp_path: Path,
) -> Iterator[Federation]:
    """Both clusters joined to a service of their own."""
    place = lab_directory / f"meet-{tmp_path.name}"
    place.mkdir()
    place.chmod(0o777)
    service = RunningService(tmp_path / "state")
    clusters = {"alpha": slurm_cluster, "beta": second_slurm_cluster}
    try:
        service.start()
        headers = {"Authorization": f"Bearer {service.profile.token}"}
        with httpx.Client(base_url=service.profile.url, headers=headers, trust_env=False, timeout=60) as http:
            for name, cluster in clusters.items():
                config = {
                    "switch_account": "runuser",
                    "env": cluster.environment,
                    "root": f"{lab_directory}/roots-{tmp_path.name}/{{account}}",
                }
                site = {"name": name, "kind": "slurm", "config": config, "accounts": {"*": lab_account.name}}
                assert http.post("/v1/sites", json=site).status_code == 201
            for name in clusters:
                until(lambda name=name: http.get(f"/v1/sites/{name}").json()["pools"])  # type: ignore[misc]
        yield Federation(service, clusters, lab_account.name, place)
    finally:
        service.stop()


def submit(client: Client, place: Path, hold: str = "5m") -> list[str]:
    handle = client.submit(
        ["/bin/sh", "-c", MEET.format(place=place)],
        over=2,
        together_hold=hold,
        pools=[CPU_PARTITION],
        sites=["alpha", "beta"],
        memory="64M",
        time="5m",
    )
    return [one.id for one in handle.tasks]


def assert_met(federation: Federation, client: Client, ids: list[str]) -> list[Task]:
    """Both ended well, at different sites, each begun once, and within seconds of the other."""
    tasks = [until(lambda one=one: (t := client.task(one)).ended and t, 180) for one in ids]  # type: ignore[misc]
    assert [task.state for task in tasks] == ["succeeded", "succeeded"], [(t.reason, t.message) for t in tasks]
    assert {task.site for task in tasks} == {"alpha", "beta"}
    began = [(federation.place / f"began.{part}").read_text().split() for part in range(2)]
    assert [len(lines) for lines in began] == [1, 1], "each command was started once"
    assert abs(float(began[0][0]) - float(began[1][0])) < 20
    return tasks


def test_two_clusters_start_both_parts_at_once(federation: Federation) -> None:
    """Each part ends well only because the other ran at the same time; records are the clusters' own, and the receipt has the pair."""
    with federation.client() as client:
        ids = submit(client, federation.place)
        tasks = assert_met(federation, client, ids)
        others = ",".join(one.site for one in tasks)
        for part, task in enumerate(tasks):
            handle = client.handle(task.id)
            assert handle.logs() == f"part {part} of 2 at {task.site}, all at {others}\n"
            together = handle.why()[-1].together
            assert together is not None
            assert [plan.site for plan in together.plans] == [one.site for one in tasks]
        for task in tasks:
            cluster = federation.clusters[task.site]
            shown = cluster.run("sacct", "-n", "-P", "-X", "-j", task.native_id, "--format=State,ElapsedRaw")
            assert shown.startswith("COMPLETED|")


def test_a_service_killed_while_a_part_is_held_finds_it_again(federation: Federation) -> None:
    """One cluster is full: the part at the other is held. The service is killed; the held job stays; the cluster has room; the service
    comes back, and both parts start, once."""
    beta = federation.clusters["beta"]
    nodes = str(len(beta.cpu_nodes))
    filler = beta.submit(
        "#!/bin/sh\nsleep 240\n", "-p", CPU_PARTITION, "-N", nodes, "--exclusive", "-t", "4", user=federation.account
    )
    until(lambda: beta.job_state(filler) == "RUNNING")
    with federation.client() as client:
        ids = submit(client, federation.place)
        held = until(lambda: next((t for one in ids if (t := client.task(one)).state == "running"), None))
        other = next(client.task(one) for one in ids if one != held.id)
        assert (held.site, other.site) == ("alpha", "beta")
    federation.service.kill()
    time.sleep(3)
    assert federation.clusters["alpha"].job_state(int(held.native_id)) == "RUNNING"
    assert not (federation.place / "began.0").exists()
    assert not (federation.place / "began.1").exists()
    beta.run("scancel", str(filler))
    time.sleep(2)
    federation.service.start()
    with federation.client() as client:
        assert_met(federation, client, ids)
        until(lambda: client.handle(held.id).why()[-1].actual_held_seconds is not None)
        assert (client.handle(held.id).why()[-1].actual_held_seconds or 0.0) > 3
