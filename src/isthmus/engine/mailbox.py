"""The mailbox between the engine and the agents of sites: calls wait in the store until an agent fetches and answers them.

A call is delivered at least once: what an agent took and does not hold (its response was lost) is given to it again, what
another agent took is given again after a lease. A call past its expiry is never handed out, so that a submission cannot
arrive after its caller has given up and looked for it. An answer that comes after the expiry is ignored. Answers are told
to a caller in this process at once, to one in another process by a look at the store every `poll_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from isthmus.domain.errors import Busy, Corrupt, Forbidden, IsthmusError, NotFound, Refused, Unavailable
from isthmus.domain.site import SiteState
from isthmus.engine.clock import Clock, new_id
from isthmus.sites import wire
from isthmus.store.database import Database, skip_locked
from isthmus.store.tables import agent_calls as calls
from isthmus.store.tables import sites

log = logging.getLogger(__name__)


class Sealer(Protocol):
    """Makes content unreadable in the store; a context ties it to its row."""

    def seal(self, content: bytes, context: str) -> bytes:
        """The content, sealed."""
        ...

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """What was sealed under this context; Corrupt otherwise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxSettings:
    """Bounds of the mailbox. Durations in seconds."""

    poll_seconds: float = 0.2  # between two looks for what another process did
    lease_seconds: float = 60.0  # a call that another agent took is given again after this
    absent_seconds: float = 90.0  # an agent not seen for this long is not asked: three long polls
    max_open: int = 64  # calls of one site at once
    max_open_data: int = 24  # of these, about datasets
    max_open_logs: int = 24  # of these, reads of logs: people must not crowd the engine out
    max_take_bytes: int = 16 * 1024**2  # of arguments in one delivery, unless one call has more


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One call on its way to an agent. `other_agent`: another agent had it before and may have begun it."""

    id: str
    method: str
    arguments: bytes
    expires_at: float
    other_agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTold:
    """What an agent says of itself: its version, and its clock less ours when its word came."""

    version: str = ""
    clock_offset_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class _Asked:
    site: str
    answer: asyncio.Future[str]


class Mailbox:
    """Asks agents and serves them, over one store; one for each process."""

    def __init__(
        self, database: Database, sealer: Sealer, clock: Clock, settings: MailboxSettings | None = None
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._settings = settings or MailboxSettings()
        self._asked: dict[str, _Asked] = {}
        self._takers: dict[str, set[asyncio.Event]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._withdrawals: set[asyncio.Task[object]] = set()
        self._ending = False

    async def ask(self, site: str, method: str, arguments: bytes, timeout: float) -> str:
        """Post a call and wait for its answer; Unavailable after `timeout` seconds or when the agent is not there, Busy
        when too many calls are open. Withdraws the call when the wait is cancelled."""
        if len(arguments) > wire.MAX_ARGUMENT_BYTES:
            raise Refused("The call is too large for the mailbox.", remedy="Ask for fewer jobs at once.")
        now = self._clock.now()
        call_id = new_id(now)
        sealed = self._sealer.seal(arguments, _context(call_id))
        asked = _Asked(site=site, answer=asyncio.get_running_loop().create_future())
        self._asked[call_id] = asked
        gone = False
        try:
            await self._database.write(_post, self._settings, call_id, site, method, sealed, now, now + timeout)
            self._wake(site)
            self._poll()
            async with asyncio.timeout(timeout):
                answer = await asyncio.shield(asked.answer)
            gone = True
            return answer
        except TimeoutError:
            state, late = await self._database.write(_withdraw, call_id)
            gone = True
            if state == "done":
                return late
            if asked.answer.done() and not asked.answer.cancelled():
                return asked.answer.result()
            done = "did not fetch" if state == "waiting" else "did not answer"
            raise Unavailable(
                f"The agent of {site} {done} {method} within {timeout:.0f} s.",
                remedy="Is the agent running, and its way out open?",
            ) from None
        finally:
            self._asked.pop(call_id, None)
            asked.answer.cancel()
            if not gone:
                self._withdraw_later(call_id)

    async def take(
        self,
        site: str,
        taker: str,
        *,
        holding: Collection[str],
        limit: int,
        wait: float,
        gone: Callable[[], Awaitable[bool]] | None = None,
        told: AgentTold | None = None,
    ) -> list[Delivery]:
        """The next calls for a site's agent, waiting up to `wait` seconds for one. `taker` names the agent (its token's
        id), `holding` the calls that it has and has not had an acknowledged answer for. Counts as a sign of life, with what
        the agent `told` of itself."""
        event = asyncio.Event()
        self._takers.setdefault(site, set()).add(event)
        until = self._clock.monotonic() + wait
        try:
            await self._database.write(_seen, site, self._clock.now(), told or AgentTold())
            while True:
                event.clear()
                if gone is not None and await gone():
                    return []
                found = await self._database.write(
                    _take, self._settings, site, taker, frozenset(holding), limit, self._clock.now()
                )
                if found:
                    return [delivery for row in found if (delivery := self._deliver(row)) is not None]
                left = until - self._clock.monotonic()
                if left <= 0 or limit <= 0 or self._ending:
                    return []
                self._poll()
                with contextlib.suppress(TimeoutError):
                    # Woken early now and then, to notice a caller that hung up.
                    async with asyncio.timeout(min(left, 5.0)):
                        await event.wait()
        finally:
            waiting = self._takers[site]
            waiting.discard(event)
            if not waiting:
                del self._takers[site]

    async def answer(self, site: str, call_id: str, body: str) -> bool:
        """Take an agent's answer; False when nobody waits for it any more. The same answer again changes nothing."""
        if len(body) > wire.MAX_ANSWER_BYTES:
            raise Refused("The answer is too large for the mailbox.", remedy="Answer with less.")
        asked = self._asked.get(call_id)
        if asked is not None:
            if asked.site != site:
                raise NotFound("There is no such call for this site.")
            # The row goes before the agent is told, else its next take would be given the call again.
            await self._database.write(_withdraw, call_id)
            if not asked.answer.done():
                asked.answer.set_result(body)
            return True
        return await self._database.write(_answer, site, call_id, body, self._clock.now())

    async def open_arguments(self, site: str, method: str) -> dict[str, bytes]:
        """The arguments of a site's open calls of one method, by call; decides which blobs its agent may read."""
        rows = await self._database.read(_open, site, method, self._clock.now())
        return {row.id: self._sealer.unseal(row.arguments, _context(row.id)) for row in rows}

    async def open_ids(self, site: str, method: str) -> list[str]:
        """The open calls of one method that the site's agent has."""
        return await self._database.read(_open_ids, site, method, self._clock.now())

    async def has_open(self, site: str, method: str) -> bool:
        """Whether the site has an open call of this method."""
        return bool(await self.open_ids(site, method))

    def end_takes(self) -> None:
        """Answer every agent that waits for a call, and whoever comes, at once: the service stops."""
        self._ending = True
        for site in list(self._takers):
            self._wake(site)

    async def close(self) -> None:
        """Stop looking; who still waits gets Unavailable."""
        self.end_takes()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        for asked in list(self._asked.values()):
            if not asked.answer.done():
                asked.answer.set_exception(Unavailable("The control plane stops."))
        while self._withdrawals:
            await asyncio.gather(*self._withdrawals, return_exceptions=True)

    def _deliver(self, row: _Row) -> Delivery | None:
        try:
            arguments = self._sealer.unseal(row.arguments, _context(row.id))
        except Corrupt as error:
            log.error("call %s cannot be delivered: %s", row.id, error)
            return None
        return Delivery(
            id=row.id,
            method=row.method,
            arguments=arguments,
            expires_at=row.expires_at,
            other_agent=row.other_agent,
        )

    def _wake(self, site: str) -> None:
        for event in self._takers.get(site, ()):
            event.set()

    def _withdraw_later(self, call_id: str) -> None:
        """Remove the row whatever happened to the caller; a task of its own, since the caller may be cancelled."""
        task: asyncio.Task[object] = asyncio.create_task(self._withdraw_quietly(call_id))
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def _withdraw_quietly(self, call_id: str) -> None:
        try:
            await self._database.write(_withdraw, call_id)
        except (IsthmusError, sa.exc.SQLAlchemyError, RuntimeError):
            log.warning("call %s could not be withdrawn; it expires", call_id)

    def _poll(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Look for what other processes posted and answered, while somebody here waits."""
        while self._asked or self._takers:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                if self._asked:
                    for call_id, body in await self._database.read(_answers, list(self._asked)):
                        asked = self._asked.get(call_id)
                        if asked is not None and not asked.answer.done():
                            asked.answer.set_result(body)
                            self._withdraw_later(call_id)
                if self._takers:
                    for site in await self._database.read(_waiting_sites, self._clock.now()):
                        self._wake(site)
            except IsthmusError as error:
                log.warning("the mailbox cannot be read: %s", error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    id: str
    method: str
    arguments: bytes
    expires_at: float
    other_agent: bool


def _context(call_id: str) -> str:
    return f"call:{call_id}"


def _post(
    connection: sa.Connection,
    settings: MailboxSettings,
    call_id: str,
    site: str,
    method: str,
    sealed: bytes,
    now: float,
    expires_at: float,
) -> None:
    seen = connection.execute(sa.select(sites.c.last_seen_at).where(sites.c.name == site)).scalar_one_or_none()
    if seen is None or seen < now - settings.absent_seconds:
        raise Unavailable(
            f"The agent of {site} is not connected.", remedy="Is the agent running, and its way out open?"
        )
    connection.execute(calls.delete().where(calls.c.site == site, calls.c.expires_at <= now))
    open_calls = sa.select(sa.func.count()).where(calls.c.site == site, calls.c.state != "done")
    total = connection.execute(open_calls).scalar_one()
    kind, most = calls.c.method == method, settings.max_open
    if method == "logs":
        most = settings.max_open_logs
    elif method.startswith("data_"):
        kind, most = calls.c.method.startswith("data_"), settings.max_open_data
    else:
        kind = sa.true()
    if total >= settings.max_open or connection.execute(open_calls.where(kind)).scalar_one() >= most:
        raise Busy(f"Too many calls wait for the agent of {site}.", remedy="Try again soon.", retry_after_seconds=2.0)
    connection.execute(
        calls.insert().values(
            id=call_id,
            site=site,
            method=method,
            arguments=sealed,
            state="waiting",
            created_at=now,
            expires_at=expires_at,
        )
    )


def _withdraw(connection: sa.Connection, call_id: str) -> tuple[str, str]:
    """Remove a call; its state and answer, ("", "") when it is gone."""
    row = connection.execute(
        sa.select(calls.c.state, calls.c.answer).where(calls.c.id == call_id).with_for_update()
    ).first()
    if row is None:
        return ("", "")
    connection.execute(calls.delete().where(calls.c.id == call_id))
    return (row.state, row.answer)


def _seen(connection: sa.Connection, site: str, now: float, told: AgentTold) -> None:
    changed = connection.execute(
        sites.update()
        .where(sites.c.name == site, sites.c.mode == "agent", sites.c.state != SiteState.LEFT)
        .values(last_seen_at=now, agent_version=told.version[:63], agent_clock_offset=told.clock_offset_seconds)
    )
    if changed.rowcount == 0:
        raise Forbidden(f"The site {site} is not served by an agent any more.", remedy="Let the site join again.")


def _take(
    connection: sa.Connection,
    settings: MailboxSettings,
    site: str,
    taker: str,
    holding: frozenset[str],
    limit: int,
    now: float,
) -> list[_Row]:
    if holding:
        connection.execute(
            calls.update()
            .where(calls.c.site == site, calls.c.id.in_(sorted(holding)), calls.c.state == "taken")
            .values(taken_at=now)
        )
    if limit <= 0:
        return []
    query = (
        sa.select(calls)
        .where(
            calls.c.site == site,
            calls.c.expires_at > now,
            sa.or_(
                calls.c.state == "waiting",
                # Taken by this agent, which does not have it: the response was lost. Nothing newer overtakes it.
                sa.and_(calls.c.state == "taken", calls.c.taken_by == taker),
                sa.and_(calls.c.state == "taken", calls.c.taken_at < now - settings.lease_seconds),
            ),
            calls.c.id.not_in(sorted(holding)),
        )
        .order_by(calls.c.id)
        .limit(limit)
    )
    found: list[_Row] = []
    size = 0
    for row in connection.execute(skip_locked(query)):
        size += len(row.arguments)
        if found and size > settings.max_take_bytes:
            break
        found.append(
            _Row(
                id=row.id,
                method=row.method,
                arguments=row.arguments,
                expires_at=row.expires_at,
                other_agent=row.taken_by not in ("", taker),
            )
        )
    if found:
        connection.execute(
            calls.update()
            .where(calls.c.id.in_([row.id for row in found if not row.other_agent]))
            .values(state="taken", taken_by=taker, taken_at=now)
        )
        # The first taker stays on record: it is the one that may have begun the call.
        connection.execute(
            calls.update().where(calls.c.id.in_([row.id for row in found if row.other_agent])).values(taken_at=now)
        )
    return found


def _answer(connection: sa.Connection, site: str, call_id: str, body: str, now: float) -> bool:
    changed = connection.execute(
        calls.update()
        .where(calls.c.id == call_id, calls.c.site == site, calls.c.state != "done", calls.c.expires_at > now)
        .values(state="done", answer=body, done_at=now)
    )
    if changed.rowcount:
        return True
    row = connection.execute(sa.select(calls.c.site, calls.c.state).where(calls.c.id == call_id)).first()
    if row is not None and row.site != site:
        raise NotFound("There is no such call for this site.")
    return row is not None and row.state == "done"


def _open(connection: sa.Connection, site: str, method: str, now: float) -> list[sa.Row[tuple[str, bytes]]]:
    query = sa.select(calls.c.id, calls.c.arguments).where(
        calls.c.site == site, calls.c.method == method, calls.c.state == "taken", calls.c.expires_at > now
    )
    return list(connection.execute(query))


def _open_ids(connection: sa.Connection, site: str, method: str, now: float) -> list[str]:
    query = sa.select(calls.c.id).where(
        calls.c.site == site, calls.c.method == method, calls.c.state == "taken", calls.c.expires_at > now
    )
    return list(connection.scalars(query))


def _answers(connection: sa.Connection, ids: list[str]) -> list[tuple[str, str]]:
    query = sa.select(calls.c.id, calls.c.answer).where(calls.c.id.in_(ids), calls.c.state == "done")
    return [(row.id, row.answer) for row in connection.execute(query)]


def _waiting_sites(connection: sa.Connection, now: float) -> list[str]:
    query = sa.select(calls.c.site).distinct().where(calls.c.state == "waiting", calls.c.expires_at > now)
    return list(connection.scalars(query))
