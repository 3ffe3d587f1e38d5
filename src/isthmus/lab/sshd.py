"""A real SSH server, on loopback unless told otherwise, for one account, with a key of its own on both sides."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from isthmus.lab import registry
from isthmus.lab.accounts import Account, fresh_name, look_up
from isthmus.lab.commands import run_command
from isthmus.lab.errors import LabError
from isthmus.lab.ports import HOST, free_port, listening
from isthmus.lab.processes import Daemons

PRIVILEGE_SEPARATION = Path("/run/sshd")


class SshServer:
    """One sshd for one account: the given one, else one made for it, else (without root) the caller's own."""

    def __init__(self, directory: Path, user: str | None = None, *, host: str = HOST) -> None:
        """Describe the server, which listens at the address `host`; nothing is made before `start`."""
        self.directory = directory.resolve()
        self.host = host
        self.port = free_port()
        self._user = user
        self._account: Account | None = None
        self._daemons: Daemons | None = None

    @property
    def account(self) -> Account:
        """The account that logs in; raises LabError before `start`."""
        if self._account is None:
            raise LabError("this SSH server was not started", "Call start()")
        return self._account

    @property
    def username(self) -> str:
        """The name of the account that logs in."""
        return self.account.name

    @property
    def client_key(self) -> Path:
        """The private key with which the account logs in."""
        return self.directory / "client_key"

    @property
    def known_hosts(self) -> Path:
        """The file that names the server's host key."""
        return self.directory / "known_hosts"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "sshd.log"

    @property
    def command_prefix(self) -> list[str]:
        """The words that run a command on the server through the OpenSSH client."""
        return [
            "ssh",
            "-F",
            "none",
            "-i",
            str(self.client_key),
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-p",
            str(self.port),
            f"{self.username}@{self.host}",
        ]

    def start(self) -> Self:
        """Make the keys and the account where needed and start the server."""
        if self._daemons is None:
            registry.check_reachable(self.directory)
            self._daemons = Daemons(self.directory)
            self._account = self._find_account(self._daemons)
            self._write_files()
        if not os.geteuid():
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self._daemons.start("sshd", ["sshd", "-D", "-e", "-f", self.directory / "sshd_config"])
        self._daemons.wait_ready("sshd", lambda: listening(self.port, self.host))
        return self

    def stop(self) -> None:
        """Stop the server and its sessions, and remove the account if it was made for it."""
        if self._daemons is not None:
            self._daemons.kill("sshd", family=True)
            self._daemons.close()
            self._daemons = None

    def kill(self) -> None:
        """Kill the server with all its sessions, as a crash would; `start` brings it back on the same port.

        Processes that a session left behind on purpose (setsid, nohup) go on.
        """
        if self._daemons is not None:
            self._daemons.kill("sshd", family=True)

    def run(self, command: str, *, input_text: str | None = None) -> str:
        """Run a shell command on the server and return what it prints, stripped; raises LabError when it fails."""
        return run_command(*self.command_prefix, command, input_text=input_text)

    def _find_account(self, daemons: Daemons) -> Account:
        if self._user is not None:
            return look_up(self._user)
        if os.geteuid():
            return look_up(pwd.getpwuid(os.geteuid()).pw_name)
        return daemons.make_account(fresh_name(), self.directory / "home")

    def _write_files(self) -> None:
        for name in ("host_key", "client_key"):
            if not (self.directory / name).exists():
                run_command(
                    *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "isthmus-lab"),
                    *("-f", str(self.directory / name)),
                )
        public = (self.directory / "host_key.pub").read_text(encoding="ascii")
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {public}", encoding="ascii")
        authorized = self.directory / "authorized_keys"
        shutil.copyfile(self.directory / "client_key.pub", authorized)
        authorized.chmod(0o644)
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.host}",
            f"HostKey {self.directory / 'host_key'}",
            f"PidFile {self.directory / 'sshd.pid'}",
            f"AuthorizedKeysFile {authorized}",
            # The file lies below a directory that everybody may write to (with the sticky bit).
            "StrictModes no",
            f"AllowUsers {self.username}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            "PrintMotd no",
            "MaxSessions 100",
            "MaxStartups 200",
            "Subsystem sftp internal-sftp",
        ]
        (self.directory / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()
