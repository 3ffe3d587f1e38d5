"""Batch scripts of Slurm users become tasks; what cannot be carried over is named."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.client.draft import check_spec
from isthmus.client.sbatch import SCRIPT_PATH, translate
from isthmus.client.sbatch_lines import options
from isthmus.domain.errors import Invalid

G, M = 1024**3, 1024**2


def _demand(*lines: str) -> dict[str, Any]:
    draft = translate("#!/bin/bash\n" + "\n".join(f"#SBATCH {line}" for line in lines) + "\nhostname\n")
    check_spec(draft.spec)
    found: dict[str, Any] = draft.spec.get("demand", {})
    return found


@pytest.mark.parametrize(
    ("lines", "demand"),
    [
        (["--time=30"], {"walltime_seconds": 1800}),
        (["-t 1:30"], {"walltime_seconds": 90}),
        (["-t 02:00:00"], {"walltime_seconds": 7200}),
        (["--time 1-0"], {"walltime_seconds": 86400}),
        (["--time=2-12:30"], {"walltime_seconds": 2 * 86400 + 12 * 3600 + 1800}),
        (["--mem=4000"], {"memory_bytes": 4000 * M}),
        (["--mem=16G"], {"memory_bytes": 16 * G}),
        (["--mem-per-cpu=2G", "-c 4"], {"cpus": 4, "memory_bytes": 8 * G}),
        (["--mem-per-cpu=1G", "-N2", "--ntasks-per-node=8"], {"nodes": 2, "tasks_per_node": 8, "memory_bytes": 8 * G}),
        (["-N 2 -n 16 -c 2"], {"nodes": 2, "tasks_per_node": 8, "cpus": 2}),
        (["-n 10", "--ntasks-per-node=4"], {"nodes": 3, "tasks_per_node": 4}),
        (["--ntasks=4"], {"tasks_per_node": 4}),
        (["--nodes=2-4"], {"nodes": 2}),
        (["--gres=gpu:a100:2"], {"accelerators": {"count": 2, "kind": "a100"}}),
        (["--gres=gpu:1"], {"accelerators": {"count": 1}}),
        (["--gpus-per-node=v100:4"], {"accelerators": {"count": 4, "kind": "v100"}}),
        (["-N 2", "-G 8"], {"nodes": 2, "accelerators": {"count": 4}}),
        (["--gpus-per-task=1", "-n 4"], {"tasks_per_node": 4, "accelerators": {"count": 4}}),
        (["--tmp=10G"], {"disk_bytes": 10 * G}),
        (["-L matlab:2,ansys"], {"licences": {"matlab": 2, "ansys": 1}}),
    ],
)
def test_resources(lines: list[str], demand: dict[str, Any]) -> None:
    """Totals of sbatch become figures for each node; plain memory is in megabytes, plain time in minutes."""
    assert _demand(*lines) == demand


def test_the_script_itself_runs() -> None:
    """The script is carried whole and run by its own first line, with its arguments."""
    text = "#!/usr/bin/env python3\n#SBATCH -J fit\nprint(1)\n"
    spec = translate(text, arguments=("a", "b c")).spec
    assert spec["name"] == "fit"
    assert spec["command"] == [f"./{SCRIPT_PATH}", "a", "b c"]
    assert spec["inputs"] == [{"path": SCRIPT_PATH, "content": text, "executable": True}]


def test_only_lines_before_the_first_command_count() -> None:
    """As in sbatch; a comment on the line is no value, an indented line is none of it."""
    text = "#!/bin/sh\n\n#SBATCH --job-name=a # why\n # note\necho\n#SBATCH --nodes=9\n"
    assert options(text) == [("job-name", "a")]


def test_short_forms_and_quotes() -> None:
    """-Jname, -J name, --job-name name and quoted values."""
    assert options("#!/bin/sh\n#SBATCH -Jx -N2 -H --comment 'two words' --qos=long\n") == [
        ("job-name", "x"),
        ("nodes", "2"),
        ("hold", ""),
        ("comment", "two words"),
        ("qos", "long"),
    ]


def test_what_the_cluster_means_goes_to_the_cluster() -> None:
    """Account, QOS, constraint and reservation are handed on; partitions and clusters bound the choice."""
    spec = translate("#!/bin/sh\n#SBATCH -A proj -q long -C ib --reservation r -p gpu,big -M alpha\n").spec
    assert spec["backend_parameters"] == {"account": "proj", "qos": "long", "constraint": "ib", "reservation": "r"}
    assert spec["constraints"] == {"pools_allow": ["gpu", "big"], "sites_allow": ["alpha"]}


def test_arrays_keep_their_numbers() -> None:
    """Each copy sees SLURM_ARRAY_TASK_ID; a limit is named as not carried."""
    draft = translate("#!/bin/sh\n#SBATCH --array=1-7:3%2\n")
    assert draft.spec["array"] == {"size": 3, "values": {"SLURM_ARRAY_TASK_ID": ["1", "4", "7"]}}
    assert draft.spec["env"]["SLURM_ARRAY_TASK_MAX"] == "7"
    assert any("2 at once" in note for note in draft.notes)


def test_dependencies() -> None:
    """afterok and afterany are conditions here; others are named."""
    draft = translate("#!/bin/sh\n#SBATCH -d afterok:A:B,afterany:C,singleton\n")
    assert draft.spec["depends_on"] == [{"task": "A"}, {"task": "B"}, {"task": "C", "condition": "ended"}]
    assert any("singleton" in note for note in draft.notes)


def test_variables_are_carried_by_name_only() -> None:
    """--export=NAME takes the value here, NAME=value is itself, ALL is named as not carried."""
    draft = translate("#!/bin/sh\n#SBATCH --export=ALL,A,B=2,GONE\n", environment={"A": "1"})
    assert draft.spec["env"] == {"A": "1", "B": "2"}
    assert any("ALL" in note for note in draft.notes)
    assert any("GONE" in note for note in draft.notes)


@pytest.mark.parametrize(
    "line",
    [
        "--mail-type=END", "--mail-user=a@b", "-D /scratch", "--begin=now+1h", "-w node1", "-x node2", "--exclusive",
        "--signal=B:USR1@60", "--hint=nomultithread", "--mem=0", "--gres=nvme:1", "--cpu-freq=low", "--wait", "-k",
        "--ntasks=2", "--frobnicate=1", "--priority=10",
    ],
)  # fmt: skip
def test_nothing_is_dropped_in_silence(line: str) -> None:
    """Each option that changes nothing here is named in a note."""
    draft = translate(f"#!/bin/sh\n#SBATCH {line}\n")
    assert draft.notes
    check_spec(draft.spec)


def test_unlike_jobs_joined_are_refused() -> None:
    """A heterogeneous job is several tasks."""
    with pytest.raises(Invalid):
        translate("#!/bin/sh\n#SBATCH -N1\n#SBATCH hetjob\n#SBATCH -N2\n")


def test_a_slip_is_answered_with_the_nearest_option() -> None:
    """Did you mean."""
    draft = translate("#!/bin/sh\n#SBATCH --job-nam=x\n")
    assert "job-name" in draft.notes[0]
