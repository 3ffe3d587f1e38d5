"""Runs one command to its end: as an account of the machine if need be, with a clean environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from isthmus.lab.accounts import look_up
from isthmus.lab.errors import LabError
from isthmus.lab.packages import find_program

PERSONS_PATH = "/usr/local/bin:/usr/bin:/bin"
"""What an ordinary account finds its programs in: not what root's own shell has set up."""
COMMAND_SECONDS = 120


def run_command(
    *argv: str,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    input_text: str | None = None,
    directory: Path | None = None,
) -> str:
    """Run a command, as an account if one is given, and return what it prints, stripped.

    It runs in the given directory, else in the account's home, else in /. Raises LabError with the command's own
    message when it fails or takes longer than COMMAND_SECONDS.
    """
    program = find_program(argv[0])
    if program is None:
        raise LabError(f"{argv[0]} is not installed", "Run: python -m isthmus.lab.packages")
    account = look_up(user) if user else None
    path = PERSONS_PATH if account else os.environ.get("PATH", os.defpath)
    whole = {"PATH": path, "LC_ALL": "C.UTF-8", **(environment or {})}
    if account:
        whole |= {"HOME": str(account.home), "USER": account.name, "LOGNAME": account.name}
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            env=whole,
            # An empty standard input, unless something is to be said.
            input=input_text or "",
            cwd=directory or (account.home if account else "/"),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{argv[0]} did not end within {COMMAND_SECONDS} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise LabError(f"{Path(argv[0]).name} failed ({done.returncode}): {said}")
    return done.stdout.strip()
