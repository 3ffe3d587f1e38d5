"""The client that blocks: one method for each operation, and handles of tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from isthmus.client import administration, handles, operations, waiting
from isthmus.client.config import Profile, find_profile
from isthmus.client.draft import Draft, pack
from isthmus.client.records import Attempt, Event, Output, Site, Task, UsageRecord, html_table
from isthmus.client.sending import Sender
from isthmus.client.wire import Steps
from isthmus.domain.placement import Receipt

T = TypeVar("T")


class Client:
    """A connection to Isthmus, as a context manager.

    >>> with Client() as client:
    ...     handle = client.submit("python train.py", cpus=4, memory="8G", workdir=".", outputs=["model.bin"])
    ...     print(handle.result().outputs)

    Address, token and project come from the arguments, the environment (ISTHMUS_URL, ISTHMUS_TOKEN or
    ISTHMUS_TOKEN_FILE, ISTHMUS_PROJECT), the profile file, or the service of this machine, in this order.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        project: str | None = None,
        *,
        profile: Profile | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.profile = profile or find_profile(url, token, project)
        self._sender = Sender(self.profile, transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client(url={self.profile.url!r}, project={self.profile.project!r})"

    def close(self) -> None:
        """Let go of connections; tasks go on."""
        self._sender.close()

    def run(self, steps: Steps[T]) -> T:
        """Perform any operation of `isthmus.client.operations` or `administration`."""
        return self._sender.run(steps)

    def submit(
        self, task: handles.Taskish = None, *, project: str = "", idempotency_key: str = "", **keywords: Any
    ) -> Handle | ArrayHandle:
        """Hand in a task: a TaskSpec, a document or keywords as in a task file, or a command. Local inputs and the working
        directory are uploaded first, as far as they are not there yet."""
        draft = handles.draft_of(task, keywords)
        where = project or draft.project or self.profile.project
        done = self.run(handles.submit_draft(draft, project=where, idempotency_key=idempotency_key))
        if done.array_id:
            return ArrayHandle(self, [Handle(self, one) for one in done.ids], done.array_id)
        return Handle(self, done.ids[0], done.task, draft)

    def submit_many(
        self, tasks: Sequence[handles.Taskish], *, project: str = "", idempotency_key: str = ""
    ) -> list[ArrayHandle]:
        """Hand in many tasks, all or none; they may wait for each other by name (`after`)."""
        drafts = [handles.draft_of(task, {}) for task in tasks]
        where = project or (drafts[0].project if drafts else "") or self.profile.project
        ids = self.run(handles.submit_drafts(drafts, project=where, idempotency_key=idempotency_key))
        return [ArrayHandle(self, [Handle(self, one) for one in group]) for group in ids]

    def plan(self, task: handles.Taskish = None, *, project: str = "", **keywords: Any) -> Receipt:
        """Where a task would go, when, for how much, and why not elsewhere; nothing is stored or sent."""
        draft = handles.draft_of(task, keywords)
        where = project or draft.project or self.profile.project
        return self.run(operations.plan(pack(draft).spec, project=where, unsent=True))

    def handle(self, task_id: str) -> Handle:
        """A handle of a task that was submitted earlier."""
        return Handle(self, task_id)

    def task(self, task_id: str) -> Task:
        """One task as it is now."""
        return self.run(operations.task(task_id))

    def tasks(self, *, limit: int | None = 100, **filters: Any) -> Iterator[Task]:
        """Tasks, newest first, by `project state site user name array_id tag since`; all of them with `limit=None`."""
        cursor: str | None = ""
        left = limit
        while cursor is not None and (left is None or left > 0):
            size = operations.PAGE if left is None else min(left, operations.PAGE)
            page = self.run(operations.tasks(**filters, limit=size, cursor=cursor))
            yield from page.items
            cursor = page.next_cursor
            left = None if left is None else left - len(page.items)

    def usage(self, **filters: Any) -> Iterator[UsageRecord]:
        """Usage records by `project site user since`, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.run(operations.usage(**filters, cursor=cursor))
            yield from page.items
            cursor = page.next_cursor

    def sites(self) -> list[Site]:
        """All sites."""
        return self.run(administration.sites())

    def site(self, name: str) -> Site:
        """One site."""
        return self.run(administration.site(name))

    def cancel(self, task_id: str) -> Task:
        """Ask that a task ends."""
        return self.run(operations.cancel(task_id))

    def events(
        self, *, project: str = "", task_id: str = "", last_id: str = "", follow: bool = True
    ) -> Iterator[Event]:
        """What happens, as it happens; goes on after `last_id`, and by itself after a broken connection."""
        return self._sender.events(event_params(project, task_id, follow), last_id, follow)


def event_params(project: str, task_id: str, follow: bool) -> dict[str, str]:
    """The parameters of an event stream."""
    given = {"project": project, "task_id": task_id, "follow": "" if follow else "false"}
    return {name: value for name, value in given.items() if value}


class Handle:
    """One task that was handed in."""

    def __init__(self, client: Client, task_id: str, task: Task | None = None, draft: Draft | None = None) -> None:
        self._client = client
        self._draft = draft
        self._task = task
        self.id = task_id

    def __repr__(self) -> str:
        task = self._task
        known = (self.id, task.name, task.state, task.site) if task else (self.id,)
        return f"<Task {' '.join(filter(None, known))}>"

    def _repr_html_(self) -> str:
        rows = self._task._rows() if self._task else [("id", self.id)]
        return html_table("Task", rows)

    def refresh(self) -> Task:
        """The task as it is now."""
        self._task = self._client.task(self.id)
        return self._task

    @property
    def state(self) -> str:
        """The task's state now."""
        return self.refresh().state

    def done(self) -> bool:
        """Whether it ended."""
        return self.refresh().ended

    def wait(self, timeout_seconds: float | None = None) -> Task:
        """Wait for the end, good or bad; StillRunning when the time is over."""
        (self._task,) = self._client.run(waiting.wait([self.id], timeout_seconds=timeout_seconds))
        return self._task

    def result(self, timeout_seconds: float | None = None) -> handles.Result:
        """Wait for a good end; TaskFailed says how a bad one came about."""
        result = self._client.run(handles.result(self.id, timeout_seconds=timeout_seconds))
        self._task = result.task
        return result

    def fetch(self, directory: str | Path | None = None, *, only: Sequence[str] = ()) -> list[Path]:
        """Fetch the outputs under `directory`; without one to the places that the submission named. Checked by hash."""
        task = self._task or self.refresh()
        wanted = self._draft.fetch if self._draft and directory is None else ()
        steps = handles.fetch_outputs(
            self.id, project=task.project, wanted=wanted, directory=Path(directory or "."), only=only
        )
        return self._client.run(steps)

    def logs(self, *, stream: str = "stdout", follow: bool = False) -> str:
        """The text of a stream so far; with `follow` it is printed as it comes, until the task ends."""
        pieces: list[bytes] = []

        def keep(_stream: str, data: bytes) -> None:
            pieces.append(data)
            if follow:
                sys.stdout.write(data.decode(errors="replace"))
                sys.stdout.flush()

        if follow:
            self._task = self._client.run(waiting.follow(self.id, streams=[stream], write=keep))
        else:
            self._client.run(waiting.read_stream(self.id, waiting.Follower(stream), keep))
        return b"".join(pieces).decode(errors="replace")

    def cancel(self) -> Task:
        """Ask that it ends."""
        self._task = self._client.cancel(self.id)
        return self._task

    def attempts(self) -> list[Attempt]:
        """Its tries."""
        return self._client.run(operations.attempts(self.id))

    def outputs(self) -> list[Output]:
        """Its files."""
        return self._client.run(operations.outputs(self.id))

    def why(self) -> list[Receipt]:
        """The decisions about it."""
        return self._client.run(operations.receipts(self.id))


class ArrayHandle:
    """Several tasks that were handed in together."""

    def __init__(self, client: Client, tasks: list[Handle], array_id: str = "") -> None:
        self._client = client
        self.tasks = tasks
        self.array_id = array_id

    def __repr__(self) -> str:
        return f"<{len(self.tasks)} tasks {self.array_id}>"

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Handle]:
        return iter(self.tasks)

    def __getitem__(self, index: int) -> Handle:
        return self.tasks[index]

    def wait(self, timeout_seconds: float | None = None) -> list[Task]:
        """Wait for the end of all."""
        ids = [handle.id for handle in self.tasks]
        return self._client.run(waiting.wait(ids, timeout_seconds=timeout_seconds))

    def result(self, timeout_seconds: float | None = None) -> list[handles.Result]:
        """Wait for a good end of all; TaskFailed for the first that did not."""
        for task in self.wait(timeout_seconds):
            if not task.succeeded:
                raise waiting.TaskFailed(task)
        return [handle.result() for handle in self.tasks]

    def cancel(self) -> None:
        """Ask that all end."""
        if self.array_id:
            self._client.run(operations.cancel_many(array_id=self.array_id))
        else:
            self._client.run(operations.cancel_many(ids=[handle.id for handle in self.tasks]))
