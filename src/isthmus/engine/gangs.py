"""Gangs: tasks that start together, each at another site. How they come together, and what becomes of the others when one goes on.

`settle` looks at every gang that has not ended and acts on what it sees, so that it may be run again at any time: it lets all
parts go when all of them are there, and takes the others back when one ended or waits for a place again. Each part keeps its own
attempts, fences and records; nothing here ends an attempt, it only asks (see `withdrawing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from isthmus.domain.errors import Conflict
from isthmus.domain.lifecycle import TASK_ENDED, AttemptState, EndReason, TaskState
from isthmus.domain.placement import Gang
from isthmus.domain.task import TaskSpec
from isthmus.engine.endings import end_tasks
from isthmus.engine.leases import Lease, guard
from isthmus.engine.withdrawing import PEER, is_wanted_back, take_back
from isthmus.store import events, tables

_A = AttemptState
_AT_ONCE = 500
_ENDED = frozenset(state.value for state in TASK_ENDED)
_IDLE = frozenset({TaskState.WAITING.value, TaskState.HELD.value, TaskState.BLOCKED.value})
_IN_A_GANG = sa.text("gang <> ''")  # as the partial index says it


def join_gangs(
    connection: sa.Connection,
    now: float,
    user: str,
    project: str,
    specs: Sequence[TaskSpec],
    ids: Sequence[Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """The gang and part of each new task that is in one: of the user's open gang of that name, or of a new one."""
    made: dict[str, dict[str, Any]] = {}
    named: dict[str, dict[str, Any]] = {}
    joined: dict[str, int] = {}
    of: dict[str, dict[str, Any]] = {}
    for index, (spec, own) in enumerate(zip(specs, ids, strict=True)):
        wish = spec.together
        if wish is None:
            continue
        gang = named.get(wish.name) if wish.name else None
        if gang is None and wish.name:
            gang = _open_gang(connection, user, project, wish.name)
        if gang is None or gang["members"] == gang["parts"]:
            gang = {
                "id": own[0],
                "project": project,
                "user": user,
                "name": wish.name,
                "parts": wish.parts,
                "members": 0,
                "hold_seconds": wish.hold_seconds,
                "settled": False,
                "created_at": now,
            }
            made[gang["id"]] = gang
        if (gang["parts"], gang["hold_seconds"]) != (wish.parts, wish.hold_seconds):
            raise Conflict(
                f"Task {index} of the submission says that the group {wish.name!r} has {wish.parts} parts, held for {wish.hold_seconds} s; "
                f"its other parts say {gang['parts']}, and {gang['hold_seconds']} s.",
                remedy="Say the same in all parts, or give the group another name.",
            )
        if wish.name:
            named[wish.name] = gang
        for task_id in own:
            of[task_id] = {"gang": gang["id"], "part": gang["members"]}
            gang["members"] += 1
        if gang["id"] not in made:
            joined[gang["id"]] = gang["members"]
    g = tables.gangs
    for gang_id, members in joined.items():
        connection.execute(g.update().where(g.c.id == gang_id).values(members=members))
    if made:
        connection.execute(tables.gangs.insert(), list(made.values()))
    return of


def _open_gang(connection: sa.Connection, user: str, project: str, name: str) -> dict[str, Any] | None:
    """The user's newest gang of that name that lacks a part, while none of its parts has ended."""
    g, t = tables.gangs, tables.tasks.c
    over = sa.exists().where(t.gang == g.c.id).where(_IN_A_GANG).where(t.state.in_(_ENDED))
    query = (
        g.select()
        .where(sa.text("NOT settled"))
        .where(g.c.project == project, g.c.user == user, g.c.name == name)
        .where(g.c.members < g.c.parts)
        .where(~over)
        .order_by(g.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query.with_for_update()).mappings().first()
    return None if row is None else dict(row)


def with_their_gangs(connection: sa.Connection, task_ids: Sequence[str]) -> list[str]:
    """These tasks, and the other parts of the gangs that they are in: what is asked of one part is asked of all."""
    t = tables.tasks.c
    found = dict.fromkeys(task_ids)
    listed = list(found)
    for start in range(0, len(listed), _AT_ONCE):
        gangs = sa.select(t.gang).where(t.id.in_(listed[start : start + _AT_ONCE])).where(_IN_A_GANG)
        ids = sorted(set(connection.execute(gangs).scalars()))
        if ids:
            found |= dict.fromkeys(
                connection.execute(sa.select(t.id).where(t.gang.in_(ids)).where(_IN_A_GANG)).scalars()
            )
    return list(found)


def reopen(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Parts of these gangs are tried again."""
    g = tables.gangs
    if ids:
        connection.execute(g.update().where(g.c.id.in_(sorted(set(ids)))).values(settled=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The gangs of a page of waiting tasks: how each of its tasks stands in its own, and the waiting members that are not on the page."""

    places: Mapping[str, Gang]
    others: Sequence[Any]


def read_gangs(connection: sa.Connection, rows: Sequence[Any]) -> Whole:
    """For rows of waiting tasks (see `serving`) that are in gangs."""
    t, g = tables.tasks.c, tables.gangs.c
    ids = sorted({row.gang for row in rows if row.gang})
    here = {row.id for row in rows}
    places: dict[str, Gang] = {}
    others: list[Any] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        gangs = {row.id: row for row in connection.execute(tables.gangs.select().where(g.id.in_(part)))}
        query = (
            sa.select(
                t.id, t.user, t.project, t.name, t.spec, t.rank, t.avoid_sites, t.input_bytes, t.gang, t.part, t.state
            )
            .where(t.gang.in_(part))
            .where(_IN_A_GANG)
            .order_by(t.gang, t.part)
        )
        for gang_id, group in groupby(connection.execute(query), key=lambda row: row.gang):
            gang, members = gangs[gang_id], list(group)
            lacking = _lacking(gang, members)
            for row in members:
                if row.state != TaskState.WAITING:
                    continue
                places[row.id] = Gang(
                    id=gang_id, part=row.part, parts=gang.parts, hold_seconds=float(gang.hold_seconds), lacking=lacking
                )
                if row.id not in here:
                    others.append(row)
    return Whole(places=places, others=others)


def _lacking(gang: Any, members: Sequence[Any]) -> str:
    if len(members) < gang.parts:
        return f"{gang.parts - len(members)} of {gang.parts} not handed in"
    return next((f"part {row.part} ({row.id}) is {row.state}" for row in members if row.state != TaskState.WAITING), "")


def gangs_of(specs: Sequence[TaskSpec]) -> list[Gang | None]:
    """How tasks that are not handed in yet would stand in their gangs: those without a name follow one another, those of one name are
    one gang."""
    found: list[Gang | None] = []
    met: Counter[str] = Counter()
    for spec in specs:
        wish = spec.together
        if wish is None:
            found.append(None)
            continue
        own = wish.name or "-"
        of, part = divmod(met[own], wish.parts)
        met[own] += 1
        found.append(Gang(id=f"{own} {of}", part=part, parts=wish.parts, hold_seconds=float(wish.hold_seconds)))
    whole = Counter(gang.id for gang in found if gang is not None)
    return [
        replace(gang, lacking=f"{gang.parts - whole[gang.id]} of {gang.parts} not handed in")
        if gang is not None and whole[gang.id] < gang.parts
        else gang
        for gang in found
    ]


def open_gangs(connection: sa.Connection) -> bool:
    """Whether there is any gang to look at."""
    query = sa.select(tables.gangs.c.id).where(sa.text("NOT settled")).limit(1)
    return connection.execute(query).first() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a look at the gangs led to: `asked` sites to end or start something, or let tasks wait no longer."""

    asked: bool = False
    after: str = ""  # the last gang looked at, where there are more; the next look goes on behind it


def settle(connection: sa.Connection, now: float, lease: Lease, after: str = "") -> Settled:
    """Bring every gang that has not ended one step on; at most a page of them. LostLease when another process places now."""
    guard(connection, lease)
    g = tables.gangs
    query = sa.select(g.c.id, g.c.parts).where(sa.text("NOT settled")).where(g.c.id > after).order_by(g.c.id)
    ids = list(connection.execute(query.limit(_AT_ONCE)))
    taken_back: dict[str, str] = {}
    let_go: list[list[str]] = []
    endings: dict[str, tuple[TaskState, EndReason]] = {}
    details: dict[str, dict[str, Any]] = {}
    over: list[str] = []
    members = _members(connection, [row.id for row in ids])
    for row in ids:
        parts = members.get(row.id, [])
        step = _step(parts, row.parts)
        taken_back |= dict.fromkeys(step.take_back, step.why)
        if step.let_go:
            let_go.append([part.key for part in parts])
        for task_id in step.end:
            endings[task_id] = (step.state, step.reason)
            details[task_id] = {"message": step.why}
        if step.over:
            over.append(row.id)
    asked = take_back(connection, now, lease, PEER, taken_back) if taken_back else []
    started = [keys for keys in let_go if _let_go(connection, now, keys)]
    end_tasks(connection, now, endings, details)
    _close(connection, over)
    return Settled(asked=bool(asked or started or endings), after=ids[-1].id if len(ids) == _AT_ONCE else "")


def _close(connection: sa.Connection, ids: Sequence[str]) -> None:
    """These gangs need no looking at any more, unless one of their parts is tried again, or one joined, meanwhile: both lock the gang
    after its tasks, as is done here."""
    if not ids:
        return
    g = tables.gangs
    connection.execute(sa.select(g.c.id).where(g.c.id.in_(ids)).order_by(g.c.id).with_for_update()).all()
    members = _members(connection, ids)
    over = [gang for gang in ids if all(part.state in _ENDED for part in members.get(gang, []))]
    connection.execute(g.update().where(g.c.id.in_(over)).values(settled=True))


def _members(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    """The parts of each gang with their live or last attempts, in their order."""
    t, a = tables.tasks, tables.attempts
    query = (
        sa.select(
            t.c.id,
            t.c.gang,
            t.c.part,
            t.c.state,
            t.c.reason,
            t.c.ended_at,
            a.c.key,
            a.c.state.label("at"),
            a.c.reason.label("attempt_reason"),
            a.c.ending,
            a.c.cancel_requested,
            a.c.let_go_at,
        )
        .select_from(t.outerjoin(a, a.c.key == t.c.attempt))
        .where(t.c.gang.in_(ids))
        .where(sa.text("tasks.gang <> ''"))
        .order_by(t.c.gang, t.c.part)
    )
    return {gang: list(group) for gang, group in groupby(connection.execute(query), key=lambda row: row.gang)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    take_back: Sequence[str] = ()  # keys
    end: Sequence[str] = ()  # tasks
    state: TaskState = TaskState.FAILED  # that they end in
    reason: EndReason = EndReason.PEER_ENDED
    why: str = ""
    let_go: bool = False
    over: bool = False


def _step(parts: Sequence[Any], wanted: int) -> _Step:
    """What follows from how the parts of a gang stand."""
    ended = [part for part in parts if part.state in _ENDED]
    if len(ended) == len(parts):
        return _Step(over=True)
    failed = min((p for p in ended if p.state != TaskState.SUCCEEDED), key=lambda p: p.ended_at, default=None)
    idle = [part for part in parts if part.state in _IDLE]
    live = [part for part in parts if part.state not in _ENDED and part.state not in _IDLE]
    back = [p.key for p in live if not is_wanted_back(p)]
    if failed is not None:
        why = f"Part {failed.part} ({failed.id}) ended: {failed.reason}."
        return _Step(take_back=back, end=[part.id for part in idle], state=TaskState(failed.state), why=why)
    if ended and idle:
        why = f"It is not tried again: part {ended[0].part} ({ended[0].id}) has succeeded, and they start together."
        return _Step(end=[part.id for part in idle], why=why, reason=EndReason(idle[0].attempt_reason))
    if idle and live:
        why = f"Part {idle[0].part} ({idle[0].id}) waits for a place again: {idle[0].attempt_reason}."
        return _Step(take_back=back, why=why)
    gone = next((p for p in live if p.at == _A.COLLECTING and p.attempt_reason != EndReason.EXIT_ZERO), None)
    if gone is not None:
        why = f"Part {gone.part} ({gone.id}) ended: {gone.attempt_reason}."
        return _Step(take_back=[key for key in back if key != gone.key], why=why)
    there = [p for p in live if p.at == _A.RUNNING and not is_wanted_back(p) and p.let_go_at is None]
    return _Step(let_go=len(there) == wanted)


def _let_go(connection: sa.Connection, now: float, keys: Sequence[str]) -> bool:
    """Write down that these attempts may start, all or none."""
    a = tables.attempts
    query = a.select().where(a.c.key.in_(keys)).order_by(a.c.key)
    rows = list(connection.execute(query.with_for_update()))
    if any(row.state != _A.RUNNING or is_wanted_back(row) for row in rows):
        return False
    connection.execute(a.update().where(a.c.key.in_(keys)).values(let_go_at=now, due_at=0.0))
    events.add(
        connection,
        [
            events.event(
                now, "attempt.let_go", project=row.project, task_id=row.task_id, attempt=row.key, site=row.site
            )
            for row in rows
        ],
    )
    return True
