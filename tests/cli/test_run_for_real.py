"""`run` and `submit` against the real service: exit codes, streams, files, plans, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.client.service import RunningService

DEADLINE_SECONDS = 60.0


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 200", 200)])
def test_the_exit_code_is_the_tasks_own(ask: Ask, script: str, code: int) -> None:
    """run ends as the command ended."""
    ask("run", "--", "sh", "-c", script, code=code)


def test_a_task_that_fails_without_a_code_is_125(ask: Ask) -> None:
    """It was cancelled before it began, so that there is no exit code of its own."""
    task_id = ask("submit", "--hold", "--", "true").out.strip()
    ask("cancel", task_id)
    ask("wait", task_id, code=125)


def test_a_task_over_its_time_says_so(ask: Ask) -> None:
    """The reason is told in words and with what would help."""
    told = ask("run", "--time", "1", "--retries", "0", "--", "sleep", "60", code=None)
    assert told.code != 0
    assert "it ran longer than it asked for" in told.err


def test_streams_stay_apart(ask: Ask) -> None:
    """The task's stdout is stdout; its stderr and all talk are stderr; nothing is coloured when piped."""
    told = ask("run", "--", "sh", "-c", "echo data; echo problem >&2")
    assert told.out == "data\n"
    assert "problem\n" in told.err
    assert "\x1b" not in told.out + told.err
    quiet = ask("run", "-q", "--", "sh", "-c", "echo data; echo problem >&2")
    assert (quiet.out, quiet.err) == ("data\n", "problem\n")


def test_outputs_come_to_where_out_says(ask: Ask, tmp_path: Path) -> None:
    """A file to its own path, one to another name, a directory, a pattern."""
    (tmp_path / "in.csv").write_text("1,2\n")
    script = "cp x.csv a; cp x.csv b; mkdir -p d/e; echo deep > d/e/f; touch p1.log p2.log"
    flags = ["--in", "in.csv:x.csv", "--out", "a", "--out", "b=other/name", "--out", "d/=dir", "--out", "*.log=logs"]
    ask("run", *flags, "--", "sh", "-c", script)
    assert (tmp_path / "a").read_text() == "1,2\n"
    assert (tmp_path / "other/name").read_text() == "1,2\n"
    assert (tmp_path / "dir/e/f").read_text() == "deep\n"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["p1.log", "p2.log"]


def test_a_working_directory_is_sent_once(ask: Ask, tmp_path: Path) -> None:
    """The second run sends nothing; a link that leads out is refused before anything is sent."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "main.sh").write_text("echo from the directory\n")
    first = ask("run", "--workdir", "project", "--", "sh", "main.sh")
    assert first.out == "from the directory\n"
    assert "sent" in first.err
    assert "everything is there already" in ask("run", "--workdir", "project", "--", "sh", "main.sh").err
    (project / "out").symlink_to("/etc/hostname")
    told = ask("run", "--workdir", "project", "--", "true", code=65)
    assert "link_leads_out" in told.err


def test_a_missing_file_is_66(ask: Ask) -> None:
    """An input that is not there is found before anything is sent."""
    assert "nothing.csv" in ask("run", "--in", "nothing.csv", "--", "true", code=66).err


def test_json_of_a_run(ask: Ask) -> None:
    """stdout holds one JSON document; what the task wrote is on stderr."""
    told = ask("run", "--json", "--", "echo", "hello")
    assert told.document["state"] == "succeeded"
    assert told.document["exit_code"] == 0
    assert "hello" in told.err


def test_a_plan_names_every_candidate(ask: Ask) -> None:
    """--dry-run shows the chosen pool, or why not and what would help; nothing is stored."""
    before = ask("ls", "--all", "--json").document
    told = ask("run", "--dry-run", "--", "true")
    assert "Chosen: local/local" in told.out
    told = ask("run", "--dry-run", "--nodes", "99", "--", "true", code=75)
    assert "wants 99, has 1" in told.out
    assert "What would help" in told.out
    plan = ask("submit", "--dry-run", "--json", "--", "true").document
    assert plan["candidates"][0]["why"] == "chosen"
    assert plan["plans"][0]["site"] == plan["chosen_site"]
    assert plan["plans"][0]["finish_p10_seconds"] <= plan["plans"][0]["finish_p90_seconds"]
    assert ask("ls", "--all", "--json").document == before


def test_a_wrong_demand_is_65_with_its_field(ask: Ask) -> None:
    """What the service would refuse is refused with the field's name."""
    told = ask("run", "--cpus", "0", "--", "true", code=65)
    assert "demand.cpus" in told.err
    assert "code: invalid" in told.err


def test_an_array_runs_every_copy(ask: Ask) -> None:
    """run waits for all; the exit code is that of the first that failed."""
    told = ask("run", "--array", "3", "--retries", "0", "--", "sh", "-c", "exit $((ISTHMUS_ARRAY_INDEX * 2))", code=2)
    assert "1 succeeded, 2 did not" in told.err


def test_a_batch_script_runs(ask: Ask, tmp_path: Path) -> None:
    """#SBATCH lines count, unknown ones are named, the script gets its arguments, flags win."""
    (tmp_path / "job.sh").write_text(
        '#!/bin/sh\n#SBATCH -J fit --time=10 --mem=300\n#SBATCH --frobnicate=1\necho "$1:$2"\n'
    )
    told = ask("submit", "job.sh", "--name", "other", "--", "a", "b c")
    assert "frobnicate" in told.err
    task_id = told.out.strip()
    ask("wait", task_id)
    assert ask("logs", task_id).out == "a:b c\n"
    shown = ask("show", "--json", task_id).document
    assert shown["name"] == "other"
    assert shown["spec"]["demand"] == {"walltime_seconds": 600, "memory_bytes": 300 * 1024**2}


def test_a_script_after_the_dashes_is_a_command(ask: Ask, tmp_path: Path) -> None:
    """`submit -- ./x.sh` runs a program of the task's directory and reads no #SBATCH line of a file here."""
    (tmp_path / "x.sh").write_text("#!/bin/sh\n#SBATCH -J no\n")
    task_id = ask("submit", "--hold", "--", "./x.sh").out.strip()
    assert ask("show", "--json", task_id).document["spec"]["command"] == ["./x.sh"]
    ask("cancel", task_id)


def test_a_file_of_many_tasks(ask: Ask, tmp_path: Path) -> None:
    """All go in or none; one waits for another by name."""
    (tmp_path / "t.yaml").write_text("tasks:\n- {name: a, command: echo a}\n- {name: b, command: echo b, after: a}\n")
    ids = ask("submit", "t.yaml").out.split()
    assert len(ids) == 2
    ask("wait", *ids)
    before = ask("ls", "--all", "--json").document
    (tmp_path / "t.yaml").write_text("tasks:\n- {name: a, command: echo a}\n- {name: b, command: echo b, cpus: 0}\n")
    ask("submit", "t.yaml", code=65)
    (tmp_path / "t.yaml").write_text("tasks:\n- {name: a, command: echo a}\n- {name: b, command: echo b, after: zz}\n")
    assert ask("submit", "t.yaml", code=None).code in (65, 66)
    assert ask("ls", "--all", "--json").document == before


def _start(service: RunningService, directory: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "isthmus", *words],
        env=service.environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever starts the tests in the background may ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def test_ctrl_c_leaves_the_task_running(service: RunningService, tmp_path: Path, ask: Ask) -> None:
    """The task goes on, the user is told how to follow and end it, the exit code is 130."""
    process = _start(service, tmp_path, "run", "--", "sh", "-c", "echo begun; sleep 300")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "goes on" in err
    task_id = err.split("isthmus cancel ")[1].split()[0]
    assert ask("show", "--json", task_id).document["state"] == "running"
    ask("cancel", task_id)
    assert ask("wait", task_id, code=None).code in (125, 143)
    assert ask("show", "--json", task_id).document["state"] == "cancelled"


def test_logs_are_followed_while_they_are_written(service: RunningService, tmp_path: Path, ask: Ask) -> None:
    """A line is there before the task ends; -f ends with the task."""
    task_id = ask(
        "submit", "--", "sh", "-c", "echo early; while [ ! -e go ]; do sleep 0.1; done; echo late"
    ).out.strip()
    process = _start(service, tmp_path, "logs", "-f", task_id)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "early\n"
        attempt = ask("show", "--json", task_id).document["attempt"]
        (service.state / "sites/local/attempts" / attempt / "work/go").touch()
        out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert out == "late\n"
    assert process.returncode == 0
    assert ask("logs", "--tail", "1", task_id).out == "late\n"
    assert ask("logs", "--since", "6", task_id).out == "late\n"


def test_logs_are_followed_across_tries(ask: Ask) -> None:
    """What every try writes is seen, once; each can be read alone afterwards."""
    told = ask("run", "--retry-on-exit", "--retries", "1", "--", "sh", "-c", "echo $ISTHMUS_ATTEMPT; exit 6", code=6)
    first, second = told.out.split()
    assert first != second
    assert "attempt 2 at local" in told.err
    task_id = told.err.split("task ")[1].split()[0]
    assert ask("logs", "--try", "1", task_id).out.split() == [first]
    assert ask("logs", task_id).out.split() == [second]
    ask("logs", "--try", "3", task_id, code=66)


def test_a_reader_that_has_seen_enough_is_no_error(service: RunningService, tmp_path: Path) -> None:
    """`isthmus ls | head` ends in peace."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "isthmus", "ls", "--json"],
        env=service.environment, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_gets_tables_that_fit(service: RunningService, tmp_path: Path) -> None:
    """On a terminal of 60 columns no line is longer, and NO_COLOR is kept."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {**service.environment, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus", "site", "ls"],
        env=environment, cwd=tmp_path, stdin=follower, stdout=follower, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(follower)
    text = b""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece
    process.wait()
    os.close(leader)
    lines = text.decode().replace("\r", "").splitlines()
    assert any(line.startswith("local") for line in lines)
    assert max(len(line) for line in lines) <= 60, text.decode()
    assert "\x1b" not in text.decode()


def test_errors_as_json(ask: Ask) -> None:
    """For programs the error is one JSON document on stderr."""
    told = ask("show", "--json", "01m8c4fkm8gdn0n2jez2ppxzf4", code=66)
    assert told.out == ""
    assert json.loads(told.err)["error"]["code"] == "not_found"


def test_run_ends_with_where_it_ran_and_what_it_cost(ask: Ask) -> None:
    """The last line names the place, the time and the cost."""
    told = ask("run", "--", "true")
    assert "✓ succeeded at local/local, ran " in told.err
    assert ", cost 0.00" in told.err


def test_a_signal_is_named(ask: Ask) -> None:
    """A command that a signal ended says which one."""
    told = ask("run", "--retries", "0", "--", "sh", "-c", "kill -9 $$", code=137)
    assert "because: signal 9 (SIGKILL) ended it" in told.err


def test_a_plan_sends_nothing(ask: Ask, tmp_path: Path) -> None:
    """--dry-run with a directory that the service never saw plans all the same, and says what would be sent."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "new").write_text(os.urandom(8).hex())
    for _ in range(2):
        told = ask("run", "--dry-run", "--workdir", "w", "--", "true")
        assert "Chosen: local/local" in told.out
        assert "would be sent first" in told.err


def test_a_plan_of_a_file_knows_its_names(ask: Ask, tmp_path: Path) -> None:
    """Tasks of one file that wait for each other are planned as they would be handed in, and refused alike."""
    text = "tasks: [{name: a, command: 'true'}, {name: b, command: 'true', after: [%s]}]"
    (tmp_path / "t.yaml").write_text(text % "a")
    plans = ask("submit", "--dry-run", "--json", "t.yaml").document
    assert [plan["chosen_site"] for plan in plans] == ["local", "local"]
    assert "Task b" in ask("submit", "--dry-run", "t.yaml").out
    (tmp_path / "t.yaml").write_text(text % "nobody")
    wrong = ask("submit", "--dry-run", "t.yaml", code=65)
    assert wrong.err == ask("submit", "t.yaml", code=65).err


def test_an_absolute_output_without_an_image_is_refused_at_once(ask: Ask) -> None:
    """It could never be there; nothing is stored."""
    before = ask("ls", "--all", "--json").document
    told = ask("run", "--out", "/etc/x", "--", "true", code=65)
    assert "outputs.0.path: '/etc/x' is absolute" in told.err
    assert ask("ls", "--all", "--json").document == before


def test_an_array_is_listed_in_order(ask: Ask) -> None:
    """Ids of one submission grow with the index, so that lists and the queue keep its order."""
    array = ask("submit", "--hold", "--array", "50", "--", "true").out.split()[0]
    rows = ask("ls", "--array", array, "--json").document
    assert [row["array_index"] for row in rows] == list(range(49, -1, -1))
    ask("cancel", "--array", array, "--yes")


def test_an_input_that_does_not_come_says_why(service: RunningService, tmp_path: Path) -> None:
    """While an address is tried again, run tells what is wrong with it."""
    words = ["run", "--in", "http://127.0.0.1:1/x:x", "--", "cat", "x"]
    with subprocess.Popen(
        [sys.executable, "-m", "isthmus", *words],
        env=service.environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        try:
            said = ""
            for line in running.stderr:
                said += line
                if "does not take the connection; it is tried again" in line:
                    break
            else:
                raise AssertionError(said)
        finally:
            running.kill()
    task_id = said.split()[1]
    subprocess.run([sys.executable, "-m", "isthmus", "cancel", task_id], env=service.environment, check=True)
