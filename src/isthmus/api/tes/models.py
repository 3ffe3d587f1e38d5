"""The documents of GA4GH TES 1.1 as types, with the names of the standard.

A field that is null counts as not given; fields that the standard does not know are left out; words that it does not know
are refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SPEC_VERSION = "1.1.0"


class TesState(StrEnum):
    """Where a task is."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    EXECUTOR_ERROR = "EXECUTOR_ERROR"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    CANCELED = "CANCELED"
    PREEMPTED = "PREEMPTED"
    CANCELING = "CANCELING"


class TesView(StrEnum):
    """How much of a task is shown."""

    MINIMAL = "MINIMAL"
    BASIC = "BASIC"
    FULL = "FULL"


class TesFileType(StrEnum):
    """What lies at a path."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("is not a number")
    return value


_Count = Annotated[int, BeforeValidator(_number), Field(ge=0, le=10**8)]
_Size = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")


class TesExecutor(_Document):
    """A command and its surroundings."""

    image: str
    command: list[str]
    workdir: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    env: dict[str, str] | None = None
    ignore_error: bool | None = None


class TesInput(_Document):
    """A file or directory that is there before the first executor starts."""

    name: str | None = None
    description: str | None = None
    url: str | None = None
    path: str
    type: TesFileType | None = None
    content: str | None = None
    streamable: bool | None = None


class TesOutput(_Document):
    """A file, a directory or, by wildcard, several, put at `url` in the end."""

    name: str | None = None
    description: str | None = None
    url: str
    path: str
    path_prefix: str | None = None
    type: TesFileType | None = None


class TesResources(_Document):
    """What the task needs; sizes in GB (10^9 bytes)."""

    cpu_cores: _Count | None = None
    preemptible: bool | None = None
    ram_gb: _Size | None = None
    disk_gb: _Size | None = None
    zones: list[str] | None = None
    backend_parameters: dict[str, str] | None = None
    backend_parameters_strict: bool | None = None


class TesExecutorLog(_Document):
    """How one executor ran."""

    start_time: str | None = None
    end_time: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int


class TesOutputFileLog(_Document):
    """A file that was put somewhere; its size in bytes is text, as the standard has it."""

    url: str
    path: str
    size_bytes: str


class TesTaskLog(_Document):
    """One try of a task."""

    logs: list[TesExecutorLog]
    metadata: dict[str, str] | None = None
    start_time: str | None = None
    end_time: str | None = None
    outputs: list[TesOutputFileLog]
    system_logs: list[str] | None = None


class TesTask(_Document):
    """A task as a client sends it; what only the service sets is not looked at."""

    name: str | None = None
    description: str | None = None
    inputs: list[TesInput] | None = None
    outputs: list[TesOutput] | None = None
    resources: TesResources | None = None
    executors: list[TesExecutor] = Field(min_length=1, max_length=1000)
    volumes: list[str] | None = None
    tags: dict[str, str] | None = None


class TesTaskShown(_Document):
    """A task as it is answered; in the view MINIMAL with `id` and `state` only."""

    id: str
    state: TesState
    name: str | None = None
    description: str | None = None
    inputs: list[TesInput] | None = None
    outputs: list[TesOutput] | None = None
    resources: TesResources | None = None
    executors: list[TesExecutor] | None = None
    volumes: list[str] | None = None
    tags: dict[str, str] | None = None
    logs: list[TesTaskLog] | None = None
    creation_time: str | None = None


class TesListTasksResponse(_Document):
    """A page of tasks; without `next_page_token` it is the last."""

    tasks: list[TesTaskShown]
    next_page_token: str | None = None


class TesCreateTaskResponse(_Document):
    """The new task's id."""

    id: str


class TesCancelTaskResponse(_Document):
    """Nothing."""


class TesServiceType(_Document):
    """What the service implements."""

    group: str
    artifact: str
    version: str


class TesOrganization(_Document):
    """Who provides the service."""

    name: str
    url: str


class TesServiceInfo(_Document):
    """GA4GH service-info with what TES adds to it."""

    id: str
    name: str
    type: TesServiceType
    description: str
    organization: TesOrganization
    version: str
    storage: list[str]
    tesResources_backend_parameters: list[str]  # noqa: N815  (the standard's own name)


class TesOlderServiceInfo(_Document):
    """Service info as TES 1.0 drafts had it, at the address where py-tes asks for it."""

    name: str
    doc: str
    storage: list[str]
