"""A Slurm batch script as a task: its #SBATCH lines are translated, and what cannot be is named, never dropped in silence.

Source: sbatch(1) of Slurm 23.11, option names, short forms and units.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Any

from isthmus.client.draft import Draft, expand_indices, parse_gpus
from isthmus.client.sbatch_lines import options
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.units import parse_duration, parse_size

SCRIPT_PATH = ".isthmus/script"
_NOT_CARRIED = {
    "begin": "a start time is not carried; use --hold and `isthmus release`, or let the budget and deadline decide",
    "chdir": "a directory of one site is not carried; use --workdir to send yours",
    "dependency": "",
    "exclude": "node names belong to one cluster",
    "nodelist": "node names belong to one cluster",
    "nodefile": "node names belong to one cluster",
    "mail-type": "use `isthmus wait` or a webhook",
    "mail-user": "use `isthmus wait` or a webhook",
    "signal": "the site signals at the end of the time, with its own grace",
    "exclusive": "ask for all processors of a node instead",
    "oversubscribe": "the site decides it",
    "overcommit": "the site decides it",
    "switches": "the site decides it",
    "requeue": "",
}
_LAYOUT = frozenset(
    [
        "acctg-freq",
        "batch",
        "bb",
        "bbf",
        "bcast",
        "cluster-constraint",
        "container-id",
        "contiguous",
        "core-spec",
        "cores-per-socket",
        "cpu-freq",
        "delay-boot",
        "distribution",
        "export-file",
        "extra",
        "extra-node-info",
        "get-user-env",
        "gid",
        "gpu-bind",
        "gpu-freq",
        "gres-flags",
        "hint",
        "ignore-pbs",
        "immediate",
        "kill-on-invalid-dep",
        "mcs-label",
        "mem-bind",
        "mincpus",
        "network",
        "no-kill",
        "ntasks-per-core",
        "ntasks-per-gpu",
        "ntasks-per-socket",
        "open-mode",
        "parsable",
        "power",
        "prefer",
        "profile",
        "propagate",
        "quiet",
        "reboot",
        "resv-ports",
        "segment",
        "sockets-per-node",
        "spread-job",
        "stepmgr",
        "test-only",
        "thread-spec",
        "threads-per-core",
        "time-min",
        "tres-bind",
        "tres-per-task",
        "uid",
        "use-min-nodes",
        "verbose",
        "wait",
        "wait-all-nodes",
        "wckey",
        "x11",
    ]
)


@dataclass(slots=True)
class _Reading:
    demand: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    native: dict[str, str] = field(default_factory=dict)
    constraints: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ntasks: int = 0
    nodes: int = 0
    memory_per_cpu: int = 0
    memory_per_gpu: int = 0
    gpus_in_all: int = 0
    gpus_per_task: int = 0

    def not_carried(self, option: str, why: str) -> None:
        self.notes.append(f"#SBATCH --{option} is not carried over: {why}.")


def is_sbatch(text: str) -> bool:
    """Whether a file is a batch script: it begins with `#!`."""
    return text.startswith("#!")


def read_script(path: Path, arguments: tuple[str, ...] = (), environment: Mapping[str, str] = os.environ) -> Draft:
    """A batch script as a draft; `arguments` are the script's own."""
    try:
        text = path.read_text()
    except OSError as error:
        raise NotFound(
            f"{str(path)!r} cannot be read: {error.strerror}.", remedy="Check the path.", code="file_not_found"
        ) from error
    return translate(text, name=path.name, arguments=arguments, environment=environment)


def translate(
    text: str, *, name: str = "job", arguments: tuple[str, ...] = (), environment: Mapping[str, str] = os.environ
) -> Draft:
    """The text of a batch script as a draft, with a note for everything that is not carried over."""
    reading = _Reading()
    for option, value in options(text):
        _apply(reading, option, value, environment)
    _settle(reading)
    spec: dict[str, Any] = {"name": name, **reading.spec}
    spec["command"] = [f"./{SCRIPT_PATH}", *arguments]
    spec["inputs"] = [{"path": SCRIPT_PATH, "content": text, "executable": True}]
    if reading.demand:
        spec["demand"] = reading.demand
    if reading.constraints:
        spec["constraints"] = reading.constraints
    if reading.native:
        spec["backend_parameters"] = reading.native
    return Draft(spec=spec, notes=tuple(reading.notes))


def _number(option: str, value: str) -> int:
    if not value.isdigit():
        raise Invalid(f"#SBATCH --{option}", f"{value!r} is not a number.", remedy="Write a whole number.")
    return int(value)


def _megabytes(option: str, value: str) -> int:
    return parse_size(value + "M" if value.isdigit() else value, f"#SBATCH --{option}")


def _minutes(value: str) -> int:
    if value.isdigit():
        return int(value) * 60
    days, _, clock = value.rpartition("-")
    if days and clock.isdigit():
        return int(days) * 86400 + int(clock) * 3600
    return parse_duration(value, "#SBATCH --time")


def _apply(reading: _Reading, option: str, value: str, environment: Mapping[str, str]) -> None:
    if option in ("hetjob", "packjob"):
        raise Invalid(f"#SBATCH {option}", "joins unlike jobs.", remedy="Submit each part as a task of its own.")
    if option in _RULES:
        _RULES[option](reading, value)
    elif option == "export":
        _export(reading, value, environment)
    elif option in _NOT_CARRIED:
        reading.not_carried(option, _NOT_CARRIED[option])
    elif option in _LAYOUT:
        reading.not_carried(option, "it is a detail of one Slurm cluster")
    else:
        near = get_close_matches(option, [*_RULES, *_NOT_CARRIED, *_LAYOUT, "export"], 1)
        hint = f"it is not an option of sbatch; did you mean --{near[0]}?" if near else "it is not a known option"
        reading.notes.append(f"#SBATCH {option!r} was left out: {hint}.")


def _nodes(reading: _Reading, value: str) -> None:
    least, separator, most = value.partition("-")
    reading.nodes = _number("nodes", least)
    if separator and most != least:
        reading.not_carried("nodes", f"of the range {value} the least number of nodes is taken")


def _output(reading: _Reading, value: str) -> None:
    reading.notes.append(f"The stream of #SBATCH --output={value} is kept by Isthmus: `isthmus logs`.")


def _error(reading: _Reading, value: str) -> None:
    reading.notes.append(f"The stream of #SBATCH --error={value} is kept by Isthmus: `isthmus logs --stream stderr`.")


def _memory(reading: _Reading, value: str) -> None:
    if value == "0":
        reading.not_carried("mem", "0 stands for all of a node; name the memory you need")
        return
    reading.demand["memory_bytes"] = _megabytes("mem", value)


def _gres(reading: _Reading, value: str) -> None:
    for item in value.split(","):
        name, _, rest = item.partition(":")
        if name == "gpu":
            reading.demand["accelerators"] = parse_gpus(rest.split("(")[0] or "1")
        else:
            reading.not_carried("gres", f"{item} is a resource of one Slurm cluster")


def _gpus(reading: _Reading, value: str) -> None:
    wanted = parse_gpus(value)
    reading.gpus_in_all = wanted["count"]
    reading.demand["accelerators"] = wanted


def _gpus_per_task(reading: _Reading, value: str) -> None:
    wanted = parse_gpus(value)
    reading.gpus_per_task = wanted["count"]
    reading.demand["accelerators"] = wanted


def _array(reading: _Reading, value: str) -> None:
    indices, separator, limit = value.partition("%")
    numbers = expand_indices(indices)
    reading.spec["array"] = {
        "size": len(numbers),
        "values": {"SLURM_ARRAY_TASK_ID": [str(number) for number in numbers]},
    }
    env = reading.spec.setdefault("env", {})
    env |= {
        "SLURM_ARRAY_TASK_COUNT": str(len(numbers)),
        "SLURM_ARRAY_TASK_MIN": str(min(numbers)),
        "SLURM_ARRAY_TASK_MAX": str(max(numbers)),
    }
    if separator:
        reading.not_carried("array", f"the limit of {limit} at once; sites and the queue decide how many run together")


def _dependency(reading: _Reading, value: str) -> None:
    conditions = {"afterok": "succeeded", "afterany": "ended"}
    for part in re.split(r"[,?]", value):
        kind, *ids = part.split(":")
        if kind not in conditions:
            reading.not_carried("dependency", f"{kind} has no equal here (afterok and afterany have)")
            continue
        for task_id in ids:
            found = {"task": task_id.split("+")[0]}
            if conditions[kind] != "succeeded":
                found["condition"] = conditions[kind]
            reading.spec.setdefault("depends_on", []).append(found)
    if "?" in value:
        reading.not_carried("dependency", "`?` (any of them) is read as all of them")


def _export(reading: _Reading, value: str, environment: Mapping[str, str]) -> None:
    env = reading.spec.setdefault("env", {})
    for item in value.split(","):
        name, separator, content = item.partition("=")
        if separator:
            env[name] = content
        elif name in ("ALL", ""):
            reading.not_carried("export", "ALL; variables are carried by name, as in --export=NAME or --env NAME=VALUE")
        elif name not in ("NONE", "NIL"):
            if name in environment:
                env[name] = environment[name]
            else:
                reading.not_carried("export", f"{name} is not set here")


def _licences(reading: _Reading, value: str) -> None:
    for item in re.split(r"[,|;]", value):
        name, _, count = item.partition(":")
        reading.demand.setdefault("licences", {})[name.split("@")[0]] = _number("licenses", count or "1")


def _deadline(reading: _Reading, value: str) -> None:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        reading.not_carried("deadline", f"{value!r} is not read; write it like 2026-11-26T18:00")
        return
    reading.spec.setdefault("objective", {})["deadline"] = (at if at.tzinfo else at.astimezone()).isoformat()


def _nice(reading: _Reading, value: str) -> None:
    text = value or "100"
    if text.lstrip("-").isdigit():
        reading.spec["priority"] = max(-1000, min(1000, -int(text)))


def _priority(reading: _Reading, value: str) -> None:
    reading.not_carried("priority", f"{value} counts in one cluster's terms; use --priority of Isthmus (-1000 to 1000)")


def _native(key: str) -> Callable[[_Reading, str], None]:
    def keep(reading: _Reading, value: str) -> None:
        reading.native[key] = value

    return keep


def _split(value: str) -> list[str]:
    return [part for part in value.split(",") if part]


def _set_time(reading: _Reading, value: str) -> None:
    reading.demand["walltime_seconds"] = _minutes(value)


_RULES: dict[str, Callable[[_Reading, str], None]] = {
    "job-name": lambda r, v: r.spec.__setitem__("name", v),
    "comment": lambda r, v: r.spec.__setitem__("description", v),
    "nodes": _nodes,
    "ntasks": lambda r, v: setattr(r, "ntasks", _number("ntasks", v)),
    "ntasks-per-node": lambda r, v: r.demand.__setitem__("tasks_per_node", _number("ntasks-per-node", v)),
    "cpus-per-task": lambda r, v: r.demand.__setitem__("cpus", _number("cpus-per-task", v)),
    "mem": _memory,
    "mem-per-cpu": lambda r, v: setattr(r, "memory_per_cpu", _megabytes("mem-per-cpu", v)),
    "mem-per-gpu": lambda r, v: setattr(r, "memory_per_gpu", _megabytes("mem-per-gpu", v)),
    "time": _set_time,
    "output": _output,
    "error": _error,
    "input": lambda r, v: r.spec.__setitem__("stdin", v),
    "gpus": _gpus,
    "gpus-per-node": lambda r, v: r.demand.__setitem__("accelerators", parse_gpus(v)),
    "gpus-per-task": _gpus_per_task,
    "gpus-per-socket": lambda r, _: r.not_carried("gpus-per-socket", "use --gpus-per-node"),
    "cpus-per-gpu": lambda r, _: r.not_carried("cpus-per-gpu", "use --cpus-per-task"),
    "gres": _gres,
    "tmp": lambda r, v: r.demand.__setitem__("disk_bytes", _megabytes("tmp", v)),
    "partition": lambda r, v: r.constraints.__setitem__("pools_allow", _split(v)),
    "clusters": lambda r, v: r.constraints.__setitem__("sites_allow", _split(v)),
    "account": _native("account"),
    "qos": _native("qos"),
    "constraint": _native("constraint"),
    "reservation": _native("reservation"),
    "licenses": _licences,
    "array": _array,
    "dependency": _dependency,
    "hold": lambda r, _: r.spec.__setitem__("hold", True),
    "deadline": _deadline,
    "nice": _nice,
    "priority": _priority,
    "container-image": lambda r, v: r.spec.__setitem__("image", v),
    "container": lambda r, v: r.spec.__setitem__("image", v),
    "no-requeue": lambda r, _: r.spec.__setitem__("max_attempts", 1),
    "requeue": lambda r, _: r.spec.__setitem__("max_attempts", 3),
}


def _settle(reading: _Reading) -> None:
    """Turn sbatch's totals into figures for each node."""
    demand = reading.demand
    if reading.nodes:
        demand["nodes"] = reading.nodes
    if reading.ntasks and "tasks_per_node" in demand and not reading.nodes:
        demand["nodes"] = ceil(reading.ntasks / demand["tasks_per_node"])
    elif reading.ntasks and "tasks_per_node" not in demand:
        demand["tasks_per_node"] = ceil(reading.ntasks / (reading.nodes or 1))
        if reading.ntasks > 1 and not reading.nodes:
            reading.notes.append(
                f"#SBATCH --ntasks={reading.ntasks} without --nodes: all {reading.ntasks} are asked for on one node."
            )
    nodes, tasks = demand.get("nodes", 1), demand.get("tasks_per_node", 1)
    if reading.gpus_in_all:
        demand["accelerators"]["count"] = ceil(reading.gpus_in_all / nodes)
    if reading.gpus_per_task:
        demand["accelerators"]["count"] = reading.gpus_per_task * tasks
    if reading.memory_per_cpu and "memory_bytes" not in demand:
        demand["memory_bytes"] = reading.memory_per_cpu * demand.get("cpus", 1) * tasks
    if reading.memory_per_gpu and "memory_bytes" not in demand:
        demand["memory_bytes"] = reading.memory_per_gpu * max(1, demand.get("accelerators", {}).get("count", 1))
    reading.native = {key: value for key, value in reading.native.items() if value}
