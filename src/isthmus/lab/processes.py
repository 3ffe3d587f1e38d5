"""A group of daemons kept in one directory: started, watched and stopped by pid, and removed after a crash.

The file `state.json` in the directory names the owner, every daemon (pid with its start time, so that a pid
used again is never mistaken), every account, outside path and network namespace made for the group. Each daemon also carries
the directory in its environment (`ISTHMUS_LAB`), by which what it left behind is found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from isthmus.lab import accounts, namespaces, registry
from isthmus.lab.errors import LabError
from isthmus.lab.packages import SBIN, find_program
from isthmus.lab.proc import ProcessId, alive, descendants, process_id, send_signal, with_environment

STATE = "state.json"
TAG = "ISTHMUS_LAB"
STOP_SECONDS = 15.0


def wait_for(condition: Callable[[], object], seconds: float, what: str, interval_seconds: float = 0.05) -> None:
    """Wait until the condition holds; raise LabError that names what was waited for when the seconds are over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:g} s in vain for {what}", "Read the logs in the lab's directory")
        time.sleep(interval_seconds)


@dataclass(slots=True, kw_only=True)
class State:
    """What a group has made: written to the group's directory before anyone may need it."""

    owner: ProcessId
    processes: dict[str, ProcessId] = field(default_factory=dict)
    accounts: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path) -> State:
        """Read the state of a group; a directory without one gives an empty state of a dead owner."""
        try:
            raw = json.loads((directory / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(owner=ProcessId(pid=0, started=0))
        return cls(
            owner=ProcessId(**raw["owner"]),
            processes={name: ProcessId(**value) for name, value in raw["processes"].items()},
            accounts=raw["accounts"],
            paths=raw["paths"],
            namespaces=raw.get("namespaces", []),  # a lab of an earlier release that died had none
        )

    def write(self, directory: Path) -> None:
        """Write the state in one step, so that a reader sees the old or the new one."""
        fresh = directory / f"{STATE}.new"
        fresh.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        fresh.replace(directory / STATE)


class Daemons:
    """The daemons, accounts and outside paths of one directory; safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        """Make the directory (mode 0755) and enter it in the registry of labs of this machine."""
        self.directory = directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self._lock = threading.RLock()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._state = State(owner=_own_id())
        self._state.write(directory)
        registry.enter(directory, self._state.owner)

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        working_directory: Path = Path("/"),
        descriptors: Sequence[int] = (),
    ) -> int:
        """Start a program that stays in the foreground as the daemon `name`; return its pid.

        Its environment is clean but for PATH, the given variables and the lab's tag; it keeps the given open files
        under their numbers. Raises LabError when the
        program is not installed or a daemon of that name runs already.
        """
        program = find_program(str(argv[0]))
        if program is None:
            raise LabError(f"{argv[0]} is not installed", "Run: python -m isthmus.lab.packages")
        whole = {"PATH": _path(), "LC_ALL": "C.UTF-8", **(environment or {}), TAG: str(self.directory)}
        account = accounts.look_up(user) if user else None
        log = log or self.directory / f"{name}.log"
        with self._lock, log.open("ab") as output:
            if self.running(name):
                raise LabError(f"{name} runs already in {self.directory}")
            child = subprocess.Popen(
                [program, *(str(argument) for argument in argv[1:])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=whole,
                cwd=working_directory,
                start_new_session=True,
                pass_fds=descriptors,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=() if account else None,
            )
            self._children[name] = child
            self._state.processes[name] = process_id(child.pid) or ProcessId(pid=child.pid, started=0)
            self._state.write(self.directory)
        return child.pid

    def running(self, name: str) -> bool:
        """Tell whether the daemon is alive."""
        self._reap(name)
        known = self._state.processes.get(name)
        return known is not None and alive(known)

    def pid(self, name: str) -> int:
        """Return the pid of a daemon of this group; raises LabError when it never ran."""
        try:
            return self._state.processes[name].pid
        except KeyError:
            raise LabError(f"no daemon {name} was started in {self.directory}") from None

    def wait_ready(self, name: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until a started daemon answers; raise LabError with the end of its log when it ends before."""

        def ready_or_dead() -> bool:
            return bool(condition()) or not self.running(name)

        wait_for(ready_or_dead, seconds, f"{name} in {self.directory}")
        if not self.running(name):
            log = self.directory / f"{name}.log"
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.exists() else ""
            raise LabError(f"{name} ended while it started: {tail.strip() or 'no output'}")

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one daemon if it is still the process that was started."""
        known = self._state.processes.get(name)
        if known is not None:
            send_signal(known, number)

    def stop(self, name: str, *, first: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Ask a daemon to end and kill it, with what it left, when the seconds are over; no error if it is dead."""
        known = self._state.processes.get(name)
        if known is None:
            return
        family = [known, *descendants(known.pid)] if alive(known) else []
        send_signal(known, signal.SIGCONT)
        send_signal(known, first)
        _wait_quietly(lambda: not self.running(name), seconds)
        self.end(family if self.running(name) else [])
        self._forget(name)

    def kill(self, name: str, *, family: bool = False) -> None:
        """Kill a daemon as a crash would (SIGKILL), with all its descendants when `family` is set."""
        known = self._state.processes.get(name)
        if known is None:
            return
        self.end([known, *(descendants(known.pid) if family else [])])
        self._forget(name)

    def make_account(self, name: str, home: Path) -> accounts.Account:
        """Make an ordinary account with that home directory, to be removed with the group."""
        with self._lock:
            # Recorded first: a crash between the two leaves a name that does not exist, which does no harm.
            if accounts.exists(name):
                raise LabError(f"the account {name} exists already", "Choose another name")
            self._state.accounts.append(name)
            self._state.write(self.directory)
        return accounts.make(name, home)

    def own_path(self, path: Path) -> None:
        """Record a path outside of the directory that is removed with the group."""
        with self._lock:
            self._state.paths.append(str(path))
            self._state.write(self.directory)

    def make_namespaces(self, names: Sequence[str]) -> None:
        """Make network namespaces, to be removed with the group."""
        with self._lock:
            taken = [name for name in names if namespaces.exists(name)]
            if taken:
                raise LabError(
                    f"there is a network namespace {taken[0]} already", f"Remove it: ip netns del {taken[0]}"
                )
            self._state.namespaces.extend(names)
            self._state.write(self.directory)
        for name in names:
            namespaces.create(name)

    def close(self) -> None:
        """Stop every daemon, latest first; remove what they left, accounts, outside paths and network namespaces."""
        for name in reversed(list(self._state.processes)):
            self.stop(name)
        clean(self.directory)
        for name in list(self._children):
            self._reap(name)

    def end(self, family: Sequence[ProcessId]) -> None:
        """Kill these processes (SIGKILL) and wait until they are gone; children of this group are reaped."""
        for member in family:
            send_signal(member, signal.SIGKILL)

        def gone() -> bool:
            for name in list(self._children):
                self._reap(name)
            return not any(alive(member) for member in family)

        wait_for(gone, 30, "killed processes to end")

    def _reap(self, name: str) -> None:
        child = self._children.get(name)
        if child is not None:
            child.poll()

    def _forget(self, name: str) -> None:
        with self._lock:
            self._reap(name)
            self._children.pop(name, None)
            self._state.processes.pop(name, None)
            self._state.write(self.directory)


def clean(directory: Path, *, remove: bool = False) -> None:
    """End exactly what the group of this directory started, also after a crash, and remove what it made.

    Groups below it go with it when their owner is dead, as the group's own processes are now. The directory itself, with the logs, stays unless `remove` is set.
    Does nothing where nothing is left.
    """
    directory = directory.resolve()
    state = State.read(directory)
    family = _frozen(directory, state)
    for member in family:
        send_signal(member, signal.SIGKILL)
    _wait_quietly(lambda: not any(alive(member) for member in family), 30.0)
    for inner in _groups_below(directory):
        if not alive(State.read(inner).owner):
            clean(inner)
    for name in state.namespaces:
        namespaces.remove(name)
    for name in state.accounts:
        accounts.remove(name)
    for path in state.paths:
        _remove_tree(Path(path))
    if (directory / STATE).exists():
        State(owner=state.owner).write(directory)
    registry.leave(directory)
    if remove:
        _remove_tree(directory)


def _groups_below(directory: Path) -> list[Path]:
    """The directories below that hold a group of ours. What its own owner removes meanwhile is passed over."""
    found = []
    for place, _, files in os.walk(directory):  # unlike a glob it goes on where a directory is gone
        if STATE in files and Path(place) != directory:
            with contextlib.suppress(FileNotFoundError):
                told = (Path(place) / STATE).lstat()
                # An ordinary account's file of this name must not make us end or remove anything.
                if told.st_uid == os.geteuid() and stat.S_ISREG(told.st_mode):
                    found.append(Path(place))
    return found


def _frozen(directory: Path, state: State) -> set[ProcessId]:
    """Stop (SIGSTOP) all that the group started, until a look finds nothing new: a daemon that goes on would start more
    while it is being ended, and slurmstepd hides the environment by which it could be found later."""
    family: set[ProcessId] = set()
    while True:
        found = {known for known in state.processes.values() if alive(known)}
        found |= set(with_environment(TAG, str(directory))) | family
        found |= {member for known in found for member in descendants(known.pid)}
        fresh = found - family
        if not fresh:
            return family
        for member in fresh:
            send_signal(member, signal.SIGSTOP)
        family |= fresh


def remove_stale() -> list[Path]:
    """Remove the labs whose owner is dead; return their directories."""
    removed = []
    for directory in registry.stale():
        clean(directory, remove=True)
        if directory.parent.parent == registry.BASE:
            # The directory that several parts shared goes with the last of them.
            with contextlib.suppress(OSError):
                directory.parent.rmdir()
        removed.append(directory)
    return removed


def _remove_tree(path: Path) -> None:
    if str(path).startswith("/sys/fs/cgroup/"):
        # A control group is removed by rmdir from the leaves; its files cannot be unlinked.
        inner = sorted((found for found in path.rglob("*") if found.is_dir()), reverse=True)
        for group in [*inner, path]:
            # A group whose last process is still a zombie cannot go yet; an empty one does no harm.
            with contextlib.suppress(OSError):
                group.rmdir()
        return
    shutil.rmtree(path, ignore_errors=True)


def _wait_quietly(condition: Callable[[], object], seconds: float) -> None:
    try:
        wait_for(condition, seconds, "an end")
    except LabError:
        return


def _own_id() -> ProcessId:
    own = process_id(os.getpid())
    if own is None:
        raise LabError("/proc does not show this process", "The lab needs Linux with /proc")
    return own


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
