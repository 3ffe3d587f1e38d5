"""What one look at an attempt means for it. Pure: a row and an observation in, a move out.

The rules that keep "I cannot see it" from becoming "it is dead":
- UNSEEN never ends anything; after `unseen_grace` the attempt is shown as UNKNOWN.
- ABSENT counts only if the site's queue, accounting and claim all answered, and only once in `negative_gap` seconds.
- Two such negatives: a job whose submission was never confirmed is submitted again under the same key; a job that
  the site had once confirmed and now does not know at all, and which never claimed, is LOST.
"""

from __future__ import annotations

from typing import Any

import orjson

from isthmus.domain.lifecycle import AttemptState, EndReason
from isthmus.engine.settings import EngineSettings
from isthmus.engine.transitions import Move
from isthmus.engine.withdrawing import MOVE, is_wanted_back
from isthmus.sites.port import Observation, Sighting

_A = AttemptState


def judge(row: Any, seen: Observation, now: float, settings: EngineSettings) -> Move | None:
    """The move that follows from a look, or None when nothing changed."""
    match seen.sighting:
        case Sighting.QUEUED:
            return _live(row, seen, _A.QUEUED)
        case Sighting.RUNNING:
            return _live(row, seen, _A.RUNNING)
        case Sighting.ENDED:
            return _ended(row, seen)
        case Sighting.ABSENT:
            return _absent(row, now, settings)
        case Sighting.UNSEEN:
            return unseen(row, now, settings, seen.message)


def _live(row: Any, seen: Observation, state: AttemptState) -> Move | None:
    fields: dict[str, Any] = {}
    if seen.native_ids and row.native_id not in seen.native_ids:
        fields["native_id"] = seen.native_ids[0]
    if row.submitted_at is None:
        fields["submitted_at"] = row.updated_at
    if row.negatives or row.unseen_since is not None:
        fields |= {"negatives": 0, "last_negative_at": None, "unseen_since": None}
    if state is _A.RUNNING and seen.started_at is not None and row.started_at != seen.started_at:
        fields["started_at"] = seen.started_at
    if state is _A.RUNNING and row.ending == MOVE and not row.cancel_requested and row.cancel_sent_at is None:
        fields |= {"ending": "", "ending_at": None, "ending_note": ""}  # it has started: nothing is gained by a move
    shown = _shown(seen)
    if shown != row.observed:
        fields["observed"] = shown
    if row.state == state and not fields:
        return None
    return Move(key=row.key, to=state, fields=fields)


def _shown(seen: Observation) -> str:
    told: dict[str, Any] = {}
    if seen.nodes:
        told["nodes"] = list(seen.nodes)
    if seen.queue_position is not None:
        told["queue_position"] = seen.queue_position
    if seen.message:
        told["message"] = seen.message[:400]
    if seen.steps:
        told["steps"] = seen.steps
    return orjson.dumps(told).decode() if told else "{}"


def _ended(row: Any, seen: Observation) -> Move | None:
    fields: dict[str, Any] = {
        "exit_code": seen.exit_code,
        "negatives": 0,
        "last_negative_at": None,
        "unseen_since": None,
    }
    if seen.native_ids and row.native_id not in seen.native_ids:
        fields["native_id"] = seen.native_ids[0]
    if row.submitted_at is None:
        fields["submitted_at"] = row.updated_at
    if seen.started_at is not None:
        fields["started_at"] = seen.started_at
    if seen.ended_at is not None:
        fields["ended_at"] = seen.ended_at
    fields["observed"] = _shown(seen)
    if row.gang:
        fields["held_seconds"] = _held_seconds(seen)
    reason = seen.reason or (EndReason.EXIT_ZERO if seen.exit_code == 0 else EndReason.EXIT_NONZERO)
    return Move(key=row.key, to=_A.COLLECTING, reason=reason, message=seen.message, fields=fields)


def _held_seconds(seen: Observation) -> float:
    """How long the job was held before its command started, or until it ended; by the site's clock."""
    until = seen.steps[0].started_at if seen.steps else seen.ended_at
    return 0.0 if until is None or seen.started_at is None else max(0.0, until - seen.started_at)


def _absent(row: Any, now: float, settings: EngineSettings) -> Move | None:
    if row.last_negative_at is not None and 0 <= now - row.last_negative_at < settings.negative_gap:
        return None
    negatives = row.negatives + 1
    fields: dict[str, Any] = {"negatives": negatives, "last_negative_at": now}
    if row.unseen_since is None:
        fields["unseen_since"] = now
    if negatives < 2:
        return Move(key=row.key, to=_A.UNKNOWN, fields=fields, message="The site does not know the job.")
    if is_wanted_back(row):
        return Move(
            key=row.key,
            to=_A.CANCELLED,
            reason=EndReason.CANCELLED_BY_USER,
            message="Cancelled; the site never had the job.",
            fields=fields,
        )
    if not row.native_id and row.state in (_A.UNKNOWN, _A.SUBMITTING):
        return Move(key=row.key, to=_A.SUBMITTING, fields=fields, message="The site never had the job; sent again.")
    return Move(
        key=row.key,
        to=_A.LOST,
        reason=EndReason.NEVER_ARRIVED,
        message="The site lost the job: neither its queue nor its accounting knows it, and it never started.",
        fields=fields,
    )


def unseen(row: Any, now: float, settings: EngineSettings, message: str = "") -> Move | None:
    """The move for an attempt of which nothing could be learned: none, until it has been so for `unseen_grace`."""
    if row.unseen_since is None:
        return Move(key=row.key, to=AttemptState(row.state), fields={"unseen_since": now})
    if row.state != _A.UNKNOWN and now - row.unseen_since >= settings.unseen_grace:
        return Move(key=row.key, to=_A.UNKNOWN, message=message or "The site does not answer for it.")
    return None
