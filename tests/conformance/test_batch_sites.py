"""The batch kinds pass the suite: Slurm by its commands here and over ssh, slurmrestd, Grid Engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.domain.task import Demand
from isthmus.lab.accounts import Account
from isthmus.lab.gridengine import GridEngineCell
from isthmus.lab.slurm import SlurmCluster
from isthmus.lab.sshd import SshServer
from isthmus.sites.gridengine import GridEngineSite
from isthmus.sites.port import Site
from isthmus.sites.slurm import SlurmSite
from isthmus.sites.slurmrestd import SlurmRestSite
from tests.conformance import Centre, SiteConformance
from tests.conformance.suite import blobs, site

__all__ = ["blobs", "site"]

pytestmark = [pytest.mark.real]
MIB = 1024**2
PROGRAMS = ("squeue", "sacct", "scontrol", "sinfo", "qstat", "qacct", "qhost")


@pytest.fixture
def scratch(lab_directory: Path) -> Iterator[Path]:
    """A directory that all accounts can write."""
    path = lab_directory / f"scratch-{os.urandom(6).hex()}"
    path.mkdir(mode=0o755)
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _commands(adapter: Site) -> list[str]:
    """Record the scheduler's commands in the scripts that go over the transport."""
    transport: Any = adapter._transport  # type: ignore[attr-defined]
    seen: list[str] = []
    plain = transport.run

    async def run(command: Any, *, stdin: Any = None, **options: Any) -> Any:
        script = stdin.decode() if isinstance(stdin, bytes) else ""
        seen.extend(line for line in script.splitlines() if line.split(" ")[0] in PROGRAMS)
        return await plain(command, stdin=stdin, **options)

    transport.run = run
    return seen


def _requests(adapter: Site) -> list[str]:
    """Record the requests to slurmrestd."""
    client: Any = adapter._scheduler._client  # type: ignore[attr-defined]
    seen: list[str] = []
    plain = client.call

    async def call(method: str, path: str, **options: Any) -> Any:
        seen.append(f"{method} {path}")
        return await plain(method, path, **options)

    client.call = call
    return seen


@contextlib.contextmanager
def _without_rest(cluster: SlurmCluster) -> Iterator[None]:
    """slurmrestd stands still for a while."""
    cluster.daemons.send("slurmrestd", signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.daemons.send("slurmrestd", signal.SIGCONT)


@contextlib.contextmanager
def _without_ssh(server: SshServer) -> Iterator[None]:
    """The ssh server is down for a while."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def _without_master(cell: GridEngineCell) -> Iterator[None]:
    """The queue master is down for a while; its execution host and jobs are not."""
    cell.kill_master()
    try:
        yield
    finally:
        cell.start_master()


@pytest.fixture(scope="module")
def rest_tokens(slurm_cluster: SlurmCluster, lab_directory: Path) -> Iterator[Callable[[str], Path]]:
    """slurmrestd runs; a function writes the token of an account into a private file."""
    slurm_cluster.start_rest()

    def write(account: str) -> Path:
        path = lab_directory / f"token-{account}-{os.urandom(4).hex()}"
        path.touch(mode=0o600)
        path.write_text(slurm_cluster.token(account), encoding="ascii")
        return path

    yield write
    slurm_cluster.stop_rest()


def _whole(cluster: SlurmCluster) -> Demand:
    """All processors of the partition."""
    nodes = len(cluster.cpu_nodes)
    return Demand(nodes=nodes, cpus=cluster.cpus_per_node, memory_bytes=64 * MIB, walltime_seconds=600)


class TestSlurmSite(SiteConformance):
    """Slurm by its commands on this host; jobs run as an ordinary account. A dead controller has a test of its own."""

    @pytest.fixture
    def centre(self, slurm_cluster: SlurmCluster, lab_account: Account, scratch: Path) -> Centre:
        """The session's cluster."""
        config = {
            "switch_account": "runuser",
            "env": slurm_cluster.environment,
            "root": f"{scratch}/{{account}}",
            "grace_seconds": 2,
            "query_seconds": 0,
        }
        return Centre(
            make_site=lambda store: SlurmSite("alpha", config, store),
            pool="cpu",
            scratch=scratch,
            account=lab_account.name,
            full=_whole(slurm_cluster),
            commands=_commands,
        )


class TestSlurmSiteOverSsh(SiteConformance):
    """Slurm by its commands at a login node that is reached over ssh, all as the account that logs in."""

    @pytest.fixture
    def centre(self, slurm_cluster: SlurmCluster, ssh_server: SshServer, scratch: Path) -> Centre:
        """The session's cluster behind the session's ssh server."""
        config = {
            "host": ssh_server.host,
            "port": ssh_server.port,
            "user": ssh_server.username,
            "key_file": str(ssh_server.client_key),
            "known_hosts": str(ssh_server.known_hosts),
            "env": slurm_cluster.environment,
            "root": f"{scratch}/root",
            "grace_seconds": 2,
            "query_seconds": 0,
        }
        return Centre(
            make_site=lambda store: SlurmSite("alpha", config, store),
            pool="cpu",
            scratch=scratch,
            full=_whole(slurm_cluster),
            outage=lambda: _without_ssh(ssh_server),
            commands=_commands,
        )


class TestSlurmRestSite(SiteConformance):
    """slurmrestd with a token; jobs run as an ordinary account, files go over this host."""

    @pytest.fixture
    def centre(
        self, rest_tokens: Callable[[str], Path], slurm_cluster: SlurmCluster, lab_account: Account, scratch: Path
    ) -> Centre:
        """The session's cluster behind its slurmrestd."""
        config = {
            "switch_account": "runuser",
            "url": slurm_cluster.rest_url,
            "token_file": str(rest_tokens("root")),
            "root": f"{scratch}/{{account}}",
            "request_timeout_seconds": 5.0,
            "grace_seconds": 2,
            "query_seconds": 0,
        }
        return Centre(
            make_site=lambda store: SlurmRestSite("alpha", config, store),
            pool="cpu",
            scratch=scratch,
            account=lab_account.name,
            full=_whole(slurm_cluster),
            outage=lambda: _without_rest(slurm_cluster),
            commands=_requests,
        )


class TestGridEngineSite(SiteConformance):
    """Grid Engine by its commands on this host; jobs run as an ordinary account."""

    @pytest.fixture
    def centre(self, gridengine_cell: GridEngineCell, lab_account: Account, scratch: Path) -> Centre:
        """The session's cell."""
        config = {
            "switch_account": "runuser",
            "env": gridengine_cell.environment,
            "root": f"{scratch}/{{account}}",
            "grace_seconds": 2,
            "query_seconds": 0,
        }
        return Centre(
            make_site=lambda store: GridEngineSite("cell", config, store),
            pool="all.q",
            scratch=scratch,
            account=lab_account.name,
            full=Demand(cpus=gridengine_cell.slots, memory_bytes=64 * MIB, walltime_seconds=600),
            outage=lambda: _without_master(gridengine_cell),
            commands=_commands,
            walltime_seconds=3,
        )
