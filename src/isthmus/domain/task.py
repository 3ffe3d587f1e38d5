"""A task: what a user asks for, with demand, objective and constraints (GA4GH TES task, ITU-T task service).

Every type checks its own invariants and names the field that breaks one. The REST face validates
straight into these types, so that there is one definition of a valid task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, ClassVar

from isthmus.domain.dataset import DatasetRef
from isthmus.domain.errors import Invalid
from isthmus.domain.ids import is_name, is_sha256

MAX_ARRAY = 10_000
MAX_INLINE_BYTES = 131_072
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LICENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}")  # it becomes a part of one option of the scheduler
_IMAGE = re.compile(r"(?!-)[!-~]*")  # a container runtime would take one that begins with - for an option
_URL = re.compile(r"(https?|s3)://[^\s]+")
_TARGET = re.compile(r"((https?|s3)://|file:///)[^\s]+")
SIGNALS = ("TERM", "INT", "HUP", "USR1", "USR2")  # that a preemptible task may be warned by
FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}  # read by pydantic at the edge; plain data here


def _at_least(field_name: str, value: float, least: float) -> None:
    if value < least:
        raise Invalid(field_name, f"is {value}.", remedy=f"It must be {least} or more.")


def _text(field_name: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise Invalid(field_name, f"has {len(value)} characters.", remedy=f"At most {longest} are allowed.")
    if "\0" in value:
        raise Invalid(field_name, "holds a NUL character.", remedy="Remove it.")


def _environment(field_name: str, names: Mapping[str, str]) -> None:
    for name, value in names.items():
        if _ENV_NAME.fullmatch(name) is None:
            raise Invalid(
                f"{field_name}.{name}",
                "is not a variable name.",
                remedy="Use letters, digits and _, no digit first.",
            )
        _text(f"{field_name}.{name}", value, MAX_INLINE_BYTES)


def _path(field_name: str, value: str) -> None:
    _text(field_name, value, 4096)
    if not value or "\n" in value:
        raise Invalid(field_name, "is empty or holds a line break.", remedy="Give a path such as data/in.csv.")
    if ".." in PurePosixPath(value).parts:
        raise Invalid(field_name, f"{value!r} leaves the task's directory.", remedy="Do not use `..`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerators:
    """Devices wanted on each node: how many, of which kind (`a100`; empty = any), with how much memory each."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    count: int = 0
    kind: str = ""
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        _at_least("count", self.count, 0)
        _at_least("memory_bytes", self.memory_bytes, 0)
        if self.kind and not is_name(self.kind):
            raise Invalid("kind", f"{self.kind!r} is not a kind.", remedy="Write it like a100 or mi250.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the task needs: `cpus` for each of `tasks_per_node` ranks on `nodes` nodes; memory and disk for each node."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    nodes: int = 1
    tasks_per_node: int = 1
    cpus: int = 1
    memory_bytes: int = 512 * 1024**2
    accelerators: Accelerators = field(default_factory=Accelerators)
    disk_bytes: int = 0
    walltime_seconds: int = 3600
    licences: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("nodes", "tasks_per_node", "cpus", "walltime_seconds"):
            _at_least(name, getattr(self, name), 1)
            if getattr(self, name) > 10**8:
                raise Invalid(name, f"is {getattr(self, name)}.", remedy="It must be at most 100000000.")
        _at_least("memory_bytes", self.memory_bytes, 1024**2)
        _at_least("disk_bytes", self.disk_bytes, 0)
        for name, count in self.licences.items():
            if _LICENCE.fullmatch(name) is None:
                raise Invalid(f"licences.{name[:80]}", "is not a licence's name.", remedy="Write it like matlab.")
            _at_least(f"licences.{name}", count, 1)

    @property
    def cpus_per_node(self) -> int:
        """Processors needed on each node."""
        return self.cpus * self.tasks_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """One program of a task; several run one after another, each only if the one before succeeded."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    command: tuple[str, ...] = ()
    image: str = ""
    workdir: str = ""
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    ignore_error: bool = False

    def __post_init__(self) -> None:
        if not self.command and not self.image:
            raise Invalid("command", "is empty and there is no image.", remedy="Give a command, an image, or both.")
        for index, word in enumerate(self.command):
            _text(f"command.{index}", word, MAX_INLINE_BYTES)
        _text("image", self.image, 1024)
        if _IMAGE.fullmatch(self.image) is None:
            raise Invalid("image", f"{self.image[:80]!r} is not an image's name.", remedy="Write it like alpine:3.20.")
        _environment("env", self.env)
        for name in ("workdir", "stdin", "stdout", "stderr"):
            if getattr(self, name):
                _path(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file (or directory) that is at `path` before the task starts.

    Exactly one source: `blob` (SHA-256 of uploaded content; of a manifest for a directory), `url`
    (http, https, s3), `site_path` (`SITE:/absolute/path`), `data` (`PROJECT/NAME[@VERSION][:PATH]`: a dataset, or a file or
    directory in it), or `content` (text, inline).
    A relative `path` lies in the task's directory; an absolute one only means something in a container.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    path: str
    blob: str = ""
    url: str = ""
    site_path: str = ""
    data: str = ""
    content: str | None = None
    directory: bool = False
    executable: bool = False
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        _path("path", self.path)
        given = [n for n in ("blob", "url", "site_path", "data") if getattr(self, n)] + (
            ["content"] if self.content is not None else []
        )
        if len(given) != 1:
            raise Invalid(
                "blob",
                f"{len(given)} sources are given ({', '.join(given) or 'none'}).",
                remedy="Give exactly one of blob, url, site_path, data, content.",
            )
        if self.blob and not is_sha256(self.blob):
            raise Invalid("blob", f"{self.blob[:80]!r} is not a SHA-256.", remedy="Give 64 hexadecimal digits.")
        if self.url and _URL.fullmatch(self.url) is None:
            raise Invalid("url", f"{self.url[:200]!r} cannot be fetched.", remedy="Use http://, https:// or s3://.")
        if self.site_path:
            site, _, path = self.site_path.partition(":")
            if not is_name(site) or not path.startswith("/"):
                raise Invalid("site_path", f"{self.site_path!r} has no site.", remedy="Write SITE:/absolute/path.")
        if self.data:
            DatasetRef.parse(self.data)
        if self.content is not None and len(self.content.encode()) > MAX_INLINE_BYTES:
            raise Invalid("content", "is too long.", remedy=f"Upload content over {MAX_INLINE_BYTES} bytes as a blob.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file (or, with wildcards, several; or a directory) that the task leaves at `path`, and where it goes.

    Without `url` it is kept by content hash and handed to the caller; with `url` (s3, http, https, or file below a
    directory that the service's operator allows) it is also put there; with `data` (`PROJECT/NAME`) it becomes part of the next
    version of that dataset, whose content, with `stays`, is kept at the site where the task ran and comes nowhere else by itself.
    `path_prefix`: see `engine.delivering`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    path: str
    url: str = ""
    data: str = ""
    stays: bool = False
    directory: bool = False
    required: bool = True
    path_prefix: str = ""
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        _path("path", self.path)
        if self.url and _TARGET.fullmatch(self.url) is None:
            raise Invalid("url", f"{self.url[:200]!r} cannot be written.", remedy="Use s3://, http:// or https://.")
        if self.data:
            ref = DatasetRef.parse(self.data)
            if ref.version or ref.path:
                raise Invalid("data", f"{self.data!r} names more than a dataset.", remedy="Write PROJECT/NAME.")
        if self.stays and (not self.data or self.url):
            raise Invalid("stays", "goes with data, and without url.", remedy="Name the dataset, PROJECT/NAME.")


class Goal(StrEnum):
    """What to prefer among the plans that are allowed."""

    SOONEST = "soonest"
    CHEAPEST = "cheapest"
    GREENEST = "greenest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much time, money and carbon count, each relative to the task's best plan for it; only the ratios matter."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    time: float = 0.0
    money: float = 0.0
    carbon: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time", "money", "carbon"):
            if not 0 <= getattr(self, name) <= 1e6:
                raise Invalid(name, f"is {getattr(self, name)}.", remedy="It must be from 0 to 1000000.")
        if not self.time + self.money + self.carbon > 0:
            raise Invalid("time", "and the other weights are 0.", remedy="Give at least one of them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the user wants most, by when (`deadline`, with time zone) and for how much (`budget`).

    `weights` between the goals take the place of `goal`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    goal: Goal = Goal.SOONEST
    weights: Weights | None = None
    deadline: datetime | None = None
    budget: Decimal | None = None

    def __post_init__(self) -> None:
        if self.deadline is not None and self.deadline.tzinfo is None:
            raise Invalid("deadline", "has no time zone.", remedy="Write it like 2026-11-26T18:00:00+08:00.")
        if self.budget is not None and (not self.budget.is_finite() or self.budget < 0):
            raise Invalid("budget", f"is {self.budget}.", remedy="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Where the task may go; an empty allow list allows all, a deny list always wins.

    `apart` names a group: no two live tasks of one user and one group are at the same site.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    sites_allow: tuple[str, ...] = ()
    sites_deny: tuple[str, ...] = ()
    pools_allow: tuple[str, ...] = ()
    regions_allow: tuple[str, ...] = ()
    regions_deny: tuple[str, ...] = ()
    trust: str = ""
    apart: str = ""

    def __post_init__(self) -> None:
        if self.apart and not is_name(self.apart):
            raise Invalid("apart", f"{self.apart[:80]!r} is not a group's name.", remedy="Write it like replicas.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """Many tasks from one: `size` copies that see ISTHMUS_ARRAY_INDEX, and for each name in `values` that variable."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    size: int
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_ARRAY:
            raise Invalid("size", f"is {self.size}.", remedy=f"It must be from 1 to {MAX_ARRAY}.")
        for name, values in self.values.items():
            _environment("values", {name: ""})
            if len(values) != self.size:
                raise Invalid(f"values.{name}", f"has {len(values)} entries.", remedy=f"Give {self.size}.")


PARTS = 2  # sites that a group's tasks may be over


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """A group of `parts` tasks that start together, each at another site (co-allocation): all are placed in one round, or none.

    Without `name` this one description is every part; with it, it is one part, and the user's other tasks of that name in the project
    are the rest. A part that starts before the others waits for them at its site, for `hold_seconds` at most.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    parts: int = PARTS
    name: str = ""
    hold_seconds: int = 600

    def __post_init__(self) -> None:
        if self.parts != PARTS:
            raise Invalid(
                "parts", f"is {self.parts}.", remedy=f"A group is over {PARTS} sites: leave it out, or give {PARTS}."
            )
        if self.name and not is_name(self.name):
            raise Invalid("name", f"{self.name[:80]!r} is not a group's name.", remedy="Write it like coupled-run.")
        if not 1 <= self.hold_seconds <= 86_400:
            raise Invalid("hold_seconds", f"is {self.hold_seconds}.", remedy="It must be from 1 to 86400.")


class DependencyCondition(StrEnum):
    """When a dependency is satisfied: the other task succeeded, or ended in whatever way."""

    SUCCEEDED = "succeeded"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """The task waits for another: its id, or within one submission the other's `name`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    task: str
    condition: DependencyCondition = DependencyCondition.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """Everything a user says about a task. `command`/`image` are short for a single executor."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN
    name: str = ""
    description: str = ""
    command: tuple[str, ...] = ()
    image: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    executors: tuple[Executor, ...] = ()
    workdir_manifest: str = ""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    volumes: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    demand: Demand = field(default_factory=Demand)
    objective: Objective = field(default_factory=Objective)
    constraints: Constraints = field(default_factory=Constraints)
    priority: int = 0
    max_attempts: int = 3
    retry_on_exit: bool = False
    preemptible: bool = False
    checkpoint: tuple[str, ...] = ()
    checkpoint_signal: str = "TERM"
    checkpoint_grace_seconds: int = 60
    tags: dict[str, str] = field(default_factory=dict)
    array: Array | None = None
    together: Together | None = None
    depends_on: tuple[Dependency, ...] = ()
    hold: bool = False
    backend_parameters: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _text("name", self.name, 255)
        _text("description", self.description, 65_536)
        if self.executors and (self.command or self.image):
            raise Invalid("executors", "are given beside command or image.", remedy="Give one or the other.")
        if not self.executors:
            Executor(
                command=self.command,
                image=self.image,
                stdin=self.stdin,
                stdout=self.stdout,
                stderr=self.stderr,
            )
        if self.workdir_manifest and not is_sha256(self.workdir_manifest):
            raise Invalid("workdir_manifest", "is not a SHA-256.", remedy="Give 64 hexadecimal digits.")
        for index, volume in enumerate(self.volumes):
            _path(f"volumes.{index}", volume)
        _environment("env", self.env)
        _environment("secrets", self.secrets)
        both = self.env.keys() & self.secrets.keys()
        if both:
            raise Invalid("secrets", f"{min(both)} is also in env.", remedy="Name each variable once.")
        if not -1000 <= self.priority <= 1000:
            raise Invalid("priority", f"is {self.priority}.", remedy="It must be from -1000 to 1000.")
        if not 1 <= self.max_attempts <= 20:
            raise Invalid("max_attempts", f"is {self.max_attempts}.", remedy="It must be from 1 to 20.")
        self._check_checkpoint()
        self._check_together()
        for key, value in self.tags.items():
            _text("tags", key, 255)
            _text(f"tags.{key}", value, 4096)
        paths = [item.path for item in self.inputs]
        for path in paths:
            if paths.count(path) > 1 and len(paths) < 1000:
                raise Invalid("inputs", f"{path!r} is named twice.", remedy="Give each input a path of its own.")

        self._check_absolute()

    def _check_checkpoint(self) -> None:
        for index, path in enumerate(self.checkpoint):
            _path(f"checkpoint.{index}", path)
            if path.startswith("/"):
                raise Invalid(f"checkpoint.{index}", f"{path!r} is absolute.", remedy="Use a path in its directory.")
        if self.checkpoint and not self.preemptible:
            raise Invalid("checkpoint", "is given, but the task is not preemptible.", remedy="Set preemptible: true.")
        if self.checkpoint_signal not in SIGNALS:
            raise Invalid(
                "checkpoint_signal",
                f"{self.checkpoint_signal[:20]!r} is not a signal that it can be warned by.",
                remedy=f"Use one of {', '.join(SIGNALS)}.",
            )
        if not 1 <= self.checkpoint_grace_seconds <= 3600:
            raise Invalid(
                "checkpoint_grace_seconds",
                f"is {self.checkpoint_grace_seconds}.",
                remedy="It must be from 1 to 3600.",
            )

    def _check_together(self) -> None:
        if self.together is None:
            return
        if self.array is not None:
            raise Invalid("together", "is given beside array.", remedy="Hand in each group by itself.")
        if self.preemptible:
            raise Invalid("together", "is given, but the task is preemptible.", remedy="Leave out one of the two.")

    @property
    def size(self) -> int:
        """How many tasks are made of it."""
        if self.array is not None:
            return self.array.size
        return self.together.parts if self.together is not None and not self.together.name else 1

    def _check_absolute(self) -> None:
        """An absolute path means nothing at a site unless every step has a root of its own."""
        if all(step.image for step in self.steps):
            return
        named = [(f"inputs.{index}.path", item.path) for index, item in enumerate(self.inputs)]
        named += [(f"outputs.{index}.path", item.path) for index, item in enumerate(self.outputs)]
        for field_name, path in named:
            if path.startswith("/"):
                raise Invalid(
                    field_name,
                    f"{path!r} is absolute, which only means something in a container.",
                    remedy="Use a path relative to the working directory, or give every step an image.",
                )

    @property
    def steps(self) -> tuple[Executor, ...]:
        """The programs to run, in order; never empty."""
        if self.executors:
            return self.executors
        return (
            Executor(
                command=self.command,
                image=self.image,
                stdin=self.stdin,
                stdout=self.stdout,
                stderr=self.stderr,
            ),
        )
