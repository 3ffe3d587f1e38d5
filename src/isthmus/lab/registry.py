"""The labs of this machine: which directories hold one and who owns it, so that a dead owner's lab is found."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from isthmus.lab.errors import LabError
from isthmus.lab.proc import ProcessId, alive, process_id

BASE = Path("/var/tmp")  # noqa: S108 - survives a restart of the machine; made with mkdtemp or owner-checked


def new_directory(prefix: str = "isthmus-lab-") -> Path:
    """Make a directory for a lab that every account of the machine may enter (mode 0755)."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=BASE))
    directory.chmod(0o755)
    return directory


def check_reachable(directory: Path) -> None:
    """Raise LabError when ordinary accounts cannot enter the directory: their jobs could not read the lab."""
    for parent in directory.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise LabError(
                f"other accounts cannot enter {parent}", "Put the lab in a directory made by new_directory()"
            )


def enter(directory: Path, owner: ProcessId) -> None:
    """Record that a living process owns the lab in this directory."""
    with _registry() as entries:
        record = {"directory": str(directory), **asdict(owner)}
        (entries / _name(directory)).write_text(json.dumps(record), encoding="utf-8")


def leave(directory: Path) -> None:
    """Forget the lab in this directory."""
    with _registry() as entries:
        (entries / _name(directory)).unlink(missing_ok=True)


def stale() -> list[Path]:
    """Return the directories whose owner is dead; they are this process's from now on, so no other gets them."""
    heir = process_id(os.getpid())
    found = []
    with _registry() as entries:
        for entry in entries.glob("*.json"):
            record = json.loads(entry.read_text(encoding="utf-8"))
            if heir and not alive(ProcessId(pid=record["pid"], started=record["started"])):
                found.append(Path(record["directory"]))
                entry.write_text(json.dumps(record | asdict(heir)), encoding="utf-8")
    return found


def _name(directory: Path) -> str:
    return f"{hashlib.sha256(str(directory).encode()).hexdigest()[:24]}.json"


@contextmanager
def _registry() -> Iterator[Path]:
    entries = BASE / f"isthmus-labs-{os.geteuid()}"
    entries.mkdir(mode=0o700, exist_ok=True)
    if entries.is_symlink() or entries.stat().st_uid != os.geteuid():
        raise LabError(f"{entries} belongs to somebody else", "Remove it")
    with (entries / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield entries
