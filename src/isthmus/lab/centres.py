"""A laboratory: two Slurm centres that keep accounts and one SSH host, with an ordinary account that uses them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab import packages, registry
from isthmus.lab.accounts import Account, fresh_name
from isthmus.lab.errors import LabError
from isthmus.lab.mariadb import MariaDb
from isthmus.lab.processes import STATE, Daemons, clean, remove_stale
from isthmus.lab.slurm import SlurmCluster
from isthmus.lab.sshd import SshServer

CENTRES = ("north", "south")


class Laboratory:
    """Several centres in one directory, started side by side and removed together."""

    def __init__(self, directory: Path | None = None, *, cpus_per_node: int = 8) -> None:
        """Describe the laboratory; without a directory it gets one that is removed in the end."""
        self._temporary = directory is None
        self.directory = (directory or registry.new_directory()).resolve()
        self.database = MariaDb(self.directory / "mariadb")
        self.slurm = {
            name: SlurmCluster(self.directory / name, name, cpus_per_node=cpus_per_node, database=self.database)
            for name in CENTRES
        }
        self._ssh: SshServer | None = None
        self._account: Account | None = None
        self._people: Daemons | None = None

    @staticmethod
    def missing() -> list[str]:
        """Return the reasons why a laboratory cannot run here; empty when it can."""
        reasons = packages.missing()
        return [reason for feature in ("slurm", "sshd") if (reason := reasons[feature])]

    @property
    def account(self) -> Account:
        """The ordinary account that submits to the clusters and logs in to the SSH host."""
        if self._account is None:
            raise LabError("the laboratory was not started", "Call start()")
        return self._account

    @property
    def ssh(self) -> SshServer:
        """The SSH host."""
        if self._ssh is None:
            raise LabError("the laboratory was not started", "Call start()")
        return self._ssh

    def start(self) -> Self:
        """Remove what dead laboratories left and start all centres; on failure everything is stopped again."""
        reasons = self.missing()
        if reasons:
            raise LabError("; ".join(reasons), "Run as root: python -m isthmus.lab.packages")
        remove_stale()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            registry.check_reachable(self.directory)
            self._people = Daemons(self.directory / "people")
            self._account = self._people.make_account(fresh_name(), self.directory / "people" / "home")
            self._ssh = SshServer(self.directory / "ssh", self._account.name)
            self.database.start()
            _side_by_side([self._ssh.start, *(cluster.start for cluster in self.slurm.values())])
            for cluster in self.slurm.values():
                cluster.add_user(self._account.name)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all centres and remove the account; a directory of its own is removed, a given one keeps its logs."""
        stops: list[Callable[[], object]] = [cluster.stop for cluster in self.slurm.values()]
        if self._ssh is not None:
            stops.append(self._ssh.stop)
        _side_by_side(stops)
        self.database.stop()
        if self._people is not None:
            self._people.close()
        self._ssh = self._account = self._people = None
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    @staticmethod
    def clean(directory: Path) -> None:
        """Remove all that the laboratory of this directory started or made, also after a crash of its owner."""
        # Accounts last: their processes belong to daemons that are ended first.
        parts = sorted(
            (state.parent for state in directory.glob(f"**/{STATE}")), key=lambda part: part.name == "people"
        )
        for part in parts:
            clean(part)
        shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start the laboratory."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the laboratory."""
        self.stop()


def _side_by_side(calls: list[Callable[[], object]]) -> None:
    """Make all calls at once and wait for all; then raise the first error, if any."""
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        results = [pool.submit(call) for call in calls]
    for result in results:
        result.result()
