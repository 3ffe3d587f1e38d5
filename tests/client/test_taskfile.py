"""Task files as people write them become the canonical specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isthmus.client.draft import LocalInput, check_spec, expand_indices, parse_gpus, parse_input, parse_output
from isthmus.client.taskfile import read_file, read_task
from isthmus.domain.errors import Invalid, NotFound


def _spec(**document: Any) -> dict[str, Any]:
    spec = read_task(document, Path("/nowhere")).spec
    check_spec(spec)
    return spec


def test_human_forms_become_canonical_ones() -> None:
    """Sizes, times, devices and lists as people write them."""
    spec = _spec(
        command="python train.py",
        cpus=4,
        memory="8G",
        time="2h",
        gpus="a100:2",
        disk="1T",
        sites=["alpha", "beta"],
        not_sites="gamma",
        goal="cheapest",
        budget=2.5,
        deadline="2026-11-26T18:00:00+08:00",
        retries=2,
        tags={"run": 7},
        env={"DEBUG": True, "N": 3},
        secrets={"KEY": "key"},
        array="0-9",
        after=["01abc", "prep:ended"],
    )
    assert spec["command"] == ["/bin/sh", "-c", "python train.py"]
    assert spec["demand"] == {
        "cpus": 4,
        "memory_bytes": 8 * 1024**3,
        "walltime_seconds": 7200,
        "accelerators": {"count": 2, "kind": "a100"},
        "disk_bytes": 1024**4,
    }
    assert spec["constraints"] == {"sites_allow": ["alpha", "beta"], "sites_deny": ["gamma"]}
    assert spec["objective"] == {"goal": "cheapest", "budget": "2.5", "deadline": "2026-11-26T18:00:00+08:00"}
    assert spec["max_attempts"] == 3
    assert spec["env"] == {"DEBUG": "true", "N": "3"}
    assert spec["array"] == {"size": 10}
    assert spec["depends_on"] == [{"task": "01abc"}, {"task": "prep", "condition": "ended"}]


def test_canonical_names_are_taken_as_they_are() -> None:
    """What the REST face takes, a task file takes; both forms may be mixed."""
    spec = _spec(command=["true"], demand={"cpus": 2, "memory_bytes": 2**30}, memory="2G", priority=5)
    assert spec == {"command": ["true"], "demand": {"cpus": 2, "memory_bytes": 2**31}, "priority": 5}


def test_an_unknown_key_names_the_nearest() -> None:
    """A slip of the pen is not ignored."""
    with pytest.raises(Invalid, match="memory"):
        _spec(command="true", memroy="8G")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"command": "x", "memory": "lots"}, "memory"),
        ({"command": "x", "time": "soon"}, "time"),
        ({"command": "x", "cpus": 0}, "cpus"),
        ({"command": "x", "cpus": "many"}, "cpus"),
        ({"command": "x", "demand": {"cpu": 1}}, "cpu"),
        ({"command": "x", "array": "9-1"}, "array"),
        ({"command": "x", "deadline": "tomorrow"}, "deadline"),
        ({"command": "x", "goal": "cheap"}, "goal"),
        ({"name": "no command"}, "command"),
        ({"command": 7}, "command"),
    ],
)
def test_a_wrong_value_names_its_field(document: dict[str, Any], field: str) -> None:
    """Every error says which key is wrong."""
    with pytest.raises(Invalid) as caught:
        _spec(**document)
    assert field in caught.value.field


def test_inputs_of_all_kinds(tmp_path: Path) -> None:
    """Local files, URLs, files at a site, and text."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/in.csv").write_text("1")
    draft = read_task(
        {
            "command": "x",
            "inputs": [
                "d/in.csv",
                "d/in.csv:other.csv",
                "https://host:8443/a/b.csv:c.csv",
                "s3://bucket/key.bin",
                "site://alpha/data/big:big",
                {"path": "inline", "content": "text"},
                {"path": "e", "file": "d/in.csv"},
            ],
        },
        tmp_path,
    )
    assert [(item.path, item.local) for item in draft.inputs] == [
        ("d/in.csv", tmp_path / "d/in.csv"),
        ("other.csv", tmp_path / "d/in.csv"),
        ("e", tmp_path / "d/in.csv"),
    ]
    assert draft.spec["inputs"] == [
        {"path": "c.csv", "url": "https://host:8443/a/b.csv"},
        {"path": "key.bin", "url": "s3://bucket/key.bin"},
        {"path": "big", "site_path": "alpha:/data/big"},
        {"path": "inline", "content": "text"},
    ]
    check_spec(draft.spec)


def test_a_local_input_that_is_not_there_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    """A missing file is found when the task is read."""
    with pytest.raises(NotFound, match="nothing"):
        parse_input("nothing.csv", tmp_path)


def test_inputs_from_elsewhere_take_their_own_name(tmp_path: Path) -> None:
    """A path that leaves the directory is not the path in the task."""
    (tmp_path / "x").write_text("")
    found = parse_input(str(tmp_path / "x"), Path("/nowhere"))
    assert isinstance(found, LocalInput)
    assert found.path == "x"


def test_outputs_name_where_they_go(tmp_path: Path) -> None:
    """PATH, PATH=LOCAL, PATH=URL, directories and patterns."""
    assert parse_output("a/b", tmp_path) == ({"path": "a/b"}, ("a/b", tmp_path / "a/b"))
    assert parse_output("a=c", tmp_path) == ({"path": "a"}, ("a", tmp_path / "c"))
    assert parse_output("r/=c", tmp_path) == ({"path": "r", "directory": True}, ("r/", tmp_path / "c"))
    assert parse_output("m=s3://b/m", tmp_path) == ({"path": "m", "url": "s3://b/m"}, None)
    assert parse_output("*.csv", tmp_path) == ({"path": "*.csv"}, ("*.csv", tmp_path))


def test_many_tasks_share_defaults(tmp_path: Path) -> None:
    """`tasks:` with `defaults:`; a task's own words win, mappings are joined."""
    path = tmp_path / "many.yaml"
    path.write_text(
        "defaults: {memory: 2G, env: {A: 1, B: 2}}\nproject: climate\n"
        "tasks:\n- {name: one, command: ./a}\n- {name: two, command: ./b, memory: 4G, env: {B: 3}, after: one}\n"
    )
    one, two = read_file(path)
    assert one.project == two.project == "climate"
    assert one.spec["demand"]["memory_bytes"] == 2 * 1024**3
    assert two.spec["demand"]["memory_bytes"] == 4 * 1024**3
    assert two.spec["env"] == {"A": "1", "B": "3"}
    assert two.spec["depends_on"] == [{"task": "one"}]


@pytest.mark.parametrize("text", ["", "just words", "tasks: []", "a: [", "tasks: []\nmemory: 1G"])
def test_what_is_no_task_file_is_said(tmp_path: Path, text: str) -> None:
    """An empty or broken file is an error with its name."""
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(Invalid):
        read_file(path)


def test_indices_and_devices() -> None:
    """Arrays and accelerators in all their forms."""
    assert expand_indices("1-10:3,20") == [1, 4, 7, 10, 20]
    assert parse_gpus("2") == {"count": 2}
    assert parse_gpus("A100") == {"count": 1, "kind": "a100"}
    assert parse_gpus({"count": 1, "memory": "40G"}) == {"count": 1, "memory_bytes": 40 * 1024**3}
