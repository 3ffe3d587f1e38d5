"""Attempts that the engine itself takes back: those that move to another site, preemptible ones that make room, and those of a
gang of which another part ended.

The engine only writes down that it wants an attempt to end (`attempts.ending`). The owner of the site asks the site, and the
attempt ends like any other, when the site says with authority that it has ended; only then does its task wait for another
place. So there are never two live copies. An attempt that ended by itself meanwhile keeps its own end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import AttemptState, EndReason
from isthmus.engine.leases import Lease, guard
from isthmus.store import events, tables

MOVE, PREEMPT, PEER = "move", "preempt", "peer"
_A = AttemptState
_NOT_ENDED = (_A.PLACED, _A.STAGING, _A.QUEUED, _A.RUNNING)
STATES = {MOVE: (_A.QUEUED, _A.STAGING), PREEMPT: _NOT_ENDED, PEER: _NOT_ENDED}
"""In which states an attempt can be asked to end."""
_UNHEARD_SECONDS = 60.0  # beyond its grace a preempted job is ended for good
_AT_ONCE = 500
_REASONS = {MOVE: EndReason.MOVED, PREEMPT: EndReason.PREEMPTED, PEER: EndReason.PEER_ENDED}
# An end that may be the answer to such a request; any other is the job's own.
_ASKED_FOR = frozenset(
    {
        EndReason.CANCELLED_BY_USER,
        EndReason.CANCELLED_AT_SITE,
        EndReason.SIGNALLED,
        EndReason.PREEMPTED,
        EndReason.NEVER_ARRIVED,
    }
)


def reason_of(row: Any, reason: EndReason | None) -> EndReason | None:
    """MOVED, PREEMPTED or PEER_ENDED where the engine asked for this end; else the reason as it is."""
    if not row.ending or row.cancel_requested or reason not in _ASKED_FOR:
        return reason
    return _REASONS[row.ending]


def is_wanted_back(row: Any) -> bool:
    """Whether the attempt is to end, for its user or for the engine."""
    return bool(row.cancel_requested or row.ending)


def grace_of(row: Any, now: float) -> int:
    """Seconds that the job may still use to save its state; 0 = it is just ended."""
    if row.ending != PREEMPT or row.cancel_requested or now - row.ending_at > row.grace_seconds + _UNHEARD_SECONDS:
        return 0
    return int(row.grace_seconds)


def take_back(connection: sa.Connection, now: float, lease: Lease, kind: str, notes: Mapping[str, str]) -> list[str]:
    """Ask that attempts end (key -> why, in words); answers those of which it was asked: not those that ended, were cancelled or,
    to move, have started meanwhile."""
    guard(connection, lease)
    a = tables.attempts
    keys = sorted(notes)
    rows: list[Any] = []
    for start in range(0, len(keys), _AT_ONCE):
        query = (
            a.select()
            .where(a.c.key.in_(keys[start : start + _AT_ONCE]))
            .where(a.c.state.in_([state.value for state in STATES[kind]]))
            .where(a.c.ending == "")
            .where(a.c.cancel_requested.is_(False))
            .order_by(a.c.key)
        )
        rows.extend(connection.execute(query.with_for_update()))
    if rows:
        connection.execute(
            a.update().where(a.c.key == sa.bindparam("which")),
            [
                {"which": row.key, "ending": kind, "ending_at": now, "ending_note": notes[row.key][:400], "due_at": 0.0}
                for row in rows
            ],
        )
        events.add(
            connection,
            [
                events.event(
                    now,
                    f"attempt.{kind}",
                    project=row.project,
                    task_id=row.task_id,
                    attempt=row.key,
                    site=row.site,
                    body={"why": notes[row.key][:400]},
                )
                for row in rows
            ],
        )
    return [row.key for row in rows]
