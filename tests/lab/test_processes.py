"""Daemons are known by pid and start time: these are ended, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.lab.errors import LabError
from isthmus.lab.ports import free_ports, listening
from isthmus.lab.proc import ProcessId, alive, descendants, process_id
from isthmus.lab.processes import STATE, Daemons, State, clean, wait_for

DEAF = "trap '' TERM; echo deaf; while :; do sleep 1; done"


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """An empty group."""
    group = Daemons(tmp_path / "group")
    yield group
    group.close()


def test_a_daemon_runs_until_it_is_stopped(daemons: Daemons) -> None:
    """A started daemon is alive, a stopped one is not, and the state file follows."""
    pid = daemons.start("sleeper", ["sleep", "600"])
    assert daemons.running("sleeper")
    assert State.read(daemons.directory).processes["sleeper"].pid == pid
    daemons.stop("sleeper")
    assert process_id(pid) is None
    assert State.read(daemons.directory).processes == {}


def test_a_daemon_that_ignores_the_request_is_killed_with_its_children(daemons: Daemons) -> None:
    """SIGKILL follows SIGTERM when the time is over."""
    pid = daemons.start("deaf", ["sh", "-c", DEAF])
    wait_for(lambda: "deaf" in (daemons.directory / "deaf.log").read_text() and descendants(pid), 30, "the loop")
    family = descendants(pid)
    daemons.stop("deaf", seconds=0.2)
    assert process_id(pid) is None
    assert not any(alive(member) for member in family)


def test_a_paused_daemon_can_be_stopped(daemons: Daemons) -> None:
    """A stop wakes a daemon that SIGSTOP holds."""
    pid = daemons.start("sleeper", ["sleep", "600"])
    daemons.send("sleeper", signal.SIGSTOP)
    daemons.stop("sleeper")
    assert process_id(pid) is None


def test_a_daemon_that_ends_at_once_is_reported_with_its_last_words(daemons: Daemons) -> None:
    """The error carries the daemon's own output."""
    daemons.start("failing", ["sh", "-c", "echo no such luck; exit 3"])
    with pytest.raises(LabError, match="no such luck"):
        daemons.wait_ready("failing", lambda: False, 30)


def test_a_second_daemon_of_the_same_name_is_refused(daemons: Daemons) -> None:
    """A name stands for one process."""
    daemons.start("sleeper", ["sleep", "600"])
    with pytest.raises(LabError, match="runs already"):
        daemons.start("sleeper", ["sleep", "600"])


def test_clean_ends_what_a_daemon_left_behind_in_another_session(daemons: Daemons) -> None:
    """A process that detached itself is found by the mark in its environment."""
    note = daemons.directory / "pid"
    daemons.start("parent", ["sh", "-c", f"setsid sleep 600 & echo $! > {note}.new; mv {note}.new {note}"])
    wait_for(lambda: note.exists() and not daemons.running("parent"), 30, "the parent to end")
    left = process_id(int(note.read_text()))
    assert left is not None
    clean(daemons.directory)
    assert not alive(left)


def test_clean_spares_a_process_that_got_the_pid_of_a_dead_daemon(daemons: Daemons) -> None:
    """The start time tells a later process with the same pid from the daemon."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            known = process_id(stranger.pid)
            assert known is not None
            path = daemons.directory / STATE
            state = json.loads(path.read_text())
            state["processes"]["ghost"] = {"pid": known.pid, "started": known.started - 1}
            path.write_text(json.dumps(state))
            clean(daemons.directory)
            assert alive(known)
        finally:
            stranger.kill()


def test_clean_of_a_directory_without_a_group_does_nothing(tmp_path: Path) -> None:
    """Cleaning twice, or too early, is no error."""
    clean(tmp_path)
    clean(tmp_path / "absent")


def test_what_an_earlier_release_left_is_cleaned(tmp_path: Path) -> None:
    """A state without a field that came later is read: its lab must not keep every later one from starting."""
    old = {"owner": {"pid": 0, "started": 0}, "processes": {}, "accounts": [], "paths": [str(tmp_path / "made")]}
    (tmp_path / "made").mkdir()
    (tmp_path / STATE).write_text(json.dumps(old))
    clean(tmp_path)
    assert not (tmp_path / "made").exists()


def test_free_ports_differ_and_nothing_listens_on_them() -> None:
    """Ports are given out once."""
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert not any(listening(port) for port in ports[:3])


def test_an_identity_needs_the_start_time() -> None:
    """This process is alive under its own start time only."""
    own = process_id(os.getpid())
    assert own is not None
    assert alive(own)
    assert process_id(2**22 + 1) is None


def test_a_group_below_goes_with_the_group_above_when_its_owner_is_dead(tmp_path: Path) -> None:
    """A living owner stops its own; a file that is not ours is not believed."""
    above = Daemons(tmp_path / "above")
    below = Daemons(tmp_path / "above" / "part" / "below")
    pid = below.start("sleeper", ["sleep", "600"])
    sleeper = process_id(pid)
    assert sleeper is not None
    clean(above.directory)
    assert alive(sleeper)
    state = State.read(below.directory)
    state.owner = ProcessId(pid=1, started=1)
    state.write(below.directory)
    clean(above.directory)
    assert not alive(sleeper)


def test_clean_passes_over_what_is_removed_meanwhile(tmp_path: Path) -> None:
    """Another process removes its directories below while the group is cleaned."""
    go_on = threading.Event()

    def come_and_go() -> None:
        while not go_on.is_set():
            for number in range(20):
                (tmp_path / "site" / f"spool{number}" / "inner").mkdir(parents=True)
            shutil.rmtree(tmp_path / "site")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(200):
            clean(tmp_path)
    finally:
        go_on.set()
        other.join()
