"""Isthmus's states of a task as those of TES, one by one and as conditions on the table."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from isthmus.api.tes.models import TesState
from isthmus.domain.lifecycle import EndReason, TaskState
from isthmus.store import tables

_T = TaskState
_S = TesState
_LIVE: Final = {
    _T.BLOCKED: _S.QUEUED,
    _T.HELD: _S.PAUSED,
    _T.WAITING: _S.QUEUED,
    _T.PLACED: _S.QUEUED,
    _T.STAGING: _S.INITIALIZING,
    _T.SUBMITTING: _S.INITIALIZING,
    _T.QUEUED: _S.QUEUED,
    _T.RUNNING: _S.RUNNING,
    _T.COLLECTING: _S.RUNNING,
}
_EXECUTOR: Final = frozenset({EndReason.EXIT_NONZERO, EndReason.SIGNALLED, EndReason.OUT_OF_MEMORY, EndReason.WALLTIME})


def state_of(row: Any) -> TesState:
    """The state of a row of `tasks`. A task whose site does not answer is shown as what it was last seen to be: clients
    take UNKNOWN for an end."""
    state = TaskState(row.state)
    match state:
        case _T.SUCCEEDED:
            return _S.COMPLETE
        case _T.CANCELLED:
            return _S.CANCELED
        case _T.FAILED:
            return _failed(row.reason)
    if row.cancel_requested_at is not None:
        return _S.CANCELING
    if state is _T.UNKNOWN:
        return _S.RUNNING if row.started_at is not None else _S.QUEUED
    return _LIVE[state]


def _failed(reason: str) -> TesState:
    if reason in _EXECUTOR:
        return _S.EXECUTOR_ERROR
    return _S.PREEMPTED if reason == EndReason.PREEMPTED else _S.SYSTEM_ERROR


def in_state(state: TesState) -> sa.ColumnElement[bool]:
    """The rows of `tasks` that `state_of` gives this state."""
    t = tables.tasks.c
    failed = t.state == _T.FAILED.value
    live = t.state.notin_([_T.SUCCEEDED.value, _T.FAILED.value, _T.CANCELLED.value])
    executor = t.reason.in_([reason.value for reason in _EXECUTOR])
    preempted = t.reason == EndReason.PREEMPTED.value
    match state:
        case _S.COMPLETE:
            return t.state == _T.SUCCEEDED.value
        case _S.CANCELED:
            return t.state == _T.CANCELLED.value
        case _S.EXECUTOR_ERROR:
            return sa.and_(failed, executor)
        case _S.PREEMPTED:
            return sa.and_(failed, preempted)
        case _S.SYSTEM_ERROR:
            return sa.and_(failed, sa.not_(executor), sa.not_(preempted))
        case _S.CANCELING:
            return sa.and_(live, t.cancel_requested_at.is_not(None))
        case _S.UNKNOWN:
            return sa.false()
    plain: sa.ColumnElement[bool] = t.state.in_([known.value for known, shown in _LIVE.items() if shown is state])
    unseen = t.state == _T.UNKNOWN.value
    if state is _S.RUNNING:
        plain = sa.or_(plain, sa.and_(unseen, t.started_at.is_not(None)))
    if state is _S.QUEUED:
        plain = sa.or_(plain, sa.and_(unseen, t.started_at.is_(None)))
    return sa.and_(plain, t.cancel_requested_at.is_(None))
