"""The life of tasks and attempts: their states, and which may follow which."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task is. From PLACED to COLLECTING it mirrors its one live attempt."""

    BLOCKED = "blocked"  # waits for other tasks
    HELD = "held"  # waits for its user to release it
    WAITING = "waiting"  # waits in the queue for a placement
    PLACED = "placed"  # a pool is chosen and promised
    STAGING = "staging"  # inputs move to the site
    SUBMITTING = "submitting"  # the intent to submit is written; the site may or may not have it
    QUEUED = "queued"  # the site has it
    RUNNING = "running"
    UNKNOWN = "unknown"  # the site does not answer for it; it may well run
    COLLECTING = "collecting"  # it ended; outputs are on their way and are checked
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """Where one try of a task is."""

    PLACED = "placed"
    STAGING = "staging"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    UNKNOWN = "unknown"
    COLLECTING = "collecting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # the site proved that it never ran to an end, or was given up by its operator


TASK_ENDED: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
ATTEMPT_ENDED: Final = frozenset(
    {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.LOST}
)
ATTEMPT_LIVE: Final = frozenset(AttemptState) - ATTEMPT_ENDED
AT_SITE: Final = frozenset({AttemptState.QUEUED, AttemptState.RUNNING, AttemptState.UNKNOWN})

_A = AttemptState
ATTEMPT_MOVES: Final[dict[AttemptState, frozenset[AttemptState]]] = {
    _A.PLACED: frozenset({_A.STAGING, _A.CANCELLED, _A.FAILED, _A.LOST}),
    _A.STAGING: frozenset({_A.SUBMITTING, _A.CANCELLED, _A.FAILED, _A.LOST}),
    # Back to STAGING: the site's queue is full, it did not take the job and will be offered it again.
    _A.SUBMITTING: frozenset(
        {_A.STAGING, _A.QUEUED, _A.RUNNING, _A.UNKNOWN, _A.COLLECTING, _A.CANCELLED, _A.FAILED, _A.LOST}
    ),
    _A.QUEUED: frozenset({_A.RUNNING, _A.UNKNOWN, _A.COLLECTING, _A.CANCELLED, _A.FAILED, _A.LOST}),
    _A.RUNNING: frozenset({_A.QUEUED, _A.UNKNOWN, _A.COLLECTING, _A.CANCELLED, _A.FAILED, _A.LOST}),
    _A.UNKNOWN: frozenset({_A.SUBMITTING, _A.QUEUED, _A.RUNNING, _A.COLLECTING, _A.CANCELLED, _A.FAILED, _A.LOST}),
    _A.COLLECTING: frozenset({_A.SUCCEEDED, _A.FAILED, _A.CANCELLED, _A.LOST}),
    _A.SUCCEEDED: frozenset(),
    _A.FAILED: frozenset(),
    _A.CANCELLED: frozenset(),
    _A.LOST: frozenset(),
}


def may_follow(now: AttemptState, then: AttemptState) -> bool:
    """Whether an attempt in state `now` may move to state `then`."""
    return then in ATTEMPT_MOVES[now]


class EndReason(StrEnum):
    """Why an attempt or a task ended, by name; shown by `why` and stored with the attempt."""

    EXIT_ZERO = "exit_zero"
    EXIT_NONZERO = "exit_nonzero"
    WALLTIME = "walltime"
    OUT_OF_MEMORY = "out_of_memory"
    SIGNALLED = "signalled"
    NODE_FAILED = "node_failed"
    PREEMPTED = "preempted"
    MOVED = "moved"  # it waited at a site, and would start sooner elsewhere
    PEERS_LATE = "peers_late"  # it waited to start together with others, which did not come in time
    PEER_ENDED = "peer_ended"  # another part of its group ended, or could not go on
    REJECTED_BY_SITE = "rejected_by_site"
    INPUT_MISSING = "input_missing"
    OUTPUT_MISSING = "output_missing"
    OUTPUT_CORRUPT = "output_corrupt"
    OUTPUT_UNDELIVERED = "output_undelivered"
    CANCELLED_BY_USER = "cancelled_by_user"
    CANCELLED_AT_SITE = "cancelled_at_site"
    DEPENDENCY_FAILED = "dependency_failed"
    NEVER_ARRIVED = "never_arrived"  # two authoritative negatives, no claim: it did not run
    GIVEN_UP = "given_up"  # an operator made the site leave by force
    INFEASIBLE = "infeasible"
    POISON = "poison"  # handling it failed again and again; parked

    @property
    def is_site_fault(self) -> bool:
        """Whether another site might do better, so that a retry does not need `retry_on_exit`."""
        return self in _SITE_FAULTS


_SITE_FAULTS: Final = frozenset(
    {
        EndReason.NODE_FAILED,
        EndReason.PREEMPTED,
        EndReason.PEERS_LATE,
        EndReason.PEER_ENDED,
        EndReason.REJECTED_BY_SITE,
        EndReason.CANCELLED_AT_SITE,
        EndReason.OUTPUT_CORRUPT,
        EndReason.NEVER_ARRIVED,
        EndReason.GIVEN_UP,
    }
)
