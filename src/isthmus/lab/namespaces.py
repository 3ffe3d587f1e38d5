"""Network namespaces by name, as iproute2 keeps them (/run/netns): made, entered by a thread, removed with what runs there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from isthmus.lab.errors import LabError
from isthmus.lab.proc import PROC, ProcessId, process_id, send_signal

NAMESPACES = Path("/run/netns")
PREFIX = "isthmus-"
"""Every namespace of a lab has this before its name; no other is ever removed."""
_CLONE_NEWNET = 0x4000_0000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def create(name: str) -> None:
    """Make a namespace; raises LabError when there is one of that name."""
    _check_owned(name)
    NAMESPACES.mkdir(mode=0o755, exist_ok=True)
    path = NAMESPACES / name
    try:
        path.touch(mode=0o444, exist_ok=False)
    except FileExistsError:
        raise LabError(f"there is a network namespace {name} already", f"Remove it: ip netns del {name}") from None
    with _back_again():
        _call("unshare", _libc.unshare(_CLONE_NEWNET))
        _call("mount", _libc.mount(b"/proc/thread-self/ns/net", bytes(path), b"none", _MS_BIND, None))


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Put this thread into a namespace: sockets made meanwhile stay in it for ever."""
    with _back_again():
        try:
            handle = os.open(NAMESPACES / name, os.O_RDONLY)
        except FileNotFoundError:
            raise LabError(f"there is no network namespace {name}") from None
        try:
            _call("setns", _libc.setns(handle, _CLONE_NEWNET))
        finally:
            os.close(handle)
        yield


def exists(name: str) -> bool:
    """Tell whether there is a namespace of that name."""
    return (NAMESPACES / name).exists()


def remove(name: str) -> None:
    """Kill what runs in a namespace of a lab and remove it; nothing happens when it is gone."""
    _check_owned(name)
    path = NAMESPACES / name
    if not path.exists():
        return
    for member in processes_in(name):
        send_signal(member, signal.SIGKILL)
    _libc.umount2(bytes(path), _MNT_DETACH)  # fails where a crash came between the file and the mount: the file goes
    path.unlink(missing_ok=True)


def processes_in(name: str) -> list[ProcessId]:
    """The living processes whose network is that namespace."""
    try:
        wanted = (NAMESPACES / name).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            network = (entry / "ns" / "net").stat()
            if (network.st_dev, network.st_ino) == (wanted.st_dev, wanted.st_ino):
                member = process_id(int(entry.name))
                if member is not None:
                    found.append(member)
    return found


def _check_owned(name: str) -> None:
    if not name.startswith(PREFIX) or "/" in name:
        raise LabError(f"the network namespace {name} is not of a lab")


@contextlib.contextmanager
def _back_again() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        _call("setns", _libc.setns(home, _CLONE_NEWNET))
        os.close(home)


def _call(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise LabError(f"{what} failed: {os.strerror(number)}", "Network namespaces are made and entered by root")
