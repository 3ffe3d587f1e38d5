"""Waits for tasks and follows their logs, as steps; asks less often the longer it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isthmus.client import operations
from isthmus.client.records import Attempt, Task
from isthmus.client.wire import Pause, Steps, Together
from isthmus.domain.errors import IsthmusError, NotFound, Unavailable

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LOG_PAUSE_SECONDS = 1.0
CALLS_PER_SECOND = 50  # of one waiting caller, however many tasks
Changed = Callable[[Task], None]


class TaskFailed(IsthmusError):
    """A task ended, but not well; `task` says how."""

    code = "task_failed"

    def __init__(self, task: Task) -> None:
        how = f"exit code {task.exit_code}" if task.exit_code is not None else task.reason or task.state
        super().__init__(
            f"Task {task.id} {task.state}: {how}.{' ' + task.message if task.message else ''}",
            remedy=f"See `isthmus logs {task.id}` and `isthmus why {task.id}`.",
        )
        self.task = task


class StillRunning(IsthmusError):
    """The time that the caller gave is over and the task goes on."""

    code = "still_running"


def _ignore(_task: Task) -> None:
    """Tell nobody."""


def _told(task: Task) -> tuple[object, ...]:
    """What of a task is worth telling when it changes."""
    return (task.state, task.attempt, task.message, task.queue_position)


def wait(ids: Sequence[str], *, timeout_seconds: float | None = None, changed: Changed = _ignore) -> Steps[list[Task]]:
    """Wait until all tasks ended; `changed` is told of each change. StillRunning when the time is over."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    seen: dict[str, Task] = {}
    pause = FIRST_PAUSE_SECONDS
    while True:
        open_ids = [task_id for task_id in ids if task_id not in seen or not seen[task_id].ended]
        fresh: list[Task] = yield Together(tuple(operations.task(task_id) for task_id in open_ids))
        moved = False
        for task in fresh:
            before = seen.get(task.id)
            if before is None or _told(before) != _told(task):
                moved = True
                changed(task)
            seen[task.id] = task
        if all(task_id in seen and seen[task_id].ended for task_id in ids):
            return [seen[task_id] for task_id in ids]
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            running = sum(not task.ended for task in seen.values())
            raise StillRunning(f"{running} of {len(ids)} tasks did not end in time.", remedy="They go on; wait again.")
        pause = FIRST_PAUSE_SECONDS if moved else min(pause * 1.4, LONGEST_PAUSE_SECONDS)
        pause = max(pause, len(open_ids) / CALLS_PER_SECOND)
        yield Pause(pause if left is None else min(pause, left))


@dataclass(slots=True)
class Follower:
    """Where a reader of one stream of one attempt (the live or last when empty) stands."""

    stream: str
    offset: int = 0
    attempt: str = ""
    complete: bool = False

    def restart(self, attempt: str) -> None:
        """Begin anew: another attempt writes another stream."""
        self.attempt = attempt
        self.offset = 0
        self.complete = False


def read_stream(
    task_id: str, follower: Follower, write: Callable[[str, bytes], None], *, rounds: int = 1_000_000
) -> Steps[bool]:
    """Hand on what a stream has now, at most `rounds` pieces; whether there was anything.

    A stream that is not there yet, or a site that does not answer now, is nothing and no error.
    """
    any_bytes = False
    for _ in range(rounds):
        if follower.complete:
            break
        try:
            chunk = yield from operations.logs(
                task_id, stream=follower.stream, offset=follower.offset, attempt=follower.attempt
            )
        except (NotFound, Unavailable):
            break
        follower.offset = chunk.next_offset
        follower.complete = chunk.complete
        if chunk.data:
            any_bytes = True
            write(follower.stream, chunk.data)
        else:
            break
    return any_bytes


def _between(earlier: str, later: str, attempts: Sequence[Attempt]) -> list[str]:
    """The attempts after one (all when it is empty) and before another, oldest first."""
    keys = [one.key for one in attempts]
    first = keys.index(earlier) + 1 if earlier in keys else 0
    last = keys.index(later) if later in keys else len(keys)
    return keys[first:last]


def follow(
    task_id: str,
    *,
    streams: Sequence[str] = ("stdout", "stderr"),
    write: Callable[[str, bytes], None],
    changed: Changed = _ignore,
    offset: int = 0,
    from_first: bool = False,
) -> Steps[Task]:
    """Follow a task to its end: changes to `changed`, bytes of its streams to `write`, across all its attempts.

    When a new attempt begins, its streams are read from their start, after those of attempts that came and went meanwhile;
    `from_first`: also of those before the first look.
    """
    followers = [Follower(stream, offset) for stream in streams]
    attempt = ""
    before: Task | None = None
    pause = FIRST_PAUSE_SECONDS
    while True:
        task = yield from operations.task(task_id)
        if task.attempt != attempt:
            missed: list[str] = []
            if task.attempts > 1 and (attempt or from_first):
                missed = _between(attempt, task.attempt, (yield from operations.attempts(task_id)))
            for follower in followers:
                if attempt:
                    yield from read_stream(task_id, follower, write)  # what the earlier one wrote last
            for key in missed:
                for follower in followers:
                    follower.restart(key)
                    yield from read_stream(task_id, follower, write)
            for follower in followers:
                if attempt or missed:
                    follower.restart(task.attempt)
                follower.attempt = task.attempt
            attempt = task.attempt
        moved = before is None or _told(before) != _told(task)
        if moved:
            changed(task)
        before = task
        busy = False
        if attempt and (task.ended or task.state in ("running", "unknown", "collecting")):
            for follower in followers:
                if (yield from read_stream(task_id, follower, write)):
                    busy = True
        if task.ended:
            return task
        if moved or busy:
            pause = FIRST_PAUSE_SECONDS
        longest = LOG_PAUSE_SECONDS if task.state in ("running", "collecting") else LONGEST_PAUSE_SECONDS
        yield Pause(min(pause, longest))
        pause = min(pause * 1.4, longest)
