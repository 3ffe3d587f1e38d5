"""Checks every invariant of the store and says what to do about each that is broken (`isthmus check`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from isthmus.domain.lifecycle import ATTEMPT_ENDED, TASK_ENDED, AttemptState, TaskState
from isthmus.domain.site import SiteState
from isthmus.store import tables

_LIVE_TASK = [s.value for s in TaskState if s.value in set(AttemptState) - ATTEMPT_ENDED]
_ENDED_TASK = [s.value for s in TASK_ENDED]
_ENDED_ATTEMPT = [s.value for s in ATTEMPT_ENDED]
t, a = tables.tasks, tables.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken invariant: its code, what it is about, what is wrong, what to do."""

    code: str
    subject: str
    wrong: str
    remedy: str


_REPORT = "Keep a copy of the store and report this; it should never happen."


def check(connection: sa.Connection, unseal: Callable[[bytes, str], bytes] | None = None) -> Iterator[Finding]:
    """Every broken invariant of the rows. `unseal` also tries the key on every secret."""
    for rule in (
        _mirrors,
        _one_live_attempt,
        _ends,
        _successes,
        _counts,
        _dependencies,
        _usage,
        _receipts,
        _outputs,
        _sites,
        _replicas,
        _transfers,
    ):
        yield from rule(connection)
    if unseal is not None:
        yield from _secrets(connection, unseal)


def contents(connection: sa.Connection) -> Iterator[str]:
    """Every content that some row names and the blob store must therefore hold, each once."""
    query = sa.union(
        sa.select(tables.blobs.c.sha256),
        sa.select(tables.outputs.c.sha256),
        sa.select(tables.checkpoints.c.sha256),
        sa.select(tables.dataset_versions.c.manifest_sha256),
        sa.select(a.c.stdout_blob).where(a.c.stdout_blob != ""),
        sa.select(a.c.stderr_blob).where(a.c.stderr_blob != ""),
    )
    yield from connection.execute(query).scalars()


def _rows(connection: sa.Connection, query: Any) -> Iterator[Any]:
    yield from connection.execute(query)


def _mirrors(connection: sa.Connection) -> Iterator[Finding]:
    """A task that is somewhere has a live attempt in the same state."""
    query = (
        sa.select(t.c.id, t.c.state, t.c.attempt, a.c.state.label("attempt_state"))
        .select_from(t.outerjoin(a, a.c.key == t.c.attempt))
        .where(t.c.state.in_(_LIVE_TASK))
        .where(sa.or_(a.c.state.is_(None), a.c.state != t.c.state))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="task_without_attempt",
            subject=f"task {row.id}",
            wrong=f"is {row.state}, but its attempt {row.attempt or '(none)'} is {row.attempt_state or 'not there'}.",
            remedy=_REPORT,
        )


def _one_live_attempt(connection: sa.Connection) -> Iterator[Finding]:
    query = (
        sa.select(a.c.task_id, sa.func.count().label("live"))
        .where(a.c.state.notin_(_ENDED_ATTEMPT))
        .group_by(a.c.task_id)
        .having(sa.func.count() > 1)
    )
    for row in _rows(connection, query):
        yield Finding(
            code="two_live_attempts",
            subject=f"task {row.task_id}",
            wrong=f"has {row.live} live attempts.",
            remedy=f"Cancel it with `isthmus cancel {row.task_id}`. {_REPORT}",
        )


def _ends(connection: sa.Connection) -> Iterator[Finding]:
    query = (
        sa.select(t.c.id, t.c.state, a.c.key, a.c.state.label("attempt_state"))
        .select_from(t.join(a, a.c.task_id == t.c.id))
        .where(t.c.state.in_([*_ENDED_TASK, TaskState.WAITING.value, TaskState.HELD.value, TaskState.BLOCKED.value]))
        .where(a.c.state.notin_(_ENDED_ATTEMPT))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="live_attempt_of_idle_task",
            subject=f"attempt {row.key}",
            wrong=f"is {row.attempt_state}, but its task {row.id} is {row.state}.",
            remedy=_REPORT,
        )
    query = sa.select(t.c.id, t.c.state).where(t.c.state.in_(_ENDED_TASK))
    for row in _rows(connection, query.where(sa.or_(t.c.ended_at.is_(None), t.c.reason == ""))):
        yield Finding(
            code="end_without_reason",
            subject=f"task {row.id}",
            wrong=f"is {row.state} without an end time or a reason.",
            remedy=_REPORT,
        )


def _successes(connection: sa.Connection) -> Iterator[Finding]:
    """A task that succeeded has exactly one attempt that did; any other has none."""
    good = (
        sa.select(a.c.task_id, sa.func.count().label("number"))
        .where(a.c.state == AttemptState.SUCCEEDED.value)
        .group_by(a.c.task_id)
    ).subquery()
    number = sa.func.coalesce(good.c.number, 0)
    query = (
        sa.select(t.c.id, t.c.state, number.label("number"))
        .select_from(t.outerjoin(good, good.c.task_id == t.c.id))
        .where(number != sa.case((t.c.state == TaskState.SUCCEEDED.value, 1), else_=0))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="success_mismatch",
            subject=f"task {row.id}",
            wrong=f"is {row.state}, and {row.number} of its attempts succeeded.",
            remedy=_REPORT,
        )


def _counts(connection: sa.Connection) -> Iterator[Finding]:
    query = (
        sa.select(
            t.c.id,
            t.c.attempts,
            t.c.fence,
            sa.func.count(a.c.key).label("rows"),
            sa.func.coalesce(sa.func.max(a.c.fence), 0).label("highest"),
            sa.func.count(sa.distinct(a.c.fence)).label("fences"),
        )
        .select_from(t.outerjoin(a, a.c.task_id == t.c.id))
        .group_by(t.c.id, t.c.attempts, t.c.fence)
        .having(
            sa.or_(
                sa.func.count(a.c.key) != t.c.attempts,
                sa.func.coalesce(sa.func.max(a.c.fence), 0) != t.c.fence,
                sa.func.count(sa.distinct(a.c.fence)) != sa.func.count(a.c.key),
            )
        )
    )
    for row in _rows(connection, query):
        yield Finding(
            code="fence_mismatch",
            subject=f"task {row.id}",
            wrong=f"counts {row.attempts} attempts and fence {row.fence}; there are {row.rows} with fence {row.highest}.",
            remedy=_REPORT,
        )


def _dependencies(connection: sa.Connection) -> Iterator[Finding]:
    d = tables.dependencies
    open_ones = (
        sa.select(d.c.task_id, sa.func.count().label("open")).where(d.c.satisfied.is_(False)).group_by(d.c.task_id)
    ).subquery()
    unmet = sa.func.coalesce(open_ones.c.open, 0)
    query = (
        sa.select(t.c.id, t.c.state, t.c.blocked_by, unmet.label("open"))
        .select_from(t.outerjoin(open_ones, open_ones.c.task_id == t.c.id))
        .where(t.c.state.in_([TaskState.BLOCKED.value, TaskState.WAITING.value, TaskState.HELD.value]))
        .where(
            sa.or_(
                unmet != t.c.blocked_by,
                sa.and_(
                    t.c.state != TaskState.HELD.value, (t.c.state == TaskState.BLOCKED.value) != (t.c.blocked_by > 0)
                ),
            )
        )
    )
    for row in _rows(connection, query):
        yield Finding(
            code="blocked_by_mismatch",
            subject=f"task {row.id}",
            wrong=f"is {row.state} and counts {row.blocked_by} open dependencies; there are {row.open}.",
            remedy=f"`isthmus hold {row.id}` and `isthmus release {row.id}`. {_REPORT}",
        )
    orphans = (
        sa.select(d.c.task_id, d.c.on_task_id)
        .select_from(d.outerjoin(t, t.c.id == d.c.on_task_id))
        .where(t.c.id.is_(None))
        .where(d.c.satisfied.is_(False))
    )
    for row in _rows(connection, orphans):
        yield Finding(
            code="dependency_gone",
            subject=f"task {row.task_id}",
            wrong=f"waits for {row.on_task_id}, which is not there.",
            remedy=f"Cancel it with `isthmus cancel {row.task_id}`.",
        )


def _usage(connection: sa.Connection) -> Iterator[Finding]:
    u = tables.usage_records
    query = (
        sa.select(u.c.attempt, a.c.usage_state)
        .select_from(u.outerjoin(a, a.c.key == u.c.attempt))
        .where(sa.or_(a.c.key.is_(None), a.c.usage_state != "done"))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="usage_without_attempt",
            subject=f"usage record of {row.attempt}",
            wrong=f"is there, but the attempt is {row.usage_state or 'not there'}.",
            remedy=_REPORT,
        )
    query = (
        sa.select(a.c.key)
        .select_from(a.outerjoin(u, u.c.attempt == a.c.key))
        .where(a.c.usage_state == "done")
        .where(u.c.attempt.is_(None))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="usage_missing",
            subject=f"attempt {row.key}",
            wrong="is marked as accounted, but has no usage record.",
            remedy=_REPORT,
        )
    query = (
        sa.select(a.c.key)
        .where(a.c.state.in_(_ENDED_ATTEMPT))
        .where(a.c.usage_state == "none")
        .where(sa.or_(a.c.submitted_at.is_not(None), a.c.native_id != ""))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="usage_not_asked",
            subject=f"attempt {row.key}",
            wrong="was at its site and has ended, but its usage is not asked for.",
            remedy=_REPORT,
        )


def _receipts(connection: sa.Connection) -> Iterator[Finding]:
    """Every attempt has the receipt of its decision."""
    r = tables.receipts
    query = sa.select(a.c.key).where(~sa.exists().where(r.c.task_id == a.c.task_id, r.c.attempt == a.c.key))
    for row in _rows(connection, query):
        yield Finding(
            code="receipt_missing",
            subject=f"attempt {row.key}",
            wrong="has no receipt of the decision that made it.",
            remedy=_REPORT,
        )


def _outputs(connection: sa.Connection) -> Iterator[Finding]:
    o = tables.outputs
    query = (
        sa.select(o.c.task_id, o.c.path, t.c.state)
        .select_from(o.outerjoin(t, t.c.id == o.c.task_id))
        .where(sa.or_(t.c.id.is_(None), t.c.state != TaskState.SUCCEEDED.value))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="output_without_success",
            subject=f"output {row.path} of task {row.task_id}",
            wrong=f"is there, but the task is {row.state or 'not there'}.",
            remedy=_REPORT,
        )


def _sites(connection: sa.Connection) -> Iterator[Finding]:
    s = tables.sites
    query = (
        sa.select(a.c.key, a.c.site, s.c.state)
        .select_from(a.outerjoin(s, s.c.name == a.c.site))
        .where(a.c.state.notin_(_ENDED_ATTEMPT))
        .where(sa.or_(s.c.name.is_(None), s.c.state == SiteState.LEFT.value))
    )
    for row in _rows(connection, query):
        yield Finding(
            code="attempt_at_no_site",
            subject=f"attempt {row.key}",
            wrong=f"is live at site {row.site}, which {'has left' if row.state else 'is not there'}.",
            remedy="Join the site again under the same name, or make it leave by force.",
        )


def _replicas(connection: sa.Connection) -> Iterator[Finding]:
    """A copy that does not leave is of a version that is there; a version has a whole copy, or one that is lost."""
    r, v = tables.replicas.c, tables.dataset_versions.c
    same = sa.and_(v.project == r.project, v.name == r.name, v.version == r.version)
    query = (
        sa.select(r.project, r.name, r.version, r.site, r.state)
        .select_from(tables.replicas.outerjoin(tables.dataset_versions, same))
        .where(v.version.is_(None), r.state != "leaving")
    )
    for row in _rows(connection, query):
        yield Finding(
            code="replica_of_nothing",
            subject=f"the copy of {row.project}/{row.name}@{row.version} at {row.site}",
            wrong=f"is {row.state}, but there is no such version.",
            remedy=_REPORT,
        )
    whole = sa.exists().where(same, r.state.in_(["whole", "lost"]))
    for row in _rows(connection, sa.select(v.project, v.name, v.version).where(~whole)):
        yield Finding(
            code="version_without_copy",
            subject=f"{row.project}/{row.name}@{row.version}",
            wrong="has no whole copy at any place.",
            remedy="Put its content again.",
        )


def _transfers(connection: sa.Connection) -> Iterator[Finding]:
    """What is on its way has a copy that is planned or arriving at its target."""
    x, r = tables.transfers.c, tables.replicas.c
    there = sa.exists().where(
        r.project == x.project,
        r.name == x.name,
        r.version == x.version,
        r.site == x.target,
        r.state.in_(["planned", "arriving"]),
    )
    query = sa.select(x.id, x.state, x.target).where(x.state.in_(["planned", "moving"]), ~there)
    for row in _rows(connection, query):
        yield Finding(
            code="transfer_without_copy",
            subject=f"transfer {row.id}",
            wrong=f"is {row.state}, but no copy is planned at {row.target}.",
            remedy=f"Cancel it with `isthmus data transfers --cancel {row.id}`. {_REPORT}",
        )


def _secrets(connection: sa.Connection, unseal: Callable[[bytes, str], bytes]) -> Iterator[Finding]:
    for row in _rows(connection, tables.secrets.select()):
        try:
            unseal(row.sealed, f"secret:{row.project}/{row.name}")
        except Exception:
            yield Finding(
                code="secret_does_not_open",
                subject=f"secret {row.name} of project {row.project}",
                wrong="does not open with the key file.",
                remedy="Restore the key file that the store was made with, or store the secret again.",
            )
