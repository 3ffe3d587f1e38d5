"""The real daemons of the tests: each starts once for the session, when the first test asks for it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.lab import packages, registry, s3
from isthmus.lab.accounts import Account, fresh_name
from isthmus.lab.gridengine import GridEngineCell
from isthmus.lab.mariadb import MariaDb
from isthmus.lab.postgres import PostgresServer
from isthmus.lab.processes import Daemons, remove_stale
from isthmus.lab.s3 import S3Server
from isthmus.lab.slurm import SlurmCluster
from isthmus.lab.sshd import SshServer

TOGETHER = ("tests/console/", "tests/cli/", "tests/client/", "tests/api/tes/")
"""Folders whose tests share one service: where tests run side by side, each of these stays in one process."""


FIRST = (
    "tests/demo/",
    "tests/faults/",
    "tests/console/",
    "tests/api/test_openapi.py",
    "tests/engine/test_placing.py",
    "tests/engine/test_fairness.py",
    "tests/world/",
    "tests/conformance/",
    "tests/data/",
)
"""The longest: begun first, so that none of them is left running alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: next((n for n, long in enumerate(FIRST) if item.nodeid.startswith(long)), len(FIRST)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run side by side (`-n`), they are dealt out by file, or by folder where the folder shares a service."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            where = nodeid.split("::")[0]
            return next((folder for folder in TOGETHER if where.startswith(folder)), where)

    return ByFile(config, log)


def require(feature: str) -> None:
    """Skip the test where a daemon cannot run; where it could be installed (root on Debian) its lack is an error."""
    reason = s3.missing() if feature == "s3" else packages.missing()[feature]
    if reason is None:
        return
    if packages.can_install():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def emulation() -> None:
    """Networks can be emulated here: root, the programs, and a kernel that lets us."""
    require("network")
    from isthmus.lab.network.possible import kernel_reason

    if reason := kernel_reason():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def lab_directory() -> Iterator[Path]:
    """A directory that other accounts may enter, removed in the end; what dead sessions left is removed first."""
    remove_stale()
    directory = registry.new_directory("isthmus-lab-tests-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def lab_account(lab_directory: Path) -> Iterator[Account]:
    """An ordinary local account with a home directory."""
    if not packages.can_install():
        pytest.skip("accounts are made by root on a Debian-like system")
    people = Daemons(lab_directory / "people")
    try:
        yield people.make_account(fresh_name(), people.directory / "home")
    finally:
        people.close()


@pytest.fixture(scope="session")
def maria_db(lab_directory: Path) -> Iterator[MariaDb]:
    """The database of the clusters' accounting."""
    require("slurm")
    with MariaDb(lab_directory / "mariadb") as database:
        yield database


@pytest.fixture(scope="session")
def slurm_cluster(lab_directory: Path, maria_db: MariaDb, lab_account: Account) -> Iterator[SlurmCluster]:
    """A Slurm cluster with accounting, two CPU nodes and one GPU node, whose user is `lab_account`."""
    with SlurmCluster(lab_directory / "alpha", "alpha", database=maria_db) as cluster:
        cluster.add_user(lab_account.name)
        yield cluster


@pytest.fixture(scope="session")
def second_slurm_cluster(lab_directory: Path, maria_db: MariaDb, lab_account: Account) -> Iterator[SlurmCluster]:
    """Another such cluster, independent of the first but for the database server."""
    with SlurmCluster(lab_directory / "beta", "beta", database=maria_db) as cluster:
        cluster.add_user(lab_account.name)
        yield cluster


@pytest.fixture(scope="session")
def gridengine_cell(lab_directory: Path) -> Iterator[GridEngineCell]:
    """A Grid Engine cell with 16 slots and 4 GPUs."""
    require("gridengine")
    with GridEngineCell(lab_directory / "gridengine") as cell:
        yield cell


@pytest.fixture(scope="session")
def ssh_server(lab_directory: Path, request: pytest.FixtureRequest) -> Iterator[SshServer]:
    """An SSH server, for `lab_account` where accounts can be made, else for the caller's own."""
    require("sshd")
    user = request.getfixturevalue("lab_account").name if packages.can_install() else None
    with SshServer(lab_directory / "ssh", user) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(lab_directory: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server that does not wait for the disk."""
    require("postgresql")
    with PostgresServer(lab_directory / "postgres") as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh database for one test."""
    name = f"test_{secrets.token_hex(6)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def s3_server(lab_directory: Path) -> Iterator[S3Server]:
    """An S3 server with one identity."""
    require("s3")
    with S3Server(lab_directory / "s3") as server:
        yield server
