"""QUEUED, RUNNING, UNKNOWN → what the site says: one look for all attempts of a site, and the cancels they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from isthmus.domain.errors import IsthmusError, Unavailable
from isthmus.domain.lifecycle import AttemptState
from isthmus.engine.failpoints import failpoint
from isthmus.engine.jobs import reference
from isthmus.engine.judgement import judge, unseen
from isthmus.engine.withdrawing import MOVE, grace_of, is_wanted_back
from isthmus.engine.work import SiteWork, update_attempts
from isthmus.sites.port import Observation, Sighting
from isthmus.store import tables

log = logging.getLogger(__name__)
_A = AttemptState
_AT_ONCE = 20_000  # attempts of one site looked at together
_CANCEL_AGAIN_SECONDS = 20.0


async def observe(work: SiteWork) -> int:
    """Look once at everything this site may have; answers how many attempts were looked at."""
    now = work.clock.now()
    first_time = tables.attempts.c.negatives < 2
    rows = await work.load((_A.SUBMITTING,), _AT_ONCE, now=now, where=first_time)
    rows += await work.load((_A.QUEUED, _A.RUNNING, _A.UNKNOWN), _AT_ONCE, now=now)
    if not rows:
        return 0
    work.check_ours()
    await _let_go(
        work, [row for row in rows if row.let_go_at and not row.let_go_sent_at and not is_wanted_back(row)], now
    )
    await _cancel(work, [row for row in rows if is_wanted_back(row) and not _is_to_move(row)], now)
    try:
        async with asyncio.timeout(work.settings.call_timeout):
            seen = await work.adapter.observe([reference(row) for row in rows])
    except (Unavailable, TimeoutError, OSError) as error:
        moves = [unseen(row, work.clock.now(), work.settings, str(error)) for row in rows]
        await work.apply([move for move in moves if move is not None])
        raise
    failpoint("observe.seen")
    waiting = {key for key, observation in seen.items() if observation.sighting is Sighting.QUEUED}
    await _move(work, [row for row in rows if _is_to_move(row) and row.key in waiting], now)
    await _write(work, rows, seen)
    failpoint("observe.written")
    await _drop_surplus(work, seen)
    return len(rows)


async def _write(work: SiteWork, rows: Sequence[Any], seen: Mapping[str, Observation]) -> None:
    now = work.clock.now()
    missing = Observation(sighting=Sighting.UNSEEN, message="The site did not answer for it.")
    moves = [judge(row, seen.get(row.key, missing), now, work.settings) for row in rows if row.key not in work.in_hand]
    changed = [move for move in moves if move is not None]
    await work.apply(changed)
    if any(move.to is _A.COLLECTING for move in changed):
        work.collect_due.set()
        work.wake_placement()
    if any(move.to is _A.SUBMITTING for move in changed):
        work.dispatch_due.set()
    gangs = {row.key for row in rows if row.gang and row.let_go_at is None}
    if any(move.to in (_A.LOST, _A.CANCELLED) or (move.to is _A.RUNNING and move.key in gangs) for move in changed):
        work.wake_placement()


async def _let_go(work: SiteWork, rows: Sequence[Any], now: float) -> None:
    """Tell held jobs to start; again at the next look, should the site have missed it."""
    if not rows:
        return
    work.check_ours()
    try:
        async with asyncio.timeout(work.settings.call_timeout):
            await work.adapter.let_go([reference(row) for row in rows])
    except (Unavailable, TimeoutError, OSError) as error:
        log.warning("site %s: jobs that are held could not be let go: %s", work.name, error)
        return
    failpoint("gang.told")
    changes = [{"which": row.key, "let_go_sent_at": now} for row in rows]
    await work.database.write(update_attempts, work.lease, changes, ("let_go_sent_at",))


async def _cancel(work: SiteWork, rows: Sequence[Any], now: float) -> None:
    """Pass on users' cancels, and the engine's own wish for room; again after a while, should the site have missed one."""
    due = _due(rows, now)
    if due and await _send(work, due, now):
        failpoint("cancel.sent")
        await _note_sent(work, due, now)


async def _move(work: SiteWork, rows: Sequence[Any], now: float) -> None:
    """End jobs that were just seen to wait, so that they can go elsewhere. That is written down first: one that starts meanwhile and
    ends by it must be known to have ended by it."""
    due = _due(rows, now)
    if due:
        await _note_sent(work, due, now)
        await _send(work, due, now)


def _is_to_move(row: Any) -> bool:
    return bool(row.ending == MOVE and not row.cancel_requested)


def _due(rows: Sequence[Any], now: float) -> list[Any]:
    return [
        row for row in rows if row.cancel_sent_at is None or not 0 <= now - row.cancel_sent_at < _CANCEL_AGAIN_SECONDS
    ]


async def _send(work: SiteWork, rows: Sequence[Any], now: float) -> bool:
    """Whether the site took the order."""
    work.check_ours()
    try:
        async with asyncio.timeout(work.settings.call_timeout):
            await work.adapter.cancel([replace(reference(row), grace_seconds=grace_of(row, now)) for row in rows])
    except (Unavailable, TimeoutError, OSError) as error:
        log.warning("site %s: a cancel has no answer: %s", work.name, error)
        return False
    return True


async def _note_sent(work: SiteWork, rows: Sequence[Any], now: float) -> None:
    changes = [{"which": row.key, "cancel_sent_at": now} for row in rows]
    await work.database.write(update_attempts, work.lease, changes, ("cancel_sent_at",))


async def _drop_surplus(work: SiteWork, seen: Mapping[str, Observation]) -> None:
    """Several jobs with one key, none started: keep the lowest. Once one has the claim, the others end by themselves."""
    surplus = [
        native_id
        for observation in seen.values()
        if observation.sighting is Sighting.QUEUED and observation.claim_fence is None
        for native_id in observation.native_ids[1:]
    ]
    if surplus:
        log.warning("site %s: %d surplus jobs are cancelled", work.name, len(surplus))
        try:
            async with asyncio.timeout(work.settings.call_timeout):
                await work.adapter.cancel_native(surplus)
        except (IsthmusError, TimeoutError, OSError) as error:
            log.warning("site %s: surplus jobs could not be cancelled: %s", work.name, error)
