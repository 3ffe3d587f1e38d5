"""Processes by identity: a pid together with the time it started, read from /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process of this machine; `started` is its start in clock ticks since boot, field 22 of proc(5) stat."""

    pid: int
    started: int


def process_id(pid: int) -> ProcessId | None:
    """Return the identity of the living process with that pid; a zombie counts as dead."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessId(pid=pid, started=int(fields[19]))


def alive(known: ProcessId) -> bool:
    """Tell whether this very process, and not a later one with its pid, is alive."""
    return process_id(known.pid) == known


def send_signal(known: ProcessId, number: signal.Signals) -> None:
    """Send a signal to this very process; nothing happens when it is gone."""
    try:
        handle = os.pidfd_open(known.pid)
    except (ProcessLookupError, OSError):
        return
    try:
        # The handle pins the process: what is checked now is what is signalled.
        if alive(known):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def descendants(pid: int) -> list[ProcessId]:
    """Return the living children of a process, their children and so on."""
    children: dict[int, list[ProcessId]] = {}
    for member in _all():
        fields = _stat(member.pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(member)
    found: list[ProcessId] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child.pid)
    return found


def with_environment(variable: str, value: str) -> list[ProcessId]:
    """Return the living processes that were started with this environment variable."""
    wanted = f"{variable}={value}".encode()
    found = []
    for member in _all():
        try:
            environment = (PROC / str(member.pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(member)
    return found


def of_user(uid: int) -> list[ProcessId]:
    """Return the living processes of one account."""
    found = []
    for member in _all():
        try:
            if (PROC / str(member.pid)).stat().st_uid == uid:
                found.append(member)
        except OSError:
            continue
    return found


def _all() -> Iterator[ProcessId]:
    for entry in os.listdir(PROC):  # noqa: PTH208 - thousands of names, none of which needs a Path
        if entry.isdigit():
            member = process_id(int(entry))
            if member is not None:
                yield member


def _stat(pid: int) -> list[str] | None:
    """Return the fields of stat(5) that follow the name in brackets: state, parent, and so on."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
