"""A private PostgreSQL server on loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from isthmus.lab import registry
from isthmus.lab.accounts import look_up
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.ports import HOST, free_port
from isthmus.lab.processes import Daemons

ACCOUNT = "postgres"
SUPERUSER = "postgres"


class PostgresServer:
    """One PostgreSQL server; as root it runs as the account postgres, else as the caller."""

    def __init__(self, directory: Path, *, durable: bool = False, max_connections: int = 200) -> None:
        """Describe the server; `durable` keeps fsync on, for tests that cut its life short with real losses."""
        self.directory = directory.resolve()
        self.durable = durable
        self.max_connections = max_connections
        self.port = free_port()
        self._password = secrets.token_hex(16)
        self._daemons: Daemons | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL (psycopg) of a database as the superuser, password included."""
        return f"postgresql+psycopg://{SUPERUSER}:{self._password}@{HOST}:{self.port}/{database}"

    def start(self) -> Self:
        """Make the data directory where needed, start the server and wait until it answers a query."""
        if self._daemons is None:
            registry.check_reachable(self.directory)
            self._daemons = Daemons(self.directory)
            self._initialise()
        data = self.directory / "data"
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            # In the data directory, so that a killed server leaves nothing behind in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "max_connections": str(self.max_connections),
        }
        if not self.durable:
            # Commits still reach the kernel, so they outlive a crash of the server, if not of the machine.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._daemons.start(
            "postgres",
            ["postgres", "-D", data, *options],
            user=None if os.geteuid() else ACCOUNT,
            working_directory=data,
        )
        self._daemons.wait_ready("postgres", self._answers)
        return self

    def stop(self) -> None:
        """Stop the server; clients are cut off."""
        if self._daemons is not None:
            self._daemons.stop("postgres", first=signal.SIGINT)
            self._daemons.close()
            self._daemons = None

    def restart(self) -> None:
        """Stop the server in an orderly way and start it again on the same port and data."""
        if self._daemons is None:
            raise LabError("this PostgreSQL was not started", "Call start()")
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client.
        self._daemons.stop("postgres", first=signal.SIGINT)
        self.start()

    def kill(self) -> None:
        """Kill the server with all its processes, as a crash would; `start` makes it recover."""
        if self._daemons is not None:
            self._daemons.kill("postgres", family=True)

    def pause(self) -> None:
        """Stop the server's main process where it stands (SIGSTOP): new connections hang."""
        if self._daemons is not None:
            self._daemons.send("postgres", signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        if self._daemons is not None:
            self._daemons.send("postgres", signal.SIGCONT)

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        with self._connect() as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, cutting off whoever uses it."""
        with self._connect() as connection:
            statement = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            connection.execute(statement)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            password=self._password,
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        )

    def _answers(self) -> bool:
        try:
            with self._connect() as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        data = self.directory / "data"
        if (data / "PG_VERSION").exists():
            return
        data.mkdir(mode=0o700, exist_ok=True)
        account = None if os.geteuid() else look_up(ACCOUNT)
        secret = self.directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password, encoding="ascii")
        if account:
            shutil.chown(data, account.uid, account.gid)
            shutil.chown(secret, account.uid, account.gid)
        # "-N": not synced to disk, which takes longer than all the rest.
        words = ["-D", str(data), "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={secret}", "-N"]
        try:
            run_command(
                "initdb",
                *words,
                "--locale=C.UTF-8",
                "--encoding=UTF8",
                user=account.name if account else None,
                directory=data,
            )
        finally:
            secret.unlink()

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()
