"""The agent's life: takes calls while the link is there, sends answers until they are acknowledged, stops in peace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from isthmus.agent.journal import Journal
from isthmus.agent.keeping import Keeping
from isthmus.agent.link import Backoff, Link
from isthmus.agent.network import NetworkDoor
from isthmus.agent.runner import Runner
from isthmus.domain.errors import Forbidden, IsthmusError, Refused, Unauthenticated, Unavailable
from isthmus.sites import wire
from isthmus.sites.port import Site

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Bounds of the agent. Durations in seconds."""

    max_held: int = 64  # calls taken and not acknowledged
    senders: int = 4
    quick_at_once: int = 8
    bulk_at_once: int = 4  # of stagings, of collections, and of the rest that moves content
    wait_seconds: float = 25.0  # of one long poll
    full_pause: float = 2.0  # between signs of life while nothing more can be taken
    first_pause: float = 0.5
    most_pause: float = 30.0
    stop_grace: float = 20.0  # for running calls
    flush_grace: float = 5.0  # for answers not yet sent


class Agent:
    """Serves one site's adapter to the control plane behind `link`."""

    def __init__(
        self,
        link: Link,
        site: Site,
        journal: Journal,
        settings: AgentSettings | None = None,
        keeping: Keeping | None = None,
        network: NetworkDoor | None = None,
    ) -> None:
        self._link = link
        self._journal = journal
        self._settings = settings or AgentSettings()
        self._answers: dict[str, str] = {}  # not acknowledged
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._runner = Runner(
            site,
            journal,
            self._queue,
            quick_at_once=self._settings.quick_at_once,
            bulk_at_once=self._settings.bulk_at_once,
            keeping=keeping,
            network=network,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then let running calls end, send what can be sent, and return."""
        for entry in await self._journal.recover():
            log.info("the answer of call %s (%s) from before the start is sent", entry.id, entry.method)
            self._queue(entry.id, entry.answer)
        senders = [asyncio.create_task(self._send()) for _ in range(self._settings.senders)]
        taker = asyncio.create_task(self._take())
        try:
            await stop.wait()
            log.info("the agent stops")
            await _cancel(taker)
            await self._runner.stop(self._settings.stop_grace)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.flush_grace):
                    await self._outbox.join()
        finally:
            await _cancel(taker, *senders)
            await self._runner.stop(0.0)

    def _queue(self, call_id: str, answer: str) -> None:
        if call_id in self._answers:
            return
        self._answers[call_id] = answer
        self._outbox.put_nowait(call_id)

    async def _take(self) -> None:
        backoff = Backoff(first_seconds=self._settings.first_pause, most_seconds=self._settings.most_pause)
        connected = False
        while True:
            holding = self._runner.running | self._answers.keys()
            room = max(0, self._settings.max_held - len(holding))
            wait = self._settings.wait_seconds if room else 0.0
            try:
                calls = await self._link.take(holding=holding, limit=room, wait_seconds=wait)
                await self._runner.accept(calls)
            except IsthmusError as error:
                pause = backoff.next()
                if connected or isinstance(error, Unauthenticated | Forbidden):
                    log.warning("%s Next try in %.1f s.", error, pause)
                connected = False
                await asyncio.sleep(pause)
                continue
            except Exception as error:
                log.error("taking calls broke: %s", type(error).__name__)
                await asyncio.sleep(backoff.next())
                continue
            if not connected:
                log.info("connected")
                connected = True
            backoff.succeeded()
            if not room:
                await asyncio.sleep(self._settings.full_pause)

    async def _send(self) -> None:
        backoff = Backoff(first_seconds=self._settings.first_pause, most_seconds=self._settings.most_pause)
        while True:
            call_id = await self._outbox.get()
            try:
                await self._send_until_settled(call_id, backoff)
            finally:
                self._outbox.task_done()

    async def _send_until_settled(self, call_id: str, backoff: Backoff) -> None:
        while True:
            if await self._send_once(call_id):
                backoff.succeeded()
                return
            await asyncio.sleep(backoff.next())

    async def _send_once(self, call_id: str) -> bool:
        """Whether the answer is settled."""
        try:
            await self._link.answer(call_id, self._answers[call_id])
        except Refused as error:
            log.error("the answer of call %s was refused: %s", call_id, error)
            if self._answers[call_id] == _TOO_MUCH:
                self._answers.pop(call_id)  # an answer for nobody
                await self._tell_journal(call_id)
                return True
            self._answers[call_id] = _TOO_MUCH
            return False
        except IsthmusError:
            return False
        await self._tell_journal(call_id)
        self._answers.pop(call_id, None)
        return True

    async def _tell_journal(self, call_id: str) -> None:
        try:
            await self._journal.told(call_id)
        except Unavailable as error:
            log.error("%s", error)


_TOO_MUCH = wire.encode_failure(Unavailable("The control plane did not take the agent's answer.")).decode()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
