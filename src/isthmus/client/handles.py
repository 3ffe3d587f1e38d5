"""Results of finished tasks, and what the handles of the sync and async client share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.client import operations
from isthmus.client.draft import Draft, prepare
from isthmus.client.records import Output, Submitted, Task, _Shown
from isthmus.client.taskfile import command_words, read_task
from isthmus.client.transfer import Progress, fetch, local_path, quiet
from isthmus.client.waiting import Changed, TaskFailed, _ignore, wait
from isthmus.client.wire import Steps, Together
from isthmus.domain.errors import Invalid
from isthmus.domain.task import TaskSpec

Taskish = TaskSpec | Draft | Mapping[str, Any] | str | Sequence[str] | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Result(_Shown):
    """What a task that ended well left behind."""

    task: Task
    outputs: list[Output]

    @property
    def exit_code(self) -> int | None:
        """The exit code of its last program."""
        return self.task.exit_code


def draft_of(task: Taskish, keywords: Mapping[str, Any]) -> Draft:
    """A draft from whatever the caller has: a TaskSpec, a draft, a task document, a command, or keywords as in a task file."""
    if isinstance(task, Draft):
        if keywords:
            raise Invalid(next(iter(keywords)), "is given beside a draft.", remedy="Put it into the draft.")
        return task
    if isinstance(task, TaskSpec):
        from pydantic import TypeAdapter

        spec = TypeAdapter(TaskSpec).dump_python(task, mode="json", exclude_defaults=True)
        extra = read_task(keywords, Path.cwd()) if keywords else Draft(spec={})
        return Draft(spec={**spec, **extra.spec}, inputs=extra.inputs, workdir=extra.workdir, fetch=extra.fetch)
    if isinstance(task, Mapping):
        return read_task({**task, **keywords}, Path.cwd())
    if task is not None:
        keywords = {"command": command_words(task), **keywords}
    return read_task(keywords, Path.cwd())


def submit_draft(
    draft: Draft, *, project: str, idempotency_key: str = "", progress: Progress = quiet
) -> Steps[Submitted]:
    """Bring a draft's content to the service and hand the task in."""
    spec = yield from prepare(draft, project=project, progress=progress)
    return (yield from operations.submit(spec, project=project, idempotency_key=idempotency_key))


def submit_drafts(drafts: Sequence[Draft], *, project: str, idempotency_key: str = "") -> Steps[list[list[str]]]:
    """Bring the content of many drafts to the service and hand them in, all or none."""
    specs: list[dict[str, Any]] = yield Together(tuple(prepare(draft, project=project) for draft in drafts))
    return (yield from operations.submit_batch(specs, project=project, idempotency_key=idempotency_key))


def result(task_id: str, *, timeout_seconds: float | None = None, changed: Changed = _ignore) -> Steps[Result]:
    """Wait for a task and answer what it left; TaskFailed when it did not end well."""
    (task,) = yield from wait([task_id], timeout_seconds=timeout_seconds, changed=changed)
    if not task.succeeded:
        raise TaskFailed(task)
    return Result(task=task, outputs=(yield from operations.outputs(task_id)))


def place_outputs(
    outputs: Sequence[Output], wanted: Sequence[tuple[str, Path]], directory: Path
) -> list[tuple[Output, Path]]:
    """Where each output belongs: by the first of `wanted` (path, directory or pattern of the task; local place) that fits
    it, else under `directory` by its own path."""
    from fnmatch import fnmatchcase

    placed: list[tuple[Output, Path]] = []
    for output in outputs:
        for path, local in wanted:
            clean = path.rstrip("/")
            if output.path == clean:
                placed.append((output, local / Path(clean).name if local.is_dir() else local))
                break
            if output.path.startswith(clean + "/"):
                placed.append((output, local_path(output.path[len(clean) + 1 :], local)))
                break
            if any(sign in path for sign in "*?[") and fnmatchcase(output.path, path):
                fixed = path.split("*", 1)[0].split("?", 1)[0].split("[", 1)[0].rpartition("/")[0]
                tail = output.path[len(fixed) :].lstrip("/") if local != directory else output.path
                placed.append((output, local_path(tail, local)))
                break
        else:
            placed.append((output, local_path(output.path, directory)))
    return placed


def fetch_outputs(
    task_id: str,
    *,
    project: str,
    wanted: Sequence[tuple[str, Path]] = (),
    directory: Path,
    only: Sequence[str] = (),
    progress: Progress = quiet,
) -> Steps[list[Path]]:
    """Fetch a task's outputs (or those of `only`, paths or patterns) and answer where they are."""
    from fnmatch import fnmatchcase

    found = yield from operations.outputs(task_id)
    if only:
        found = [
            item
            for item in found
            if any(fnmatchcase(item.path, name) or item.path.startswith(name.rstrip("/") + "/") for name in only)
        ]
    return (yield from fetch(place_outputs(found, wanted, directory), project=project, progress=progress))
