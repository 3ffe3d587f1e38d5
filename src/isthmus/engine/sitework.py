"""Runs all the work of one site while its lease holds: five loops, each woken early when there is something to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from isthmus.domain.errors import IsthmusError, Unavailable
from isthmus.domain.lifecycle import AttemptState, EndReason
from isthmus.engine import accounting, collecting, describing, dispatching, observing
from isthmus.engine.delivering import Deliver
from isthmus.engine.describing import store_error
from isthmus.engine.leases import LostLease
from isthmus.engine.transitions import Move
from isthmus.engine.work import SiteWork, update_attempts

log = logging.getLogger(__name__)
_PARKABLE = frozenset({AttemptState.PLACED, AttemptState.STAGING, AttemptState.COLLECTING})
_AT_ONCE = 4  # batches of one site staged, or collected, side by side


class SiteWorker:
    """One site's loops. `run` ends when the lease is lost or the task is cancelled."""

    def __init__(self, work: SiteWork, deliver: Deliver) -> None:
        self.work = work
        self._deliver = deliver
        self._suspects: set[str] = set()

    async def run(self) -> None:
        """Work until the lease is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._repeat("describe", self._describe, self.work.describe_due))
                group.create_task(
                    self._batches(group, "dispatch", dispatching.take, self._dispatch, self.work.dispatch_due)
                )
                group.create_task(self._repeat("observe", self._observe, self.work.observe_due))
                group.create_task(
                    self._batches(group, "collect", collecting.take, self._collect, self.work.collect_due)
                )
                group.create_task(self._repeat("account", self._account, self.work.account_due))
        except* LostLease:
            log.info("site %s: its work is done by another process now", self.work.name)

    async def _describe(self) -> float:
        self.work.describe_due.clear()
        await describing.describe(self.work)
        settings = self.work.settings
        if await self.work.database.read(describing.is_idle, self.work.name):
            return max(settings.describe_interval, settings.idle_describe_interval)
        return settings.describe_interval

    async def _observe(self) -> float:
        clock = self.work.clock
        begun = clock.monotonic()
        looked_at = await observing.observe(self.work)
        self.work.observe_due.clear()
        spent = clock.monotonic() - begun
        return max(self.work.settings.poll_interval, spent) if looked_at else self.work.settings.poll_interval

    async def _account(self) -> float:
        moved = await accounting.account(self.work)
        return self.work.settings.poll_interval / 2 if moved else self.work.settings.poll_interval

    async def _dispatch(self, rows: Sequence[Any]) -> None:
        await dispatching.dispatch(self.work, rows)

    async def _collect(self, rows: Sequence[Any]) -> None:
        await collecting.collect(self.work, rows, self._deliver)

    async def _repeat(self, what: str, step: Callable[[], Awaitable[float]], due: asyncio.Event) -> None:
        """Run a step again and again, after the time it asks for or when woken; a site that fails is asked less often."""
        failures = 0
        while True:
            try:
                pause = await step()
                failures = 0
            except LostLease:
                raise
            except Exception as error:
                failures += 1
                pause = min(30.0, self.work.settings.poll_interval * 2 ** min(failures, 5))
                await self._failed(what, error)
            await self._wait(due, pause, floor=0.05 if what == "account" else self._floor(what))

    def _floor(self, what: str) -> float:
        """However often it is woken, a site is not looked at more often than this."""
        if what == "describe":
            return self.work.settings.describe_interval
        return min(0.5, self.work.settings.poll_interval) if what == "observe" else 0.02

    async def _batches(
        self,
        group: asyncio.TaskGroup,
        what: str,
        take: Callable[[SiteWork], Coroutine[Any, Any, list[Any]]],
        handle: Callable[[Sequence[Any]], Coroutine[Any, Any, None]],
        due: asyncio.Event,
    ) -> None:
        """Take batches of due attempts and handle a few of them side by side, so that a slow one holds up no other."""
        room = asyncio.Semaphore(_AT_ONCE)
        while True:
            await room.acquire()
            due.clear()
            try:
                rows = await take(self.work)
            except LostLease:
                raise
            except Exception as error:
                await self._failed(what, error)
                rows = []
            suspects = [row for row in rows if row.key in self._suspects]
            rest = [row for row in rows if row.key not in self._suspects]
            if rows:
                group.create_task(self._handle(what, handle, rest, suspects, room))
            else:
                room.release()
                await self._wait(due, self.work.settings.poll_interval, floor=0.0)

    async def _handle(
        self,
        what: str,
        handle: Callable[[Sequence[Any]], Coroutine[Any, Any, None]],
        rows: Sequence[Any],
        suspects: Sequence[Any],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            for part in filter(None, (list(rows), *([row] for row in suspects))):
                try:
                    await handle(part)
                    self._suspects.difference_update(row.key for row in part)
                except LostLease:
                    raise
                except Exception as error:
                    await self._failed(what, error)
                    await self._put_off(part)
        finally:
            self.work.in_hand.difference_update(row.key for row in (*rows, *suspects))
            room.release()

    async def _put_off(self, rows: Sequence[Any]) -> None:
        """Something broke that is nobody's answer. Each of the rows is handled alone from now on, so that one bad row
        holds up no other; one that breaks alone again and again is parked as failed (POISON)."""
        settings, now = self.work.settings, self.work.clock.now()
        alone = len(rows) == 1
        self._suspects.update(row.key for row in rows)
        parked = [row for row in rows if alone and row.tries + 1 >= settings.poison_tries and row.state in _PARKABLE]
        changes = [
            {"which": row.key, "tries": row.tries + alone, "due_at": now + self.work.delay(row.tries if alone else 0)}
            for row in rows
            if row not in parked
        ]
        message = "Handling it broke again and again; the service's log says how."
        try:
            await self.work.database.write(update_attempts, self.work.lease, changes, ("tries", "due_at"))
            await self.work.apply(
                [Move(key=r.key, to=AttemptState.FAILED, reason=EndReason.POISON, message=message) for r in parked]
            )
        except LostLease:
            raise
        except IsthmusError as error:
            log.warning("site %s: %s", self.work.name, error)

    async def _failed(self, what: str, error: Exception) -> None:
        if isinstance(error, Unavailable | TimeoutError | OSError):
            log.warning("site %s: %s: %s", self.work.name, what, error)
            if isinstance(error, Unavailable) and what != "collect":
                try:
                    await self.work.database.write(
                        store_error, self.work.lease, self.work.name, self.work.clock.now(), str(error)
                    )
                except LostLease:
                    raise
                except IsthmusError as also:
                    log.warning("site %s: %s", self.work.name, also)
        else:
            log.error("site %s: %s failed", self.work.name, what, exc_info=error)

    async def _wait(self, due: asyncio.Event, pause: float, *, floor: float) -> None:
        """Sleep for `pause`, or until woken, but at least for `floor`."""
        if floor:
            await self.work.clock.sleep(floor)
        waiter = asyncio.ensure_future(due.wait())
        sleeper = asyncio.ensure_future(self.work.clock.sleep(max(0.0, pause - floor)))
        try:
            await asyncio.wait((waiter, sleeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            sleeper.cancel()
        due.clear()
