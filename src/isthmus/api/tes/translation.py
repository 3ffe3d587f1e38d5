"""What a TES document means: the task specification, the document to keep, and what the client should be told.

Fields that only a service sets (id, state, logs) and backend parameters that this one does not support are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from isthmus.api.tes.models import TesExecutor, TesFileType, TesInput, TesOutput, TesResources, TesTask
from isthmus.domain.errors import Invalid
from isthmus.domain.task import Accelerators, Constraints, Demand, Executor, Input, Output, TaskSpec

GB: Final = 10**9
DEFAULT_MEMORY_BYTES: Final = 2 * GB  # where the document asks for none
LEAST_MEMORY_BYTES: Final = 16 * 1024**2
OWN_PARAMETERS: Final = {
    "project": "project that the task belongs to",
    "walltime_seconds": "longest time that it may run",
    "site": "site to run at",
    "pool": "pool to run in",
    "priority": "-1000 to 1000",
    "max_attempts": "tries at sites that fail it, 1 to 20",
    "nodes": "number of nodes",
    "accelerators": "devices on each node",
    "accelerator_kind": "kind of the devices, such as a100",
    "accelerator_memory_gb": "memory of each device",
}
# Handed to the site's own scheduler, which says which of them it takes.
PASSED_PARAMETERS: Final = ("account", "constraint", "exclusive", "nice", "qos", "reservation", "wckey")
PARAMETERS: Final = (*OWN_PARAMETERS, *PASSED_PARAMETERS)
Kind = TypeVar("Kind")
_FETCHED = re.compile(r"(https?|s3)://[^\s/][^\s]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_STARS = re.compile(r"\*{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A document's meaning; `kept` is what GET answers of it, `warnings` go to the system log."""

    spec: TaskSpec
    kept: TesTask
    warnings: tuple[str, ...]
    project: str  # empty: the caller's own choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An input whose content was taken from this host: the hash of the file, or of the directory's manifest."""

    sha256: str
    executable: bool = False


def is_local(item: TesInput) -> bool:
    """Whether an input is to be taken from this host's own file system."""
    return not item.content and item.url is not None and item.url.startswith(("file:", "/"))


def translate(document: TesTask, taken: Mapping[int, Taken], *, walltime_seconds: int) -> Translation:
    """The meaning of a document whose local inputs were taken in already, by index; Invalid names a wrong field."""
    resources = document.resources or TesResources()
    parameters, unknown = _parameters(resources)
    warnings = [f"The backend parameter {name} is not supported and was left out." for name in unknown]
    inputs = document.inputs or []
    if any(item.streamable for item in inputs):
        warnings.append("Inputs marked streamable are fetched whole before the first executor starts.")
    spec = TaskSpec(
        name=document.name or "",
        description=document.description or "",
        executors=tuple(_executor(f"executors.{index}", item) for index, item in enumerate(document.executors)),
        inputs=tuple(_input(f"inputs.{index}", item, taken.get(index)) for index, item in enumerate(inputs)),
        outputs=tuple(_output(f"outputs.{index}", item) for index, item in enumerate(document.outputs or [])),
        volumes=tuple(_folder(f"volumes.{index}", path) for index, path in enumerate(document.volumes or [])),
        demand=_demand(resources, parameters, walltime_seconds),
        constraints=Constraints(
            regions_allow=tuple(resources.zones or ()),
            sites_allow=_names(parameters, "site"),
            pools_allow=_names(parameters, "pool"),
        ),
        priority=_whole(parameters, "priority", 0, least=-1000, most=1000),
        max_attempts=_whole(parameters, "max_attempts", 3, least=1, most=20),
        preemptible=bool(resources.preemptible),
        tags=dict(document.tags or {}),
        backend_parameters={name: parameters[name] for name in PASSED_PARAMETERS if name in parameters},
    )
    kept = document
    if unknown:
        supported = {k: v for k, v in (resources.backend_parameters or {}).items() if k.lower() in PARAMETERS}
        kept = document.model_copy(
            update={"resources": resources.model_copy(update={"backend_parameters": supported or None})}
        )
    return Translation(spec=spec, kept=kept, warnings=tuple(warnings), project=parameters.get("project", ""))


def _parameters(resources: TesResources) -> tuple[dict[str, str], list[str]]:
    """Supported backend parameters by their lower-case name, and those that are not; Invalid when that is not allowed."""
    given = resources.backend_parameters or {}
    unknown = [name for name in given if name.lower() not in PARAMETERS]
    if unknown and resources.backend_parameters_strict:
        raise Invalid(
            f"resources.backend_parameters.{unknown[0]}",
            "is not supported here, and backend_parameters_strict is set.",
            remedy=f"Supported: {', '.join(PARAMETERS)}.",
        )
    return {name.lower(): value for name, value in given.items() if name.lower() in PARAMETERS}, unknown


def _demand(resources: TesResources, parameters: Mapping[str, str], walltime_seconds: int) -> Demand:
    memory = round((resources.ram_gb or 0) * GB) or DEFAULT_MEMORY_BYTES
    return Demand(
        nodes=_whole(parameters, "nodes", 1, least=1, most=100_000),
        cpus=resources.cpu_cores or 1,
        memory_bytes=max(LEAST_MEMORY_BYTES, memory),
        disk_bytes=round((resources.disk_gb or 0) * GB),
        walltime_seconds=_whole(parameters, "walltime_seconds", walltime_seconds, least=1, most=10**8),
        accelerators=Accelerators(
            count=_whole(parameters, "accelerators", 0, least=0, most=1024),
            kind=parameters.get("accelerator_kind", ""),
            memory_bytes=_whole(parameters, "accelerator_memory_gb", 0, least=0, most=10**6) * GB,
        ),
    )


def _executor(field: str, item: TesExecutor) -> Executor:
    if not item.image:
        raise Invalid(f"{field}.image", "is empty.", remedy="Name a container image.")
    if not item.command or not item.command[0]:
        raise Invalid(f"{field}.command", "is empty.", remedy="Give the program and its arguments.")
    with_field: dict[str, Any] = {
        name: _file(f"{field}.{name}", value)
        for name in ("stdin", "stdout", "stderr")
        if (value := getattr(item, name))
    }
    if item.workdir and _path(f"{field}.workdir", item.workdir) != "/":
        with_field["workdir"] = _path(f"{field}.workdir", item.workdir)
    return _named(
        field,
        Executor,
        command=tuple(item.command),
        image=item.image,
        env=dict(item.env or {}),
        ignore_error=bool(item.ignore_error),
        **with_field,
    )


def _input(field: str, item: TesInput, taken: Taken | None) -> Input:
    directory = item.type is TesFileType.DIRECTORY
    path = (_folder if directory else _file)(f"{field}.path", item.path)
    known = {"path": path, "name": item.name or "", "description": item.description or "", "directory": directory}
    if taken is not None:
        return _named(field, Input, blob=taken.sha256, executable=taken.executable, **known)
    if item.content or (item.content is not None and not item.url):
        if directory:
            raise Invalid(f"{field}.type", "is DIRECTORY, and content is given.", remedy="Content makes a FILE.")
        return _named(field, Input, content=item.content, **known)
    if not item.url:
        raise Invalid(f"{field}.url", "is missing.", remedy="Give url, or content.")
    if _FETCHED.fullmatch(item.url) is None:
        raise Invalid(f"{field}.url", f"{item.url[:200]!r} cannot be fetched.", remedy="Use s3, https, http or file.")
    if directory and not item.url.startswith("s3://"):
        raise Invalid(f"{field}.url", "cannot be fetched as a DIRECTORY.", remedy="Use an s3:// or file:// address.")
    return _named(field, Input, url=item.url, **known)


def _output(field: str, item: TesOutput) -> Output:
    directory = item.type is TesFileType.DIRECTORY
    path, wild = _pattern((_folder if directory else _file)(f"{field}.path", item.path))
    prefix = ""
    if wild:
        if not item.path_prefix:
            raise Invalid(f"{field}.path_prefix", "is missing.", remedy="Give it when path holds wildcards.")
        prefix = _path(f"{field}.path_prefix", item.path_prefix)
    url = item.url if not item.url.startswith("/") else f"file://{item.url}"
    return _named(
        field,
        Output,
        path=path,
        path_prefix=prefix,
        url=url,
        directory=directory,
        required=not wild,
        name=item.name or "",
        description=item.description or "",
    )


def _pattern(path: str) -> tuple[str, bool]:
    """A POSIX pattern in the words of `fnmatch`, where a backslash does not quote; and whether it is one at all."""
    bare = _ESCAPED.sub("", path)
    wild = any(mark in bare for mark in "*?[")
    return _STARS.sub("*", _ESCAPED.sub(lambda found: _quote(found[1]), path)), wild


def _quote(mark: str) -> str:
    return f"[{mark}]" if mark in "*?[" else mark


def _path(field: str, value: str) -> str:
    if not value.startswith("/"):
        raise Invalid(field, f"{value[:200]!r} is not an absolute path.", remedy="Write /data/x.")
    if ".." in value.split("/"):
        raise Invalid(field, f"{value[:200]!r} leads out of its directory.", remedy="Do not use `..`.")
    if "\0" in value or "\n" in value:
        raise Invalid(field, "holds a NUL or a line break.", remedy="Remove it.")
    slashes = re.sub(r"/{2,}", "/", value)
    return slashes.rstrip("/") or "/"


def _folder(field: str, value: str) -> str:
    path = _path(field, value)
    if path == "/":
        raise Invalid(field, "is the root of the container.", remedy="Use a directory in it, such as /data.")
    return path


def _file(field: str, value: str) -> str:
    path = _folder(field, value)
    if path.count("/") < 2:
        raise Invalid(field, f"{path[:200]!r} lies in the root of the container.", remedy="Put it in /data or so.")
    return path


def _whole(parameters: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise Invalid(
            f"resources.backend_parameters.{name}",
            f"{text[:80]!r} is not allowed.",
            remedy=f"Give a whole number from {least} to {most}.",
        )
    return value


def _names(parameters: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in parameters.get(name, "").split(",") if part.strip())


def _named(field: str, kind: type[Kind], **values: Any) -> Kind:
    """A value of a domain type; what is wrong with it is named by its place in the document."""
    try:
        return kind(**values)
    except Invalid as error:
        raise Invalid(f"{field}.{error.field}", error.cause, remedy=error.remedy) from None
