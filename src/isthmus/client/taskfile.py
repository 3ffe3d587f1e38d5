"""Tasks as people write them in YAML (or as keywords in Python), mapped to the canonical specification.

Human forms (`memory: 8G`, `time: 2h`, `gpus: a100:2`) and the canonical names (`demand: {...}`) may be mixed. A file holds
one task, several documents, or `tasks:` with `defaults:`. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from isthmus.client.draft import Draft, LocalInput, parse_array, parse_gpus, parse_input, parse_output
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.task import TaskSpec
from isthmus.domain.units import parse_duration, parse_size

_CANONICAL = frozenset(item.name for item in fields(TaskSpec)) - {"inputs", "outputs", "array", "command"}


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple | set | frozenset):
        return [str(item) for item in value]
    return [str(value)]


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise Invalid("env", "is not a mapping.", remedy="Write NAME: value lines.")
    return {str(name): _scalar(item) for name, item in value.items()}


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _count(value: object) -> object:
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdigit() else value


def moment(value: object, field: str = "deadline") -> object:
    """ISO 8601, `+6h` from now; a time without zone is the user's own. Invalid for text that is no time."""
    if isinstance(value, str):
        if value.startswith("+"):
            from datetime import timedelta

            return (datetime.now().astimezone() + timedelta(seconds=parse_duration(value[1:], field))).isoformat()
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise Invalid(field, f"{value!r} is not a time.", remedy="Write 2026-11-26T18:00 or +6h.") from error
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    if isinstance(value, date):
        raise Invalid(field, "has no hour.", remedy="Write 2026-11-26T18:00.")
    return value


def _dependencies(value: object) -> list[dict[str, str]]:
    items = value if isinstance(value, list | tuple) else _words(value)
    return [dict(item) if isinstance(item, Mapping) else _dependency(str(item)) for item in items]


def _dependency(text: str) -> dict[str, str]:
    name, _, condition = text.partition(":")
    return {"task": name, "condition": condition} if condition else {"task": name}


def _together(value: object) -> dict[str, Any]:
    """A group's name, or `{parts, name, hold_seconds}`."""
    if isinstance(value, Mapping):
        return dict(value)
    return {"name": str(value)}


# human name -> (where it goes in the specification, how it is read)
_HUMAN: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "cpus": (("demand", "cpus"), _count),
    "memory": (("demand", "memory_bytes"), lambda value: parse_size(value, "memory")),
    "time": (("demand", "walltime_seconds"), lambda value: parse_duration(value, "time")),
    "nodes": (("demand", "nodes"), _count),
    "tasks_per_node": (("demand", "tasks_per_node"), _count),
    "gpus": (("demand", "accelerators"), parse_gpus),
    "disk": (("demand", "disk_bytes"), lambda value: parse_size(value, "disk")),
    "licences": (("demand", "licences"), dict),
    "licenses": (("demand", "licences"), dict),
    "goal": (("objective", "goal"), str),
    "weights": (("objective", "weights"), dict),
    "deadline": (("objective", "deadline"), moment),
    "budget": (("objective", "budget"), str),
    "sites": (("constraints", "sites_allow"), _words),
    "not_sites": (("constraints", "sites_deny"), _words),
    "pools": (("constraints", "pools_allow"), _words),
    "regions": (("constraints", "regions_allow"), _words),
    "not_regions": (("constraints", "regions_deny"), _words),
    "trust": (("constraints", "trust"), str),
    "apart": (("constraints", "apart"), str),
    "retries": (("max_attempts",), lambda value: int(value) + 1),
    "checkpoint": (("checkpoint",), _words),
    "checkpoint_grace": (("checkpoint_grace_seconds",), lambda value: parse_duration(value, "checkpoint_grace")),
    "after": (("depends_on",), _dependencies),
    "array": (("array",), parse_array),
    "over": (("together", "parts"), _count),
    "together": (("together",), _together),
    "together_hold": (("together", "hold_seconds"), lambda value: parse_duration(value, "together_hold")),
    "env": (("env",), _texts),
    "secrets": (("secrets",), _texts),
    "tags": (("tags",), _texts),
    "site_options": (("backend_parameters",), _texts),
    "steps": (("executors",), lambda value: [_executor(item) for item in value]),
    "executors": (("executors",), lambda value: [_executor(item) for item in value]),
}
_SPECIAL = frozenset({"command", "script", "inputs", "outputs", "workdir", "project"})
KEYS = tuple(sorted(_HUMAN.keys() | _SPECIAL | _CANONICAL))


def _executor(item: object) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        return {"command": command_words(item)}
    step = dict(item)
    if "command" in step:
        step["command"] = command_words(step["command"])
    if "env" in step:
        step["env"] = _texts(step["env"])
    return step


def command_words(value: object) -> list[str]:
    """A command as a list of words; a text is a shell's (`/bin/sh -c`)."""
    if isinstance(value, str):
        return ["/bin/sh", "-c", value]
    if isinstance(value, list | tuple):
        return [_scalar(word) for word in value]
    raise Invalid("command", "is neither a text nor a list.", remedy='Write command: "python train.py".')


def read_task(document: Mapping[str, Any], base: Path) -> Draft:
    """One task; relative local paths lie under `base`. Invalid names the key that is wrong."""
    spec: dict[str, Any] = {}
    inputs: list[LocalInput] = []
    fetch: list[tuple[str, Path]] = []
    workdir: Path | None = None
    for key, value in document.items():
        name = str(key).replace("-", "_")
        if value is None:
            continue
        if name in _HUMAN:
            place, take = _HUMAN[name]
            _put(spec, place, _taken(name, take, value))
        elif name == "command":
            spec["command"] = command_words(value)
        elif name == "script":
            spec["command"] = ["/bin/sh", "-e", "-c", str(value)]
        elif name == "inputs":
            _read_inputs(value, base, spec, inputs)
        elif name == "outputs":
            _read_outputs(value, base, spec, fetch)
        elif name == "workdir":
            workdir = base / Path(str(value)).expanduser()
        elif name == "project":
            continue
        elif name in _CANONICAL:
            spec[name] = {**value, **spec.get(name, {})} if isinstance(value, Mapping) else value
        else:
            near = get_close_matches(name, KEYS, 1)
            raise Invalid(
                str(key), "is not a key of a task.", remedy=f"Did you mean {near[0]!r}?" if near else "Remove it."
            )
    return Draft(
        spec=spec,
        inputs=tuple(inputs),
        workdir=workdir,
        fetch=tuple(fetch),
        project=str(document.get("project") or ""),
    )


def _taken(name: str, take: Callable[[Any], Any], value: object) -> Any:
    try:
        return take(value)
    except Invalid:
        raise
    except (TypeError, ValueError) as error:
        raise Invalid(name, f"{value!r} cannot be read.", remedy="See `isthmus submit --help`.") from error


def _put(spec: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    if len(place) == 1:
        before = spec.get(place[0])
        spec[place[0]] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        return
    spec[place[0]] = {**spec.get(place[0], {}), place[1]: value}


def _read_inputs(value: object, base: Path, spec: dict[str, Any], inputs: list[LocalInput]) -> None:
    if isinstance(value, Mapping):
        items: list[Any] = [
            f"{source}={path}" if str(source).startswith("data:") else f"{source}:{path}"
            for path, source in value.items()
        ]
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if isinstance(item, Mapping):
            entry = dict(item)
            if "file" in entry:
                local = base / Path(str(entry["file"])).expanduser()
                inputs.append(LocalInput(path=str(entry.get("path") or local.name), local=local))
                continue
            spec.setdefault("inputs", []).append(entry)
            continue
        found = item if isinstance(item, LocalInput) else parse_input(str(item), base)
        if isinstance(found, LocalInput):
            inputs.append(found)
        else:
            spec.setdefault("inputs", []).append(found)


def _read_outputs(value: object, base: Path, spec: dict[str, Any], fetch: list[tuple[str, Path]]) -> None:
    if isinstance(value, Mapping):
        items: list[Any] = [f"{path}={target}" if target else path for path, target in value.items()]
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if isinstance(item, Mapping):
            entry = dict(item)
            local = entry.pop("to", None)
            if local:
                fetch.append((str(entry.get("path")), base / Path(str(local)).expanduser()))
            elif "url" not in entry and "data" not in entry:
                fetch.append((str(entry.get("path")), base / str(entry.get("path")).lstrip("/")))
            spec.setdefault("outputs", []).append(entry)
            continue
        entry, target = parse_output(str(item), base)
        spec.setdefault("outputs", []).append(entry)
        if target:
            fetch.append(target)


def read_file(path: Path) -> list[Draft]:
    """All tasks of a YAML file; relative paths lie beside the file."""
    import yaml

    try:
        text = path.read_text()
    except OSError as error:
        raise NotFound(
            f"{str(path)!r} cannot be read: {error.strerror}.", remedy="Check the path.", code="file_not_found"
        ) from error
    try:
        documents = [item for item in yaml.safe_load_all(text) if item is not None]
    except yaml.YAMLError as error:
        raise Invalid(str(path), f"is not YAML: {error}", remedy="Correct the line it names.") from error
    drafts: list[Draft] = []
    for document in documents:
        if not isinstance(document, Mapping):
            raise Invalid(str(path), "is not a task.", remedy="Begin with lines such as `command: ./run.sh`.")
        if "tasks" not in document:
            drafts.append(read_task(document, path.parent))
            continue
        if extra := sorted(document.keys() - {"tasks", "defaults", "project"}):
            raise Invalid(str(extra[0]), "stands beside `tasks`.", remedy="Put it under `defaults:`.")
        defaults = dict(document.get("defaults") or {})
        if "project" in document:
            defaults["project"] = document["project"]
        drafts += [read_task(merge(defaults, item), path.parent) for item in document["tasks"]]
    if not drafts:
        raise Invalid(str(path), "holds no task.", remedy="Begin with lines such as `command: ./run.sh`.")
    return drafts


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two task documents as one: the second wins, mappings are joined."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        result[key] = {**below, **value} if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
