"""Ordinary accounts for the people of a lab: made with useradd, removed with all their processes."""

from __future__ import annotations

import pwd
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from isthmus.lab.errors import LabError
from isthmus.lab.packages import find_program
from isthmus.lab.proc import of_user, send_signal

LOCKED = 30.0
"""Seconds to wait for another program that holds the lock of /etc/passwd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A local account: its name, numbers and home directory."""

    name: str
    uid: int
    gid: int
    home: Path


def fresh_name() -> str:
    """Return an account name that no other lab uses."""
    return f"isth{secrets.token_hex(4)}"


def exists(name: str) -> bool:
    """Tell whether there is an account of that name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def look_up(name: str) -> Account:
    """Return an existing account; raises LabError when there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise LabError(f"there is no account {name}") from None
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, home=Path(entry.pw_dir))


def make(name: str, home: Path) -> Account:
    """Make an account without a password but not locked (sshd refuses locked ones), and its home directory."""
    _change(["useradd", "-M", "-U", "-d", str(home), "-s", "/bin/bash", "-p", "*", name])
    account = look_up(name)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    shutil.chown(home, account.uid, account.gid)
    return account


def remove(name: str) -> None:
    """Kill the processes of an account that the lab made, and remove it; nothing happens when it is gone."""
    if not exists(name):
        return
    uid = look_up(name).uid
    deadline = time.monotonic() + 30
    while (left := of_user(uid)) and time.monotonic() < deadline:
        for member in left:
            send_signal(member, signal.SIGKILL)
        time.sleep(0.05)
    _change(["userdel", "-f", name])


def _change(argv: list[str]) -> None:
    program = find_program(argv[0])
    if program is None:
        raise LabError(f"{argv[0]} is not installed", "Install the package passwd")
    deadline = time.monotonic() + LOCKED
    while True:
        done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, check=False)
        # 12: useradd could not make a mail spool and the like; the account is there all the same.
        if done.returncode in (0, 12):
            return
        if "lock" not in done.stderr or time.monotonic() > deadline:
            raise LabError(f"{argv[0]} failed: {done.stderr.strip()}", "Accounts are made and removed by root")
        time.sleep(0.2)
