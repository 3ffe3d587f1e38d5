"""A private MariaDB, in which slurmdbd keeps the accounting of the clusters of one lab."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab import registry
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.ports import HOST, free_port
from isthmus.lab.processes import Daemons

MEMORY = Path("/dev/shm")  # noqa: S108 - made with mkdtemp
ACCOUNT = "mysql"


class MariaDb:
    """One MariaDB server on loopback; its data lie in memory where the machine has /dev/shm."""

    def __init__(self, directory: Path) -> None:
        """Prepare a server whose state and log lie in the directory."""
        self.directory = directory
        self.port = free_port()
        self.user = "slurm"
        self.password = secrets.token_hex(16)
        self._data: Path | None = None
        self._daemons: Daemons | None = None

    def start(self) -> Self:
        """Make the data directory and start the server; raises LabError when it does not answer."""
        registry.check_reachable(self.directory)
        daemons = self._daemons = Daemons(self.directory)
        base = MEMORY if os.access(MEMORY, os.W_OK) else self.directory
        data = self._data = Path(tempfile.mkdtemp(prefix="isthmus-mariadb-", dir=base))
        daemons.own_path(data)
        # Temporary tables of its own: two servers that start at once would take each other's out of /tmp.
        scratch = data / "tmp"
        scratch.mkdir()
        for path in (data, scratch):
            shutil.chown(path, ACCOUNT, ACCOUNT)
        run_command(
            "mariadb-install-db",
            "--no-defaults",
            f"--user={ACCOUNT}",
            f"--datadir={data / 'data'}",
            f"--tmpdir={scratch}",
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
            "--skip-test-db",
        )
        daemons.start(
            "mariadbd",
            [
                "mariadbd",
                "--no-defaults",
                f"--datadir={data / 'data'}",
                f"--tmpdir={scratch}",
                f"--socket={data / 'socket'}",
                f"--port={self.port}",
                f"--bind-address={HOST}",
                f"--pid-file={data / 'pid'}",
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=32M",
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-lock-wait-timeout=900",
                "--skip-name-resolve",
                "--performance-schema=OFF",
            ],
            user=ACCOUNT,
        )
        daemons.wait_ready("mariadbd", self._answers)
        self.execute(
            f"create user '{self.user}'@'{HOST}' identified by '{self.password}';"
            rf"grant all on `slurm\_%`.* to '{self.user}'@'{HOST}';"
        )
        return self

    def execute(self, statements: str) -> str:
        """Run SQL statements as the server's root and return what they print."""
        if self._data is None:
            raise LabError("this MariaDB was not started")
        # The statements go through standard input: they may hold a password.
        return run_command(
            "mariadb", "--no-defaults", "-uroot", "-S", str(self._data / "socket"), input_text=statements
        )

    def stop(self) -> None:
        """Stop the server and remove its data."""
        if self._daemons is not None:
            self._daemons.close()
            self._daemons = None

    def _answers(self) -> bool:
        try:
            self.execute("select 1")
        except LabError:
            return False
        return True

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()
