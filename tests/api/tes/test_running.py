"""Tasks that run: what TES documents say is what happens."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.api.tes.serving import Http, wait_for


def sh(script: str, **more: Any) -> dict[str, Any]:
    """An executor that runs a line of shell."""
    return {"image": "alpine", "command": ["/bin/sh", "-c", script], **more}


def test_one_executor_is_logged(http: Http) -> None:
    """A task that succeeds shows its executor's times, exit code and streams."""
    shown = http.run({"name": "hello", "executors": [sh("echo hello; echo trouble >&2")]})
    (log,) = shown["logs"]
    (executor,) = log["logs"]
    assert (executor["exit_code"], executor["stdout"], executor["stderr"]) == (0, "hello\n", "trouble\n")
    assert datetime.fromisoformat(executor["start_time"]) <= datetime.fromisoformat(executor["end_time"])
    assert log["metadata"]["site"] == "here"
    assert any("own system" in line for line in log["system_logs"])


def test_executors_run_in_order_and_share_volumes(http: Http) -> None:
    """What one executor leaves in a volume, the next one reads; each has its own part of the streams."""
    shown = http.run(
        {
            "volumes": ["/vol/a"],
            "executors": [
                sh("echo first; echo from-one > /vol/a/x"),
                sh("cat /vol/a/x; echo y > /vol/a/y"),
                sh("ls /vol/a"),
            ],
        }
    )
    logs = shown["logs"][0]["logs"]
    assert [log["stdout"] for log in logs] == ["first\n", "from-one\n", "x\ny\n"]
    assert [log["exit_code"] for log in logs] == [0, 0, 0]


def test_environment_and_work_directory(http: Http) -> None:
    """env, workdir, stdin, stdout and stderr are the executor's own."""
    shown = http.run(
        {
            "inputs": [{"path": "/data/in.txt", "content": "from stdin\n"}],
            "executors": [
                sh(
                    'pwd; echo "$GREETING"; cat; echo e >&2',
                    workdir="/data/sub",
                    env={"GREETING": "a b'c"},
                    stdin="/data/in.txt",
                    stdout="/data/out.txt",
                    stderr="/data/err.txt",
                ),
                sh("cat /data/out.txt /data/err.txt"),
            ],
        }
    )
    assert shown["logs"][0]["logs"][1]["stdout"] == "/data/sub\na b'c\nfrom stdin\ne\n"


def test_failing_executor_stops_the_task(http: Http) -> None:
    """The first executor that fails is the last that is logged, and its code is told."""
    shown = http.run({"executors": [sh("echo a"), sh("exit 7"), sh("echo never")]}, "EXECUTOR_ERROR")
    assert [log["exit_code"] for log in shown["logs"][0]["logs"]] == [0, 7]


def test_ignored_error_does_not_stop_the_task(http: Http) -> None:
    """With ignore_error the next executor runs and the code is kept."""
    shown = http.run({"executors": [sh("exit 9", ignore_error=True), sh("echo on")]})
    assert [(log["exit_code"], log["stdout"]) for log in shown["logs"][0]["logs"]] == [(9, ""), (0, "on\n")]


def test_file_addresses(http: Http, tes_files: Path) -> None:
    """file:// inputs come from an allowed directory, outputs go there, also directories and wildcards."""
    (tes_files / "in" / "deep").mkdir(parents=True)
    (tes_files / "in" / "a.txt").write_text("a")
    (tes_files / "in" / "deep" / "b.txt").write_text("b")
    shown = http.run(
        {
            "inputs": [
                {"url": f"file://{tes_files}/in/a.txt", "path": "/data/a.txt"},
                {"url": f"file://{tes_files}/in", "path": "/data/all", "type": "DIRECTORY"},
            ],
            "executors": [
                sh(
                    "mkdir -p /out/d/e /out/w; cat /data/a.txt /data/all/deep/b.txt > /out/one;"
                    "cp /out/one /out/d/e/two; for n in 1 2; do echo $n > /out/w/$n.sam; done; echo x > /out/w/x.txt"
                )
            ],
            "outputs": [
                {"path": "/out/one", "url": f"file://{tes_files}/out/one.txt"},
                {"path": "/out/d", "url": f"file://{tes_files}/out/dir", "type": "DIRECTORY"},
                {"path": "/out/w/*.?am", "path_prefix": "/out", "url": f"file://{tes_files}/out/wild"},
            ],
        }
    )
    assert (tes_files / "out/one.txt").read_text() == "ab"
    assert (tes_files / "out/dir/e/two").read_text() == "ab"
    assert sorted(path.name for path in (tes_files / "out/wild/w").iterdir()) == ["1.sam", "2.sam"]
    outputs = {item["path"]: item for item in shown["logs"][0]["outputs"]}
    assert outputs["/out/one"] == {"path": "/out/one", "url": f"file://{tes_files}/out/one.txt", "size_bytes": "2"}
    assert outputs["/out/w/1.sam"]["url"] == f"file://{tes_files}/out/wild/w/1.sam"


def test_file_addresses_elsewhere_are_refused(http: Http, tes_files: Path, tmp_path: Path) -> None:
    """Nothing outside the allowed directories is read, not even through a link in them."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tes_files / "link").symlink_to(secret)
    for url in (f"file://{secret}", f"file://{tes_files}/link", f"file://{tes_files}/../secret", "file:///etc/passwd"):
        answer = http.post("/tasks", {"inputs": [{"url": url, "path": "/data/x"}], "executors": [sh("cat /data/x")]})
        assert answer.status_code == 400, url
        assert answer.json()["errors"][0]["field"] == "inputs.0.url"
        assert "secret" not in answer.json()["detail"].replace("/secret", "")


def test_output_outside_the_allowed_directories_is_not_written(http: Http, tmp_path: Path) -> None:
    """A task whose output may not be written where it wants ends as a system's error that says so."""
    shown = http.run(
        {
            "executors": [sh("echo x > /out/x")],
            "volumes": ["/out"],
            "outputs": [{"path": "/out/x", "url": f"file://{tmp_path}/x"}],
        },
        "SYSTEM_ERROR",
    )
    assert not (tmp_path / "x").exists()
    assert any("does not lie below" in line for line in shown["logs"][0]["system_logs"])


def test_missing_output_is_a_systems_error(http: Http, tes_files: Path) -> None:
    """A task that does not leave a declared file has not succeeded; a wildcard may match nothing."""
    outputs = [{"path": "/out/no", "url": f"file://{tes_files}/no"}]
    http.run({"executors": [sh("true")], "volumes": ["/out"], "outputs": outputs}, "SYSTEM_ERROR")
    outputs = [{"path": "/out/*.no", "path_prefix": "/out", "url": f"file://{tes_files}/none"}]
    http.run({"executors": [sh("true")], "volumes": ["/out"], "outputs": outputs})


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_cancel(http: Http, when: str) -> None:
    """A cancelled task becomes CANCELED, whether it ran already or not, and cancelling again changes nothing."""
    resources = {"zones": ["nowhere"]} if when == "waiting" else {}
    task_id = http.create({"executors": [sh("sleep 600")], "resources": resources})
    if when == "running":
        wait_for(lambda: http.task(task_id, "MINIMAL")["state"] == "RUNNING", "it runs")
    answer = http.post(f"/tasks/{task_id}:cancel")
    assert (answer.status_code, answer.json()) == (200, {})
    assert http.task(task_id, "MINIMAL")["state"] in ("CANCELING", "CANCELED")
    http.ended(task_id, "CANCELED")
    assert http.post(f"/tasks/{task_id}:cancel").status_code == 200


def test_image_that_no_rule_satisfies(http: Http) -> None:
    """Where a site cannot run an image, the task ends as a system's error."""
    body = {
        "executors": [{"image": "absent:1", "command": ["true"]}],
        "resources": {"backend_parameters": {"max_attempts": "1"}},
    }
    http.run(body, "SYSTEM_ERROR" if not _loads_archives() else "EXECUTOR_ERROR")


def _loads_archives() -> bool:
    return shutil.which("podman") is not None or shutil.which("docker") is not None
