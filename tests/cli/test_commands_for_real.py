"""The other commands against the real service; secrets are nowhere but where they are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.cli.main import call
from tests.cli.conftest import Ask
from tests.client.service import SOURCE, RunningService


def test_list_show_why_usage_events(ask: Ask) -> None:
    """What the commands say of one task agrees."""
    ask("run", "--name", "seen", "--tag", "k=v", "--", "true")
    (task,) = ask("ls", "--name", "seen", "--tag", "k=v", "--since", "1h", "--json").document
    assert "seen" in ask("ls", "--state", "succeeded").out
    assert "seen" in ask("ls", "-o", "wide").out
    shown = ask("show", task["id"]).out
    assert "succeeded" in shown
    assert "local/local" in shown
    why = ask("why", task["id"]).out
    assert "Chosen: local/local" in why
    assert "declared" in ask("why", "-o", "wide", task["id"]).out
    assert ask("why", "--json", task["id"]).document["receipts"][0]["chosen_site"] == "local"
    kinds = [line.split()[4] for line in ask("events", task["id"]).out.splitlines()]
    assert kinds[-1] in ("task.succeeded", "usage.recorded")
    assert "PROJECT" in ask("usage").out
    assert isinstance(ask("usage", "--records", "--json").document, list)


def test_why_of_tasks_that_do_not_run(ask: Ask) -> None:
    """Held: release; blocked: for what; impossible: the figures and what would help."""
    held = ask("submit", "--hold", "--", "true").out.strip()
    assert f"isthmus release {held}" in ask("why", held).out
    blocked = ask("submit", "--after", held, "--", "true").out.strip()
    assert held in ask("why", blocked).out
    ask("release", held)
    ask("wait", held, blocked)
    failed = ask("submit", "--", "sh", "-c", "exit 4").out.strip()
    ask("wait", failed, code=4)
    assert "the command itself failed (exit code 4)" in ask("why", failed).out
    ask("retry", failed)
    ask("wait", failed, code=4)
    assert ask("show", "--json", failed).document["attempts"] == 2


def test_a_task_is_found_by_its_name_or_the_beginning_of_its_identifier(ask: Ask) -> None:
    """Of several of a name the live one; two live ones are too many."""
    first = ask("submit", "--name", "sweep", "--", "true").out.strip()
    ask("wait", "sweep")
    assert ask("show", "--json", "sweep").document["id"] == first
    second = ask("submit", "--name", "sweep", "--hold", "--", "true").out.strip()
    assert ask("show", "--json", "sweep").document["id"] == second
    assert ask("show", "--json", first[:-2]).document["id"] == first
    third = ask("submit", "--name", "sweep", "--hold", "--", "true").out.strip()
    told = ask("cancel", "sweep", code=65)
    assert second in told.err
    assert third in told.err
    assert {ask("show", "--json", one).document["state"] for one in (second, third)} == {"held"}
    assert first in ask("logs", first[:6], code=65).err
    assert "isthmus ls" in ask("why", "swep", code=66).err
    ask("cancel", "--yes", second, third)


def test_many_are_cancelled_only_when_confirmed(ask: Ask) -> None:
    """Without a terminal --yes is needed; nothing happens before."""
    ids = [ask("submit", "--hold", "--", "true").out.strip() for _ in range(2)]
    told = ask("cancel", *ids, code=64)
    assert "--yes" in told.err
    assert {ask("show", "--json", one).document["state"] for one in ids} == {"held"}
    ask("cancel", "--yes", *ids)
    ask("wait", *ids, code=125)
    array = ask("submit", "--hold", "--array", "2", "--", "true").out.split()
    ask("cancel", "--array", array[0], "--yes")
    ask("wait", *array, code=125)


def test_a_wait_that_is_over_is_124(ask: Ask) -> None:
    """The task goes on."""
    held = ask("submit", "--hold", "--", "true").out.strip()
    ask("wait", "--timeout", "1", held, code=124)
    ask("cancel", held)


def test_fetch_takes_what_is_named(ask: Ask, tmp_path: Path) -> None:
    """All, or by pattern; the paths are on stdout; a second time changes nothing."""
    task_id = ask(
        "submit", "--out", "a.txt", "--out", "b.log", "--", "sh", "-c", "echo a > a.txt; echo b > b.log"
    ).out.strip()
    ask("wait", task_id)
    assert ask("fetch", task_id, "--to", "got", "*.txt").out == "got/a.txt\n"
    assert not (tmp_path / "got/b.log").exists()
    stamp = (tmp_path / "got/a.txt").stat().st_mtime_ns
    assert sorted(ask("fetch", task_id, "--to", "got").out.split()) == ["got/a.txt", "got/b.log"]
    assert (tmp_path / "got/a.txt").stat().st_mtime_ns == stamp


def test_sites(ask: Ask, tmp_path: Path) -> None:
    """Join, show, change, map, drain with a preview, resume, leave."""
    (tmp_path / "root").mkdir()
    ask(
        "site",
        "join",
        "local",
        "second",
        "--set",
        f"root={tmp_path / 'root'}",
        "--account",
        "*=",
        "--price",
        "cpu_hour=0.5",
    )
    assert "second" in ask("site", "ls").out
    ask("site", "set", "second", "--region", "north", "--price", "local:cpu_hour=0.7")
    site = ask("site", "show", "second", "--json").document
    assert (site["region"], site["prices"]) == ("north", {"*": {"cpu_hour": "0.5"}, "local": {"cpu_hour": "0.7"}})
    assert "north" in ask("site", "show", "second").out
    ask("site", "map", "second", "admin=worker")
    assert ask("site", "map", "second", "--json").document == {"*": "", "admin": "worker"}
    assert ask("site", "map", "second", "--remove", "admin", "--json").document == {"*": ""}
    assert "--yes" in ask("site", "drain", "second", code=64).err
    assert ask("site", "show", "second", "--json").document["state"] == "active"
    ask("site", "drain", "second", "--yes")
    assert ask("site", "show", "second", "--json").document["state"] == "draining"
    assert "takes nothing new" in ask("run", "--dry-run", "--site", "second", "--", "true", code=75).out
    ask("site", "resume", "second")
    for word in ("tasks", "usage", "load"):
        ask("site", word, "second")
    ask("site", "leave", "second", "--force", "--yes")
    told = ask("site", "join", "nokind", "third", code=65)
    assert "kind" in told.err


def test_an_agents_token_is_on_stdout_alone(ask: Ask) -> None:
    """join --agent prints the one-time token once, and how to start the agent."""
    told = ask("site", "join", "slurm", "far", "--agent")
    token = told.out.strip()
    assert token
    assert token not in told.err
    assert "isthmus agent --url" in told.err
    assert ask("site", "enrol", "far").out.strip() != token
    ask("site", "leave", "far", "--force", "--yes")


def test_people_and_tokens(ask: Ask, monkeypatch: pytest.MonkeyPatch, service: RunningService) -> None:
    """A user with a token of their own sees their project; a token's secret is printed once; an ended one is 77."""
    ask("user", "add", "alice")
    ask("project", "add", "climate")
    ask("project", "member", "add", "climate", "alice", "--role", "manager")
    assert "alice" in ask("project", "member", "ls", "climate").out
    assert ask("project", "share", "climate", "2.5").out.startswith("climate: share 2.5")
    assert ask("project", "show", "climate", "--json").document["share"] == 2.5
    ask("project", "share", "climate", "0", code=65)
    ask("project", "show", "nowhere", code=66)
    told = ask("token", "create", "--user", "alice", "--expires", "1h", "--description", "laptop")
    secret = told.out.strip()
    assert secret not in told.err
    assert secret not in ask("token", "ls", "-o", "wide").out
    with monkeypatch.context() as patch:
        patch.setenv("ISTHMUS_URL", service.profile.url)
        patch.setenv("ISTHMUS_TOKEN", secret)
        patch.setenv("ISTHMUS_PROJECT", "climate")
        assert "climate" in ask("project", "ls").out
        task_id = ask("submit", "--hold", "--", "true").out.strip()
        assert ask("show", "--json", task_id).document["user"] == "alice"
        ask("cancel", task_id)
        ask("user", "add", "mallory", code=77)
        (token,) = ask("token", "ls", "--json").document
        ask("token", "revoke", token["id"])
        ask("ls", code=77)
    ask("project", "member", "rm", "climate", "alice")
    ask("user", "disable", "alice", "--yes")
    assert "alice" in ask("user", "ls").out


def test_secrets_come_from_stdin_and_are_never_shown(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, service: RunningService
) -> None:
    """A value is no argument; no command answers it; a task sees it as a variable; no file of the service has it: store,
    journal of the store, log, blobs, what lies at the site."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("s3cr3t-value\n"))
    told = ask("secret", "set", "api-key")
    assert "s3cr3t" not in told.out + told.err
    ask("secret", "set", "api-key", "s3cr3t-value", code=64)
    assert ask("secret", "ls").out == "api-key\n"
    told = ask("run", "--secret", "KEY=api-key", "--", "sh", "-c", "printf %s $KEY | sha256sum")
    assert told.out.split()[0] == hashlib.sha256(b"s3cr3t-value").hexdigest()
    assert "s3cr3t" not in told.out + told.err + ask("events", "--json").out
    for path in service.state.parent.rglob("*"):
        with contextlib.suppress(OSError):  # sockets, directories, and files that went meanwhile
            assert b"s3cr3t-value" not in path.read_bytes(), path
    ask("secret", "rm", "api-key")
    assert ask("secret", "ls").out == ""


def test_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """up --detach prints the address once it answers and where the token is; a second up finds it; down stops it."""
    state = tmp_path / "state"
    for name in list(os.environ):
        if name.startswith("ISTHMUS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ISTHMUS_STATE", str(state))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    try:
        assert call(["up", "--detach", "--listen", "127.0.0.1:0"]) == 0
        told = capfd.readouterr()
        url = told.out.strip()
        assert url.startswith("http://127.0.0.1:")
        assert str(state / "admin-token") in told.err
        token = (state / "admin-token").read_text().strip()
        assert token not in told.out + told.err
        assert token not in (state / "server.log").read_text()
        assert call(["up", "--detach"]) == 0
        assert capfd.readouterr().out.strip() == url
        assert call(["site", "ls"]) == 0
    finally:
        assert call(["down"]) == 0
    capfd.readouterr()
    assert not (state / "service.json").exists()
    assert call(["down"]) == 0
    assert call(["up", "--detach", "--listen", "0.0.0.0:0"]) == 69
    assert "TLS" in capfd.readouterr().err
    assert call(["up", "--database", "postgresql+psycopg://u:password@h/d"]) == 64
    assert "password@" not in capfd.readouterr().err


def test_down_does_not_touch_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service file that names some other process (its number was used again) harms nobody."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / "service.json").write_text(f'{{"url": "http://127.0.0.1:1", "pid": {other.pid}}}')
        assert call(["down", "--state", str(tmp_path)]) == 0
        assert other.poll() is None
    finally:
        other.communicate(b"\n", timeout=60)


def test_what_holds_waiting_tasks_is_told_with_the_help(ask: Ask) -> None:
    """Two tasks too large for every pool: the reason, where, and the smallest change; --json for programs."""
    tasks = [ask("submit", "--cpus", "4000", "--", "true").out.strip() for _ in range(2)]
    deadline = time.monotonic() + 60
    while ask("why", "--waiting", "--json").document["looked_at"] < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    told = ask("why", "--waiting")
    assert "too few processors on a node" in told.out
    assert "ask for at most" in told.out
    [first, *_] = ask("why", "--waiting", "--json").document["reasons"]
    assert (first["why"], first["tasks"]) == ("too_few_cpus", 2)
    ask("why", code=64)
    for task in tasks:
        ask("cancel", task, "--yes", code=None)


def _processes(words: str) -> list[str]:
    """Ids of processes whose command line is `words`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_text() == words:
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_leaving_by_force_names_the_jobs_that_are_given_up(ask: Ask, tmp_path: Path) -> None:
    """A site that answers ends its jobs; the operator is told which they were, since Isthmus looks after them no more."""
    ask("site", "join", "local", "third", "--set", f"root={tmp_path / 'third'}", "--account", "*=")
    task = ask("submit", "--site", "third", "--memory", "10M", "--", "sleep", "61.73").out.strip()
    deadline = time.monotonic() + 60
    while ask("show", task, "--json").document["state"] != "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    native = ask("show", task, "--json").document["native_id"]

    assert _processes("sleep\0" + "61.73\0")
    said = ask("site", "leave", "third", "--force", "--yes").err
    deadline = time.monotonic() + 30
    while _processes("sleep\0" + "61.73\0") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _processes("sleep\0" + "61.73\0")

    assert "may still run at third" in said
    assert any(line.split()[:1] == [native] and task in line for line in said.splitlines())
    ask("cancel", task, "--yes", code=None)
    ask("cancel", task, code=None)
