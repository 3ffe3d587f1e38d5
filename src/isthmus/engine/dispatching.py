"""PLACED → STAGING → SUBMITTING → QUEUED: brings attempts to the site, each submitted effectively once.

The intent (SUBMITTING) is committed before the site is called. Whatever goes wrong after that is UNKNOWN, never a
second submission: only two authoritative negatives (see `judgement`) bring an attempt back here, under the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import IsthmusError, Refused, Unavailable
from isthmus.domain.lifecycle import AttemptState, EndReason
from isthmus.engine.failpoints import failpoint
from isthmus.engine.leases import Lease, LostLease, guard
from isthmus.engine.taskdata import Arriving, count_use_of
from isthmus.engine.transitions import Move, apply, lock
from isthmus.engine.withdrawing import is_wanted_back
from isthmus.engine.work import SiteWork
from isthmus.sites.port import Full, Job, Rejected, Staged, StageOutcome, SubmitOutcome, Submitted, Uncertain
from isthmus.store import tables

log = logging.getLogger(__name__)
_A = AttemptState
FULL_AGAIN_SECONDS = 30.0
DATA_AGAIN_SECONDS = 1.0
PORTION_BYTES = 8 * 1024**2


async def take(work: SiteWork) -> list[Any]:
    """The next attempts to bring to the site, now in hand. Where the site said that it is full, for an account and pool, one
    tries again after a while; the other accounts and pools go on."""
    now, limit = work.clock.now(), work.settings.dispatch_batch
    a = tables.attempts.c
    rows = await work.load((_A.SUBMITTING,), limit, now=now, where=a.negatives >= 2)
    waiting, fresh = (_A.PLACED, _A.STAGING), None
    if work.full:
        fresh = sa.or_(a.cancel_requested, a.ending != "", sa.tuple_(a.account, a.pool).not_in(list(work.full)))
    rows += await work.load(waiting, limit - len(rows), now=now, where=fresh)
    for lane, until in list(work.full.items()):
        if len(rows) < limit and not 0 < until - now <= FULL_AGAIN_SECONDS:  # further ahead: the clock was set back
            its = sa.and_(a.account == lane[0], a.pool == lane[1], sa.not_(a.cancel_requested))
            one = await work.load(waiting, 1, now=now, where=its)
            if not one and work.full.get(lane) == until:
                del work.full[lane]  # nothing is left that could try
            rows += one
    rows = await _first(work, rows)
    work.in_hand.update(row.key for row in rows)
    return rows


async def _first(work: SiteWork, rows: list[Any]) -> list[Any]:
    """As many as bring `PORTION_BYTES`: what is there is submitted while the next portion travels."""
    if len(rows) < 2:
        return rows
    sizes = await work.database.read(_input_bytes, [row.task_id for row in rows])
    carried = 0
    for number, row in enumerate(rows):
        carried += sizes.get(row.task_id, 0)
        if carried > PORTION_BYTES:
            return rows[: number + 1]
    return rows


def _input_bytes(connection: sa.Connection, task_ids: Sequence[str]) -> dict[str, int]:
    """Bytes of uploads, of those that have any."""
    t = tables.tasks.c
    found: dict[str, int] = {}
    for start in range(0, len(task_ids), 500):
        query = sa.select(t.id, t.input_bytes).where(t.id.in_(task_ids[start : start + 500]), t.input_bytes > 0)
        found.update((row.id, row.input_bytes) for row in connection.execute(query))
    return found


async def dispatch(work: SiteWork, rows: Sequence[Any]) -> None:
    """Stage and submit attempts that are in hand; they are let go at the end, whatever happens."""
    try:
        stopped = [_cancelled(row) for row in rows if is_wanted_back(row)]
        rows = [row for row in rows if not is_wanted_back(row)]
        await work.apply([*stopped, *(Move(key=r.key, to=_A.STAGING) for r in rows if r.state == _A.PLACED)])
        jobs = await _stage(work, rows)
        failpoint("dispatch.staged")
        if jobs:
            await _submit(work, rows, jobs)
    finally:
        work.in_hand.difference_update(row.key for row in rows)
        work.observe_due.set()


def _cancelled(row: Any) -> Move:
    return Move(key=row.key, to=_A.CANCELLED, reason=EndReason.CANCELLED_BY_USER, message="Cancelled before it ran.")


async def _stage(work: SiteWork, rows: Sequence[Any]) -> dict[str, Job]:
    """Jobs that are now at the site with all their files; the others are put off or ended."""
    made = await work.maker.make(rows, staging=True)
    jobs = {key: job for key, job in made.items() if isinstance(job, Job)}
    moves = [
        Move(key=key, to=_A.FAILED, reason=EndReason.INPUT_MISSING, message=str(error))
        for key, error in made.items()
        if isinstance(error, Refused)
    ]
    delayed = {key: error for key, error in made.items() if isinstance(error, Unavailable)}
    moves += [
        _await_data(work, row, error)
        if isinstance(error := delayed[row.key], Arriving)
        else _put_off(work, row, str(error))
        for row in rows
        if row.key in delayed
    ]
    outcomes: dict[str, StageOutcome] = {}
    if jobs:
        work.check_ours()
        try:
            async with asyncio.timeout(work.settings.call_timeout):
                outcomes = dict(await work.adapter.stage(list(jobs.values())))
        except (Unavailable, TimeoutError, OSError) as error:
            outcomes = {key: Uncertain(message=str(error) or "The site did not answer in time.") for key in jobs}
    staged: dict[str, Job] = {}
    for row in rows:
        if row.key not in jobs:
            continue
        match outcomes.get(row.key, Uncertain(message="The site did not answer for it.")):
            case Staged():
                staged[row.key] = jobs[row.key]
            case Rejected(reason=reason, message=message):
                moves.append(Move(key=row.key, to=_A.FAILED, reason=reason, message=message))
            case Uncertain(message=message):
                moves.append(_put_off(work, row, message))
    await work.apply(moves)
    await _count_use(work, rows, staged)
    return staged


def _await_data(work: SiteWork, row: Any, error: Arriving) -> Move:
    """Content is on its way: look again soon, which is no failed try."""
    state = _A.SUBMITTING if row.state == _A.SUBMITTING else _A.STAGING
    return Move(key=row.key, to=state, message=str(error), fields={"due_at": work.clock.now() + DATA_AGAIN_SECONDS})


async def _count_use(work: SiteWork, rows: Sequence[Any], staged: dict[str, Job]) -> None:
    """Datasets that the staged jobs took in are warmer at this site now."""
    tasks = [row.task_id for row in rows if row.key in staged and row.state != _A.SUBMITTING]
    if tasks:
        await work.database.write(count_use_of, work.clock.now(), work.name, tasks)


def _put_off(work: SiteWork, row: Any, message: str) -> Move:
    """Try again later; after many tries another site may do better."""
    tries = row.tries + 1
    if row.state != _A.SUBMITTING and tries >= work.settings.poison_tries:
        return Move(
            key=row.key,
            to=_A.FAILED,
            reason=EndReason.REJECTED_BY_SITE,
            message=f"Its files could not be brought there in {tries} tries: {message}",
        )
    state = _A.SUBMITTING if row.state == _A.SUBMITTING else _A.STAGING
    later = work.clock.now() + work.delay(tries)
    return Move(key=row.key, to=state, message=message, fields={"tries": tries, "due_at": later})


async def _submit(work: SiteWork, rows: Sequence[Any], jobs: dict[str, Job]) -> None:
    keys = [row.key for row in rows if row.key in jobs]
    intended = await work.database.write(_intend, work.clock.now(), work.lease, keys)
    failpoint("dispatch.intended")
    if not intended:
        return
    work.check_ours()
    outcomes: dict[str, SubmitOutcome] = {}
    try:
        async with asyncio.timeout(work.settings.call_timeout):
            outcomes = dict(await work.adapter.submit([jobs[key] for key in intended]))
    except LostLease:
        raise
    except (IsthmusError, TimeoutError, OSError) as error:
        log.warning("site %s: submission of %d jobs has no answer: %s", work.name, len(intended), error)
    failpoint("dispatch.submitted")
    now = work.clock.now()
    lanes: dict[tuple[str, str], set[type]] = {}
    for key, outcome in outcomes.items():
        lanes.setdefault((jobs[key].account, jobs[key].pool), set()).add(type(outcome))
    for lane, kinds in lanes.items():
        if Full in kinds:
            work.full[lane] = now + FULL_AGAIN_SECONDS
        elif Submitted in kinds:
            work.full.pop(lane, None)
    moves = [
        _submitted(key, outcomes.get(key, Uncertain(message="No answer to its submission.")), now) for key in intended
    ]
    await work.apply(moves)
    failpoint("dispatch.recorded")


def _submitted(key: str, outcome: SubmitOutcome, now: float) -> Move:
    sent = {"submitted_at": now, "negatives": 0, "last_negative_at": None, "unseen_since": None}
    match outcome:
        case Submitted(native_id=native_id):
            # What it waited for on the way is no word about how it went.
            return Move(key=key, to=_A.QUEUED, fields={**sent, "native_id": native_id, "message": ""})
        case Rejected(reason=reason, message=message):
            return Move(key=key, to=_A.FAILED, reason=reason, message=message)
        case Full(message=message):
            return Move(key=key, to=_A.STAGING, message=message, fields={"due_at": now + FULL_AGAIN_SECONDS})
        case Uncertain(message=message):
            return Move(key=key, to=_A.UNKNOWN, message=message, fields={**sent, "unseen_since": now})


def _intend(connection: sa.Connection, now: float, lease: Lease, keys: Sequence[str]) -> list[str]:
    """Commit the intent to submit; what a user cancelled meanwhile ends here instead. Answers the keys to submit."""
    guard(connection, lease)
    ready = [row for row in lock(connection, keys) if row.state == _A.STAGING or _may_go_again(row)]
    go = [row.key for row in ready if not is_wanted_back(row)]
    stop = [row for row in ready if is_wanted_back(row)]
    intents = [Move(key=key, to=_A.SUBMITTING, fields={"negatives": 0, "last_negative_at": None}) for key in go]
    moved = apply(connection, now, lease, [*intents, *(_cancelled(row) for row in stop)])
    return [key for key in go if key in moved]


def _may_go_again(row: Any) -> bool:
    """Only two authoritative negatives since the last intent allow a second submission."""
    return bool(row.state == _A.SUBMITTING and row.negatives >= 2)
