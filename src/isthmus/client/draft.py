"""A task before it is handed in: the canonical specification, and what of it still lies on the user's machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from isthmus.client.transfer import Progress, quiet, upload
from isthmus.client.wire import Steps, Work
from isthmus.client.workdir import Content, hash_file, scan
from isthmus.domain.dataset import DatasetRef
from isthmus.domain.errors import Invalid, NotFound
from isthmus.domain.task import TaskSpec

STAYS = "@site"  # after a dataset that is an output: its content stays where the task runs
_URL = re.compile(r"(?:https?|s3|site)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInput:
    """A local file or directory that is to be at `path` of the task."""

    path: str
    local: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A task that was read from flags, a file or a call. `notes` are for the user's eyes before it goes."""

    spec: dict[str, Any]
    inputs: tuple[LocalInput, ...] = ()
    workdir: Path | None = None
    fetch: tuple[tuple[str, Path], ...] = ()  # path (or pattern) of an output, where it belongs here
    project: str = ""
    notes: tuple[str, ...] = field(default=())

    def check(self) -> None:
        """Check the specification by the same types that the service uses; Invalid names the field."""
        check_spec(self.spec)


@dataclass(frozen=True, slots=True)
class Packed:
    """A draft whose local files were read: the final specification, and the content that the service must have."""

    spec: dict[str, Any]
    contents: tuple[Content, ...]
    notes: tuple[str, ...] = ()


def check_spec(spec: dict[str, Any]) -> TaskSpec:
    """A specification as the domain type; Invalid names the first field that is wrong."""
    from pydantic import TypeAdapter, ValidationError

    try:
        value: TaskSpec = TypeAdapter(TaskSpec).validate_python(spec)
    except ValidationError as error:
        first = error.errors()[0]
        cause = (first.get("ctx") or {}).get("error")
        where = ".".join(str(part) for part in first["loc"])
        if isinstance(cause, Invalid):
            inner = f"{where}.{cause.field}" if where else cause.field
            raise Invalid(inner, cause.cause, remedy=cause.remedy) from error
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise Invalid(where or "task", f"{message}.", remedy="See the reference of the task file.") from error
    return value


def pack(draft: Draft) -> Packed:
    """Read and hash all local files of a draft. Blocking."""
    spec = dict(draft.spec)
    contents: list[Content] = []
    notes: list[str] = list(draft.notes)
    entries = list(spec.get("inputs", ()))
    for item in draft.inputs:
        if item.local.is_dir():
            found = scan(item.local)
            contents += found.contents
            notes += found.notes
            entries.append({"path": item.path.rstrip("/"), "blob": found.manifest_sha256, "directory": True})
            continue
        content = hash_file(item.local)
        contents.append(content)
        entry: dict[str, Any] = {"path": item.path, "blob": content.sha256}
        if item.local.stat().st_mode & 0o100:
            entry["executable"] = True
        entries.append(entry)
    if entries:
        spec["inputs"] = entries
    if draft.workdir is not None:
        found = scan(draft.workdir)
        contents += found.contents
        notes += found.notes
        spec["workdir_manifest"] = found.manifest_sha256
    return Packed(spec, tuple(contents), tuple(notes))


def prepare(
    draft: Draft, *, project: str, progress: Progress = quiet, say: Callable[[str], None] = lambda _: None
) -> Steps[dict[str, Any]]:
    """Read a draft's local files, bring what is missing to the service, and answer the final specification."""
    packed: Packed = yield Work(lambda: pack(draft))
    for note in packed.notes:
        say(note)
    check_spec(packed.spec)
    yield from upload(packed.contents, project=project, progress=progress)
    return packed.spec


def _parse_data(text: str, base: Path) -> dict[str, Any] | None:
    """`data:PROJECT/NAME[@VERSION][:PATH][=WHERE]` as an input; None for a local file or directory called `data`."""
    source, given, where = text.removeprefix("data:").partition("=")
    if not given and ("/" not in source or (base / "data").exists()):
        return None
    ref = DatasetRef.parse(source)
    return {"path": where or (PurePosixPath(ref.path).name if ref.path else ref.name), "data": str(ref)}


def parse_input(text: str, base: Path) -> dict[str, Any] | LocalInput:
    """`LOCAL[:PATH]`, `URL[:PATH]`, `site://SITE/absolute/path[:PATH]` or a dataset, `data:PROJECT/NAME[@VERSION][:PATH]=WHERE`,
    as an input."""
    if text.startswith("data:") and (named := _parse_data(text, base)) is not None:
        return named
    if _URL.match(text):
        source, path = _split_url(text)
        path = path or PurePosixPath(source.split("?", 1)[0]).name
        if not path:
            raise Invalid("inputs", f"{text!r} has no file name.", remedy="Write URL:PATH.")
        if source.startswith("site://"):
            site, _, rest = source.removeprefix("site://").partition("/")
            return {"path": path, "site_path": f"{site}:/{rest}"}
        return {"path": path, "url": source}
    local, separator, path = text.rpartition(":")
    if not separator:
        local, path = text, ""
    file = base / Path(local).expanduser()
    if not file.exists():
        raise NotFound(
            f"There is no file {str(local)!r} to send.", remedy="Check the path of the input.", code="file_not_found"
        )
    if not path:
        pure = PurePosixPath(local)
        path = pure.name if pure.is_absolute() or ".." in pure.parts or local.startswith("~") else str(pure)
        path = file.resolve().name if path in ("", ".") else path
    return LocalInput(path=path, local=file)


def _split_url(text: str) -> tuple[str, str]:
    scheme, _, rest = text.partition("://")
    host, slash, tail = rest.partition("/")
    source, separator, path = tail.rpartition(":")
    if not slash or not separator:
        return text, ""
    return f"{scheme}://{host}/{source}", path


def parse_output(text: str, base: Path) -> tuple[dict[str, Any], tuple[str, Path] | None]:
    """`PATH`, `PATH=LOCAL`, `PATH=URL` or `PATH=data:PROJECT/NAME` as an output; a path that ends with `/` is a directory. After `@site`
    the dataset's content stays at the site where the task runs."""
    path, separator, target = text.partition("=")
    entry: dict[str, Any] = {"path": path.rstrip("/") or path}
    if path.endswith("/") and path != "/":
        entry["directory"] = True
    if separator and _URL.match(target):
        entry["url"] = target
        return entry, None
    if separator and target.startswith("data:"):
        named = target.removeprefix("data:")
        entry["data"] = str(DatasetRef.parse(named.removesuffix(STAYS)))
        if named.endswith(STAYS):
            entry["stays"] = True
        return entry, None
    default = path.lstrip("/").split("*", 1)[0].split("?", 1)[0].split("[", 1)[0]
    if not separator and default != path.lstrip("/"):
        return entry, (path, base)
    return entry, (path, base / Path(target).expanduser() if separator else base / path.lstrip("/"))


def parse_array(value: object) -> dict[str, Any]:
    """`100`, `0-99`, `1-10:2`, `1,4,9` or `{size, values}` as an array.

    Indices other than 0 to N-1 are handed to the tasks as ISTHMUS_ARRAY_VALUE.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, int) or str(value).strip().isdigit():
        return {"size": int(str(value))}
    numbers = expand_indices(str(value))
    if numbers == list(range(len(numbers))):
        return {"size": len(numbers)}
    return {"size": len(numbers), "values": {"ISTHMUS_ARRAY_VALUE": [str(number) for number in numbers]}}


def expand_indices(text: str) -> list[int]:
    """The numbers of `0-99`, `1-10:2`, `1,4,9`, in the order given."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+))?)?\s*", part)
        if match is None:
            raise Invalid("array", f"{text!r} is not an array.", remedy="Write 100, 0-99, 1-10:2 or 1,4,9.")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1 or last - first > 10_000_000:
            raise Invalid("array", f"{part!r} counts backwards or too far.", remedy="Write it like 0-99.")
        numbers += range(first, last + 1, step)
    return numbers


def parse_gpus(value: object) -> dict[str, Any]:
    """`2`, `a100:2`, `a100` or `{count, kind, memory}` as accelerators for each node."""
    if isinstance(value, int):
        return {"count": value}
    if isinstance(value, dict):
        from isthmus.domain.units import parse_size

        known = dict(value)
        if "memory" in known:
            known["memory_bytes"] = parse_size(known.pop("memory"), "gpus.memory")
        return known
    kind, separator, count = str(value).strip().rpartition(":")
    if not separator and not count.isdigit():
        return {"count": 1, "kind": count.lower()}
    if not count.isdigit():
        raise Invalid("gpus", f"{value!r} is not a number of devices.", remedy="Write 2 or a100:2.")
    return {"count": int(count), "kind": kind.lower()} if kind else {"count": int(count)}


def with_notes(draft: Draft, *notes: str) -> Draft:
    """The draft with more to tell."""
    return replace(draft, notes=(*draft.notes, *notes))
