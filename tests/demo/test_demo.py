"""The demonstration as a whole: every check holds, all sites work, nothing is left, also when it is killed."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from isthmus.lab import packages, registry
from isthmus.lab.accounts import exists
from isthmus.lab.namespaces import NAMESPACES
from isthmus.lab.network.places import networks
from isthmus.lab.proc import PROC
from isthmus.lab.processes import remove_stale
from isthmus.lab.wan import Wan

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
SOURCE = Path(__file__).parents[2] / "src"
COMMAND = [sys.executable, "-m", "isthmus", "demo"]
ALONE = """
import sys
from isthmus.lab.wan import Wan
Wan.missing = staticmethod(lambda: ["slurm: its daemons need root"])
from isthmus.demo.story import run
sys.exit(run(keep=False))
"""
"""The demonstration as on a machine that cannot have daemons."""


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment that knows this source tree and no service; fails where the demonstration could run and cannot."""
    if reasons := Wan.missing():
        if packages.can_install():
            pytest.fail("; ".join(reasons), pytrace=False)
        pytest.skip("; ".join(reasons))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
    return kept | {"PYTHONPATH": str(SOURCE)}


def _begin(environment: dict[str, str], *flags: str, alone: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ALONE] if alone else [*COMMAND, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def _read_until(process: subprocess.Popen[str], pattern: str, seconds: float) -> str:
    """What a process prints, to the line that holds the pattern."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    text = b""
    descriptor = process.stdout.fileno()
    while not re.search(pattern, text.decode(errors="replace")):
        ready, _w, _x = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(descriptor, 65536) if ready else b""
        assert piece, f"no {pattern!r} in:\n{text.decode(errors='replace')}"
        text += piece
    return text.decode(errors="replace")


def _directory(text: str) -> Path:
    found = re.search(r"DEMO=(\S+)", text)
    assert found, text
    return Path(found[1])


def _left(directory: Path, accounts: Sequence[str] = ()) -> list[str]:
    """What is left of a run: its directory, accounts, networks, processes that name the directory, entries of the
    registry."""
    left = [str(directory)] if directory.exists() else []
    left += [account for account in accounts if exists(account)]
    left += [name for name in networks() if name.startswith("demo-")]
    left += [path.name for path in NAMESPACES.glob("isthmus-demo-*")]
    for entry in PROC.glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            left.append(f"process {entry.name}: {words[:200]!r}")
    for record in (registry.BASE / f"isthmus-labs-{os.geteuid()}").glob("*.json"):
        known = json.loads(record.read_text(encoding="utf-8"))["directory"]
        left += [known] if known.startswith(str(directory)) else []
    return left


def _accounts(text: str) -> list[str]:
    found = re.search(r"local accounts for work are (.+)", text)
    assert found, text
    return found[1].split(", ")


def test_the_whole_demonstration_is_right_and_leaves_nothing(environment: dict[str, str]) -> None:
    """Every check holds, four sites did work, usage is that of sacct; kept running it ends on SIGTERM; nothing is left."""
    with _begin(environment, "--keep") as process:
        text = _read_until(process, r"process \d+ waits", 300)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=120)
    text += rest
    assert process.returncode == 0, text
    assert re.search(r"\d+ checks held, 0 did not", text), text
    assert "All 4 sites did work" in text
    assert re.search(r"(\d+) of \1 records are equal to sacct", text), text
    assert "export ISTHMUS_URL=https://127.0.0.1:" in text
    assert _left(_directory(text), _accounts(text)) == []


def test_a_machine_alone_says_what_is_left_out_and_does_the_rest(environment: dict[str, str]) -> None:
    """Without batch systems every other check holds on this machine, and nothing is left."""
    with _begin(environment, alone=True) as process:
        text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "left out: slurm: its daemons need root" in text
    assert "left out without a batch system" in text
    assert "failed at here and went well at here" in text
    assert _left(_directory(text)) == []


@pytest.mark.parametrize("alone", [False, True], ids=["centres", "alone"])
def test_after_a_crash_the_next_run_removes_what_was_left(environment: dict[str, str], alone: bool) -> None:
    """Killed in the middle of its work, all that it started goes with the next clean-up."""
    with _begin(environment, alone=alone) as process:
        text = _read_until(process, r"sweep: .*(queued|running|collecting|succeeded)", 200)
        process.kill()
        process.communicate(timeout=60)
    directory, accounts = _directory(text), [] if alone else _accounts(text)
    assert _left(directory, accounts)
    remove_stale()
    # Another process of this machine that starts a lab at this moment may have taken the clean-up over.
    deadline = time.monotonic() + 60
    while (left := _left(directory, accounts)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
