"""Help begins with examples and loads little; slips are answered; errors say what, why and how; completion is there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest

from isthmus.cli.data import _promised
from isthmus.cli.grammar import Command, Group
from isthmus.cli.main import call, isthmus
from isthmus.cli.messages import _n
from isthmus.cli.plans import show_receipt
from isthmus.cli.run import phase
from isthmus.cli.screen import money
from isthmus.client.datasets import Transfer
from isthmus.client.records import Task
from isthmus.domain.dataset import WayTaken
from isthmus.domain.placement import Candidate, Estimate, Moved, Receipt, Standing, Why

SOURCE = str(Path(__file__).parents[2] / "src")


def _all(group: Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = [(path, group)]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        here = (*path, name)
        found += _all(command, here) if isinstance(command, Group) else [(here, command)]
    return found


@pytest.mark.parametrize(
    ("path", "command"), _all(isthmus), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_begins_with_examples(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Examples are there, come before the options, and are this command's."""
    assert isinstance(command, Command | Group)
    assert command.examples
    if path == ("agent",):
        return  # its help is that of its own process
    assert call([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.index("Examples:") < text.index("Options:")
    assert " ".join(("isthmus", *path)) in text


def test_help_and_a_wrong_word_load_nothing_heavy() -> None:
    """`isthmus --help` loads neither HTTP, nor tables, nor validation, and no room of the server."""
    script = (
        "import sys; from isthmus.cli.main import call; call(['--help']); "
        "print([m for m in ('httpx', 'rich', 'pydantic', 'yaml', 'asyncio', 'sqlalchemy') if m in sys.modules], "
        "[m for m in sys.modules if m.startswith('isthmus.') and m.split('.')[1] not in ('cli', 'domain')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.strip() == "[] []"


def test_no_command_loads_a_room_of_the_server() -> None:
    """All commands together import client and domain alone."""
    script = (
        "import sys, click; from importlib import import_module; from isthmus.cli.main import COMMANDS\n"
        "for place, _, _ in COMMANDS.values(): import_module(place.split(':')[0])\n"
        "import isthmus; isthmus.Client; isthmus.AsyncClient\n"
        "print(sorted({m.split('.')[1] for m in sys.modules if m.startswith('isthmus.')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "['cli', 'client', 'domain']", done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["sumbit"], "submit"),
        (["sites"], "site"),
        (["site", "jion"], "join"),
        (["token", "list"], "ls"),
        (["ls", "--staet", "x"], "--state"),
    ],
)
def test_did_you_mean(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest word is named, on stderr, with exit code 64."""
    assert call(words) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in captured.err or words == ["token", "list"]


@pytest.mark.parametrize(
    "words", [["run"], ["submit"], ["cancel"], ["run", "--cpus", "many", "--", "x"], ["ls", "--state", "dead"]]
)
def test_what_is_missing_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that cannot be understood ends with 64 and says where to look."""
    assert call(words) == 64
    assert "--help" in capsys.readouterr().err


def test_without_a_service_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78; the same as JSON on stderr for programs."""
    monkeypatch.setenv("ISTHMUS_STATE", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("ISTHMUS_URL", "ISTHMUS_TOKEN", "ISTHMUS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert call(["ls"]) == 78
    captured = capsys.readouterr()
    assert "isthmus up" in captured.err
    assert "code: not_configured" in captured.err
    assert call(["ls", "--json"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["error"]["code"] == "not_configured"


def test_a_service_that_does_not_answer_is_69(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unavailable, with the address to check; the token is in no word of it."""
    monkeypatch.setenv("ISTHMUS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ISTHMUS_TOKEN", "ist_very-secret")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("isthmus.client.wire.FIRST_PAUSE_SECONDS", 0.001)
    assert call(["site", "ls"]) == 69
    captured = capsys.readouterr()
    assert "ISTHMUS_URL" in captured.err
    assert "very-secret" not in captured.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each names the command and its variable."""
    assert call(["completion", shell]) == 0
    assert "_ISTHMUS_COMPLETE" in capsys.readouterr().out


def test_completion_completes() -> None:
    """What bash would ask is answered with commands."""
    done = subprocess.run(
        [sys.executable, "-m", "isthmus"],
        env={"PYTHONPATH": SOURCE, "PATH": "/usr/bin:/bin", "_ISTHMUS_COMPLETE": "bash_complete", "COMP_WORDS": "isthmus su", "COMP_CWORD": "1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "plain,submit"


def test_a_queued_task_says_its_position() -> None:
    """Where the site knows it, the phase holds the place in its queue."""
    task = Task(id="t", state="queued", site="north", pool="cpu", queue_position=14)
    assert phase(task) == "◔ queued at north/cpu #14"
    assert phase(replace(task, queue_position=None)) == "◔ queued at north/cpu"


def test_money_keeps_two_decimals_and_no_empty_ones() -> None:
    """Zeros that say nothing are left out."""
    amounts = ["0.000000", "1.5", "12", "0.012300", "1E+2"]
    assert [money(Decimal(text)) for text in amounts] == ["0.00", "1.50", "12.00", "0.0123", "100.00"]


def test_the_end_is_a_range_where_only_the_limit_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """A declared time is an upper bound and is told as one; a learned one is told as about."""

    def told(source: str) -> str:
        seconds = [Estimate(seconds=value, source=source) for value in (2.0, 0.0, 600.0)]
        chosen = Candidate(site="a", pool="p", why=Why.CHOSEN, wait=seconds[0], transfer=seconds[1], run=seconds[2])
        receipt = Receipt(task_id="t", decided_at=0.0, candidates=(chosen,), chosen_site="a", chosen_pool="p")
        show_receipt(receipt, wide=False)
        return capsys.readouterr().out

    standing = Standing(project="climate", part=0.25, of_share=3.1, of=4)
    show_receipt(Receipt(task_id="t", decided_at=0.0, candidates=(), standing=standing), wide=False)
    said = "Its project climate may have 25% beside 3 others, and has used 3.1 times its share."
    assert said in capsys.readouterr().out
    assert "starts in about 2.0s, done within 10m 02s" in told("declared")
    assert "done in about 10m 02s" in told("learned")


def test_one_of_a_thing_is_not_told_as_many() -> None:
    """ "1 file", "0 files", "2 files"."""
    said = [_n("{count} file", "{count} files", count).format(count=count) for count in (0, 1, 2)]
    assert said == ["0 files", "1 file", "2 files"]


def test_what_moved_for_a_task_is_told_by_the_ways_that_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a dataset nothing "moved": its files were brought. Of several ways each has its share; a relay and MPTCP are named."""

    def told(*moved: Moved) -> str:
        receipt = Receipt(
            task_id="t", decided_at=0.0, candidates=(), actual_transfer_seconds=0.7, actual_transfers=moved
        )
        show_receipt(receipt, wide=False)
        return capsys.readouterr().out

    def one(through: str, *ways: WayTaken, relay: str = "") -> Moved:
        plain: dict[str, Any] = {"transfer": "x", "name": "p/d@1", "source": "a", "target": "b", "size_bytes": 10**6}
        return Moved(**plain, through=through, links=("l>b",), started_at=1.0, ended_at=3.0, relay=relay, ways=ways)

    assert "was brought there 0.7s" in told()
    several = told(
        one(
            "direct",
            WayTaken(path=("a", "r1", "r2", "b"), bytes=750, streams=6),
            WayTaken(path=("a", "r3", "b"), bytes=250, streams=2),
        )
    )
    assert "moved data 0.7s" in several
    assert "from a to b, over r1 r2 (75%, 6 streams) and over r3 (25%, 2 streams), in 2.0s" in several
    assert "through the relay of hub (8 streams)" in told(
        one("relay", WayTaken(relay="hub", bytes=1, streams=8), relay="hub")
    )
    assert "directly (MPTCP, 2 streams)" in told(one("direct", WayTaken(bytes=1, streams=2, multipath=True)))
    assert "to b, through the service, in" in told(one("service"))
    assert "l>b" not in told(one("direct"))


def test_a_promised_window_says_when_how_fast_and_over_which_links() -> None:
    """From the first stretch to the last, the highest rate, links without their direction; a transfer without one says nothing."""
    stretches = [{"begins": 0.0, "ends": 60.0, "bytes_per_second": 1024.0**2}]
    stretches.append({"begins": 90.0, "ends": 120.0, "bytes_per_second": 2 * 1024.0**2})
    said = _promised(Transfer(id="x", links=["a-r1>r1", "gold/fat>r2"], stretches=stretches))
    assert said.endswith(", 2.0 MiB/s, a-r1 fat"), said
    assert ":00:00 " in said
    assert ":02:00 " in said
    assert _promised(Transfer(id="x")) == ""
