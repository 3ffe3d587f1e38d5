"""The client for asyncio: the same operations as the sync one, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from isthmus.client import administration, handles, operations, waiting
from isthmus.client.config import Profile, find_profile
from isthmus.client.draft import Draft, pack
from isthmus.client.records import Attempt, Event, Output, Site, Task, UsageRecord, html_table
from isthmus.client.sending import AsyncSender
from isthmus.client.sync import event_params
from isthmus.client.wire import Steps, Work
from isthmus.domain.placement import Receipt

T = TypeVar("T")


class AsyncClient:
    """A connection to Isthmus for asyncio, as an async context manager; configured like `Client`."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        project: str | None = None,
        *,
        profile: Profile | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.profile = profile or find_profile(url, token, project)
        self._sender = AsyncSender(self.profile, transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient(url={self.profile.url!r}, project={self.profile.project!r})"

    async def close(self) -> None:
        """Let go of connections; tasks go on."""
        await self._sender.close()

    async def run(self, steps: Steps[T]) -> T:
        """Perform any operation of `isthmus.client.operations` or `administration`."""
        return await self._sender.run(steps)

    async def submit(
        self, task: handles.Taskish = None, *, project: str = "", idempotency_key: str = "", **keywords: Any
    ) -> AsyncHandle | AsyncArrayHandle:
        """Hand in a task; see `Client.submit`."""
        draft = handles.draft_of(task, keywords)
        where = project or draft.project or self.profile.project
        done = await self.run(handles.submit_draft(draft, project=where, idempotency_key=idempotency_key))
        if done.array_id:
            return AsyncArrayHandle(self, [AsyncHandle(self, one) for one in done.ids], done.array_id)
        return AsyncHandle(self, done.ids[0], done.task, draft)

    async def submit_many(
        self, tasks: Sequence[handles.Taskish], *, project: str = "", idempotency_key: str = ""
    ) -> list[AsyncArrayHandle]:
        """Hand in many tasks, all or none; they may wait for each other by name (`after`)."""
        drafts = [handles.draft_of(task, {}) for task in tasks]
        where = project or (drafts[0].project if drafts else "") or self.profile.project
        ids = await self.run(handles.submit_drafts(drafts, project=where, idempotency_key=idempotency_key))
        return [AsyncArrayHandle(self, [AsyncHandle(self, one) for one in group]) for group in ids]

    async def plan(self, task: handles.Taskish = None, *, project: str = "", **keywords: Any) -> Receipt:
        """Where a task would go, when, for how much, and why not elsewhere; nothing is stored or sent."""
        draft = handles.draft_of(task, keywords)
        where = project or draft.project or self.profile.project

        def steps() -> Steps[Receipt]:
            packed = yield Work(lambda: pack(draft))
            return (yield from operations.plan(packed.spec, project=where, unsent=True))

        return await self.run(steps())

    def handle(self, task_id: str) -> AsyncHandle:
        """A handle of a task that was submitted earlier."""
        return AsyncHandle(self, task_id)

    async def task(self, task_id: str) -> Task:
        """One task as it is now."""
        return await self.run(operations.task(task_id))

    async def tasks(self, *, limit: int | None = 100, **filters: Any) -> AsyncIterator[Task]:
        """Tasks, newest first, by `project state site user name array_id tag since`; all of them with `limit=None`."""
        cursor: str | None = ""
        left = limit
        while cursor is not None and (left is None or left > 0):
            size = operations.PAGE if left is None else min(left, operations.PAGE)
            page = await self.run(operations.tasks(**filters, limit=size, cursor=cursor))
            for task in page.items:
                yield task
            cursor = page.next_cursor
            left = None if left is None else left - len(page.items)

    async def usage(self, **filters: Any) -> AsyncIterator[UsageRecord]:
        """Usage records by `project site user since`, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self.run(operations.usage(**filters, cursor=cursor))
            for record in page.items:
                yield record
            cursor = page.next_cursor

    async def sites(self) -> list[Site]:
        """All sites."""
        return await self.run(administration.sites())

    async def site(self, name: str) -> Site:
        """One site."""
        return await self.run(administration.site(name))

    async def cancel(self, task_id: str) -> Task:
        """Ask that a task ends."""
        return await self.run(operations.cancel(task_id))

    def events(
        self, *, project: str = "", task_id: str = "", last_id: str = "", follow: bool = True
    ) -> AsyncIterator[Event]:
        """What happens, as it happens; goes on after `last_id`, and by itself after a broken connection."""
        return self._sender.events(event_params(project, task_id, follow), last_id, follow)


class AsyncHandle:
    """One task that was handed in."""

    def __init__(self, client: AsyncClient, task_id: str, task: Task | None = None, draft: Draft | None = None) -> None:
        self._client = client
        self._draft = draft
        self._task = task
        self.id = task_id

    def __repr__(self) -> str:
        task = self._task
        known = (self.id, task.name, task.state, task.site) if task else (self.id,)
        return f"<Task {' '.join(filter(None, known))}>"

    def _repr_html_(self) -> str:
        return html_table("Task", self._task._rows() if self._task else [("id", self.id)])

    async def refresh(self) -> Task:
        """The task as it is now."""
        self._task = await self._client.task(self.id)
        return self._task

    async def wait(self, timeout_seconds: float | None = None) -> Task:
        """Wait for the end, good or bad; StillRunning when the time is over."""
        (self._task,) = await self._client.run(waiting.wait([self.id], timeout_seconds=timeout_seconds))
        return self._task

    async def result(self, timeout_seconds: float | None = None) -> handles.Result:
        """Wait for a good end; TaskFailed says how a bad one came about."""
        result = await self._client.run(handles.result(self.id, timeout_seconds=timeout_seconds))
        self._task = result.task
        return result

    async def fetch(self, directory: str | Path | None = None, *, only: Sequence[str] = ()) -> list[Path]:
        """Fetch the outputs under `directory`; without one to the places that the submission named. Checked by hash."""
        task = self._task or await self.refresh()
        wanted = self._draft.fetch if self._draft and directory is None else ()
        steps = handles.fetch_outputs(
            self.id, project=task.project, wanted=wanted, directory=Path(directory or "."), only=only
        )
        return await self._client.run(steps)

    async def logs(self, *, stream: str = "stdout") -> str:
        """The text of a stream so far."""
        pieces: list[bytes] = []
        steps = waiting.read_stream(self.id, waiting.Follower(stream), lambda _, data: pieces.append(data))
        await self._client.run(steps)
        return b"".join(pieces).decode(errors="replace")

    async def cancel(self) -> Task:
        """Ask that it ends."""
        self._task = await self._client.cancel(self.id)
        return self._task

    async def attempts(self) -> list[Attempt]:
        """Its tries."""
        return await self._client.run(operations.attempts(self.id))

    async def outputs(self) -> list[Output]:
        """Its files."""
        return await self._client.run(operations.outputs(self.id))

    async def why(self) -> list[Receipt]:
        """The decisions about it."""
        return await self._client.run(operations.receipts(self.id))


class AsyncArrayHandle:
    """Several tasks that were handed in together."""

    def __init__(self, client: AsyncClient, tasks: list[AsyncHandle], array_id: str = "") -> None:
        self._client = client
        self.tasks = tasks
        self.array_id = array_id

    def __repr__(self) -> str:
        return f"<{len(self.tasks)} tasks {self.array_id}>"

    def __len__(self) -> int:
        return len(self.tasks)

    async def wait(self, timeout_seconds: float | None = None) -> list[Task]:
        """Wait for the end of all."""
        ids = [handle.id for handle in self.tasks]
        return await self._client.run(waiting.wait(ids, timeout_seconds=timeout_seconds))

    async def result(self, timeout_seconds: float | None = None) -> list[handles.Result]:
        """Wait for a good end of all; TaskFailed for the first that did not."""
        for task in await self.wait(timeout_seconds):
            if not task.succeeded:
                raise waiting.TaskFailed(task)
        return [await handle.result() for handle in self.tasks]

    async def cancel(self) -> None:
        """Ask that all end."""
        if self.array_id:
            await self._client.run(operations.cancel_many(array_id=self.array_id))
        else:
            await self._client.run(operations.cancel_many(ids=[handle.id for handle in self.tasks]))
