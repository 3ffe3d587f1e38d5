"""COLLECTING → ended: outputs into the blob store, checked, delivered; then, and only then, the task is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.domain.errors import IsthmusError, Refused, Unavailable
from isthmus.domain.lifecycle import AttemptState, EndReason
from isthmus.engine.delivering import Deliver, destinations, spec_of
from isthmus.engine.failpoints import failpoint
from isthmus.engine.taskdata import check_made, made_by
from isthmus.engine.transitions import Move
from isthmus.engine.withdrawing import is_wanted_back
from isthmus.engine.work import SiteWork
from isthmus.sites.port import Collected, CollectedFile, CollectOutcome, Job, Rejected, Uncertain

log = logging.getLogger(__name__)
_A = AttemptState


async def take(work: SiteWork) -> list[Any]:
    """The next ended attempts whose outputs are to be fetched, now in hand."""
    rows = await work.load((_A.COLLECTING,), work.settings.collect_batch, now=work.clock.now())
    work.in_hand.update(row.key for row in rows)
    return rows


async def collect(work: SiteWork, rows: Sequence[Any], deliver: Deliver) -> None:
    """Fetch the outputs of attempts in hand and end them; they are let go at the end, whatever happens."""
    try:
        failpoint("collect.taken")
        made = await work.maker.make(rows, staging=False)
        jobs = {key: job for key, job in made.items() if isinstance(job, Job)}
        work.check_ours()
        try:
            async with asyncio.timeout(work.settings.call_timeout):
                outcomes = dict(await work.adapter.collect(list(jobs.values())))
        except (Unavailable, TimeoutError, OSError) as error:
            outcomes = {key: Uncertain(message=str(error) or "The site did not answer in time.") for key in jobs}
        failpoint("collect.collected")
        missing = await work.blobs.missing(_hashes(outcomes))
        failpoint("collect.verified")
        moves = []
        for row in rows:
            outcome = outcomes.get(row.key, Uncertain(message="The site did not answer for its outputs."))
            moves.append(await _judge(work, row, outcome, missing, deliver))
        await work.apply(moves)
        failpoint("collect.written")
        work.account_due.set()
        work.wake_placement()
    finally:
        work.in_hand.difference_update(row.key for row in rows)


def _hashes(outcomes: Mapping[str, CollectOutcome]) -> set[str]:
    return {
        file.sha256
        for outcome in outcomes.values()
        if isinstance(outcome, Collected)
        for file in (*outcome.files, outcome.stdout, outcome.stderr)
        if file is not None and not file.kept
    }


async def _judge(work: SiteWork, row: Any, outcome: CollectOutcome, missing: set[str], deliver: Deliver) -> Move:
    reason = EndReason(row.reason or EndReason.EXIT_ZERO)
    match outcome:
        case Rejected(reason=why, message=message):
            if reason is not EndReason.EXIT_ZERO:
                return Move(key=row.key, to=_ended_state(row), reason=reason, message=row.message or message)
            return Move(key=row.key, to=_A.FAILED, reason=why, message=message)
        case Uncertain(message=message):
            if reason is EndReason.MOVED:
                return Move(key=row.key, to=_A.CANCELLED, reason=reason, message=row.message)
            if row.cancel_requested:  # it ended, and nobody wants its outputs any more
                return Move(key=row.key, to=_A.CANCELLED, reason=EndReason.CANCELLED_BY_USER, message=message)
            return _put_off(work, row, message)
        case Collected():
            pass
    lost = [file.path for file in outcome.files if file.sha256 in missing and not file.kept]
    if lost:
        return _put_off(work, row, f"{lost[0]} did not arrive.")
    fields = {
        "stdout_blob": outcome.stdout.sha256 if outcome.stdout and outcome.stdout.sha256 not in missing else "",
        "stderr_blob": outcome.stderr.sha256 if outcome.stderr and outcome.stderr.sha256 not in missing else "",
    }
    if row.cancel_requested and reason is not EndReason.EXIT_ZERO:
        return Move(key=row.key, to=_A.CANCELLED, reason=EndReason.CANCELLED_BY_USER, fields=fields)
    if reason is not EndReason.EXIT_ZERO:
        saved = _files(row, outcome.files, {}) if reason is EndReason.PREEMPTED else []
        return Move(key=row.key, to=_ended_state(row), reason=reason, fields=fields, outputs=saved)
    if outcome.missing:
        told = ", ".join(outcome.missing[:5])
        return Move(
            key=row.key,
            to=_A.FAILED,
            reason=EndReason.OUTPUT_MISSING,
            message=f"It exited with 0 but did not leave {told}.",
            fields=fields,
        )
    try:
        places = await destinations(work.database, row.task_id, outcome.files)
        for file, url in places:
            await deliver(work.blobs, file.sha256, url)
    except Refused as error:
        return Move(key=row.key, to=_A.FAILED, reason=EndReason.OUTPUT_UNDELIVERED, message=str(error), fields=fields)
    except (IsthmusError, OSError) as error:
        if row.tries + 1 >= work.settings.poison_tries:
            return Move(
                key=row.key, to=_A.FAILED, reason=EndReason.OUTPUT_UNDELIVERED, message=str(error), fields=fields
            )
        return _put_off(work, row, str(error))
    made = []
    if work.home is not None:
        try:
            spec = await work.database.read(spec_of, row.task_id)
            made = await made_by(work.home, spec, outcome.files, row.site)
            for one in made:
                await work.database.read(check_made, row.task_id, one, work.settings.home_region)
        except Refused as error:
            return Move(
                key=row.key, to=_A.FAILED, reason=EndReason.OUTPUT_UNDELIVERED, message=str(error), fields=fields
            )
    delivered = {file.path: url for file, url in places}
    outputs = _files(row, outcome.files, delivered)
    return Move(
        key=row.key,
        to=_A.SUCCEEDED,
        reason=EndReason.EXIT_ZERO,
        fields=fields,
        outputs=outputs,
        made=made,
        home_region=work.settings.home_region,
    )


def _files(row: Any, files: Sequence[CollectedFile], delivered: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of `outputs`."""
    return [
        {
            "project": row.project,
            "task_id": row.task_id,
            "attempt": row.key,
            "path": file.path,
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
            "executable": file.executable,
            "url": delivered.get(file.path, ""),
        }
        for file in files
        if not file.kept
    ]


def _ended_state(row: Any) -> AttemptState:
    return _A.CANCELLED if is_wanted_back(row) and row.reason != EndReason.EXIT_NONZERO else _A.FAILED


def _put_off(work: SiteWork, row: Any, message: str) -> Move:
    """Outputs are at the site and stay there: keep trying, less and less often, never give up unseen."""
    tries = row.tries + 1
    later = work.clock.now() + work.delay(tries)
    return Move(key=row.key, to=_A.COLLECTING, message=message, fields={"tries": tries, "due_at": later})
